// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a user could do with an object by himself, from owner, group and permission bits of
//! the object and the directories above it. Access control lists are not looked at: their mask
//! stands in the group bits, which bounds what they give and hides what they take away.

use super::super::facts::{Kind, Object, User};

/// A use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Make it the working directory.
    Enter,
    /// Open it for reading; list it.
    Read,
    /// Run it.
    Run,
    /// Connect to the socket.
    Connect,
}

/// Whether `user`, a member of `groups`, could use `object` as needed.
pub fn may(user: &User, groups: &[u32], object: &Object, need: Need) -> bool {
    if user.uid == 0 {
        return true;
    }
    let reachable = object
        .ancestors
        .iter()
        .all(|above| bits(user, groups, above.uid, above.gid, above.mode) & 1 != 0);
    let own = bits(user, groups, object.uid, object.gid, object.mode);
    let directory = object.kind == Kind::Directory;
    let wanted = match need {
        Need::Enter => 1,
        Need::Read if directory => 5,
        Need::Read => 4,
        Need::Run if directory => 5,
        Need::Run => 1,
        Need::Connect => 2,
    };
    reachable && own & wanted == wanted
}

/// The three permission bits that count for the user (path_resolution(7): the first class that
/// fits decides).
fn bits(user: &User, groups: &[u32], uid: u32, gid: u32, mode: u32) -> u32 {
    if user.uid == uid {
        mode >> 6 & 7
    } else if user.gid == gid || groups.contains(&gid) {
        mode >> 3 & 7
    } else {
        mode & 7
    }
}
