// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening files with the rights of the person who called, while the process is root: file
//! system uid, gid and supplementary groups are the caller's for the time of one closure.
//!
//! The kernel clears the capabilities that override file permissions while the file system
//! uid is not 0 (capabilities(7), "Effect of user ID changes on capabilities"). Only the
//! calling thread changes.

use std::ffi::CString;

use nix::unistd::{Gid, Uid, geteuid, getgrouplist, getgroups, setfsgid, setfsuid};

use super::SysError;

/// Runs `act` with the file system rights of user `uid`, whose login name is `name` and whose
/// primary group is `gid`. Where lp-run is not root it already has nothing but the caller's
/// rights, and where the caller is root there is nothing to give up: then `act` just runs.
pub fn with_rights_of<T>(
    name: &str,
    uid: u32,
    gid: u32,
    act: impl FnOnce() -> T,
) -> Result<T, SysError> {
    if uid == 0 || !geteuid().is_root() {
        return Ok(act());
    }
    let guard = Guard::enter(name, Uid::from_raw(uid), Gid::from_raw(gid))?;
    let result = act();
    drop(guard);
    Ok(result)
}

/// Gives the old ids back when it is dropped, also while a panic unwinds.
struct Guard {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Guard {
    fn enter(name: &str, uid: Uid, gid: Gid) -> Result<Self, SysError> {
        let groups = getgroups().map_err(|errno| failed("getgroups", errno))?;
        let name = CString::new(name).map_err(|_| failed("getgrouplist", nix::Error::EINVAL))?;
        let theirs = getgrouplist(&name, gid).map_err(|errno| failed("getgrouplist", errno))?;
        set_groups(&theirs)?;
        let old_gid = setfsgid(gid);
        let guard = Self {
            gid: old_gid,
            groups,
            uid: setfsuid(uid),
        };
        // Neither call reports failure: only asking again does (setfsuid(2), "BUGS").
        if setfsuid(uid) == uid && setfsgid(gid) == gid {
            return Ok(guard);
        }
        Err(failed("setfsuid", nix::Error::EPERM))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        setfsuid(self.uid);
        setfsgid(self.gid);
        let restored = set_groups(&self.groups).is_ok() && setfsuid(self.uid) == self.uid;
        if !restored {
            // Going on with a mixture of two identities is never right.
            std::process::abort();
        }
    }
}

/// Sets the supplementary groups of this thread: the wrapper of libc would set those of all
/// threads (nptl(7), "NPTL and the POSIX threads").
fn set_groups(groups: &[Gid]) -> Result<(), SysError> {
    let raw: Vec<libc::gid_t> = groups.iter().map(|group| group.as_raw()).collect();
    // SAFETY: the kernel reads `raw.len()` ids from `raw`, which lives until the call is over.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, raw.len(), raw.as_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(SysError::last("setgroups"))
    }
}

fn failed(call: &'static str, errno: nix::Error) -> SysError {
    SysError {
        call,
        source: std::io::Error::from(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_of_root_is_closed_to_the_caller_and_open_again_afterwards() {
        if !geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = dir.path().join("secret");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let seen = with_rights_of("nobody", 65534, 65534, || fs::read(&file)).unwrap();
        assert_eq!(seen.unwrap_err().raw_os_error(), Some(libc::EACCES));
        assert_eq!(fs::read(&file).unwrap(), b"x");
    }
}
