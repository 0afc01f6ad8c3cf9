// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who else could put something of his own in the place of what lies below a directory: the
//! others of its mode, its group, and whom an access control list names.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::sys::attribute;

/// Where distributions let a group of their own make files: `root:syslog 0775` on Ubuntu,
/// `root:adm` elsewhere.
const LOG_DIRECTORY: &str = "/var/log";
const LOG_GROUPS: [&str; 2] = ["syslog", "adm"];

/// The access control list of a file. See acl(5).
const ACL: &str = "system.posix_acl_access";
/// Layout of its value, and its tags (linux/posix_acl_xattr.h, linux/posix_acl.h).
const ACL_VERSION: u32 = 2;
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;
const ACL_WRITE: u16 = 0x02;

/// Whether anybody but the users `trusted` and root's group could rename what lies in
/// `directory`. The sticky bit keeps the entries of others in place.
pub(super) fn lets_strangers_rename(
    directory: &Path,
    metadata: &Metadata,
    trusted: &[u32],
) -> bool {
    let mode = metadata.mode();
    if mode & 0o1000 != 0 {
        return false;
    }
    if mode & 0o002 != 0 {
        return true;
    }
    // What a list gives to anybody shows as the group's right, too: there stands its mask.
    if mode & 0o020 == 0 {
        return false;
    }
    let group_is_known = metadata.gid() == 0 || {
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        is_log_group(directory, metadata.gid(), &groups)
    };
    !group_is_known || lists_a_writer(directory, trusted)
}

/// Whether a distribution gives `directory` to this group. `groups` is group(5).
fn is_log_group(directory: &Path, gid: u32, groups: &str) -> bool {
    let mut rows = groups.lines().map(|row| row.split(':'));
    let name = rows.find_map(|mut row| {
        let name = row.next()?;
        (row.nth(1)?.parse() == Ok(gid)).then_some(name)
    });
    directory == Path::new(LOG_DIRECTORY) && name.is_some_and(|name| LOG_GROUPS.contains(&name))
}

/// Whether the list of `directory` lets anybody write whom its mode does not show. What cannot
/// be read counts as such.
fn lists_a_writer(directory: &Path, trusted: &[u32]) -> bool {
    match attribute::read(directory, ACL) {
        Ok(list) => names_a_writer(&list, trusted).unwrap_or(true),
        Err(error) => !matches!(error.errno(), libc::ENODATA | libc::EOPNOTSUPP),
    }
}

/// `None`: no list that is known.
fn names_a_writer(list: &[u8], trusted: &[u32]) -> Option<bool> {
    let (version, entries) = list.split_first_chunk()?;
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != ACL_VERSION || !rest.is_empty() {
        return None;
    }
    Some(entries.iter().any(|[a, b, c, d, id @ ..]| {
        let (tag, rights) = (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]));
        let id = u32::from_le_bytes(*id);
        let stranger = match tag {
            ACL_USER => !trusted.contains(&id),
            ACL_GROUP => id != 0,
            _ => false,
        };
        stranger && rights & ACL_WRITE != 0
    }))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::process::Command;

    use super::*;

    /// A directory of this group and mode, and whether strangers could rename in it.
    fn judged(gid: u32, mode: u32, list: Option<&[u8]>) -> bool {
        let dir = tempfile::tempdir().unwrap();
        chown(dir.path(), Some(0), Some(gid)).unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
        if let Some(list) = list {
            set_list(dir.path(), list);
        }
        let metadata = dir.path().metadata().unwrap();
        lets_strangers_rename(dir.path(), &metadata, &[0])
    }

    fn set_list(path: &Path, list: &[u8]) {
        let hex: String = list.iter().map(|byte| format!("{byte:02x}")).collect();
        let script = "import os, sys; \
                      os.setxattr(sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3]))";
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(path).args([ACL, &hex]);
        assert!(python.status().unwrap().success());
    }

    /// `u::rwx,ENTRY,g::rwx,m::MASK,o::r-x`, where ENTRY gives `rights` to `id`.
    fn list(tag: u16, id: u32, rights: u16, mask: u16) -> Vec<u8> {
        let none = u32::MAX;
        let mut entries = [
            (1, 7, none),
            (tag, rights, id),
            (4, 7, none),
            (0x10, mask, none),
            (0x20, 5, none),
        ];
        entries.sort_by_key(|entry| entry.0);
        let mut bytes = ACL_VERSION.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            bytes.extend(u16::to_le_bytes(tag));
            bytes.extend(u16::to_le_bytes(rights));
            bytes.extend(u32::to_le_bytes(id));
        }
        bytes
    }

    #[test]
    fn a_group_other_than_roots_may_not_write_whatever_its_number() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        // adm, staff and users of most distributions, an ordinary one.
        for gid in [4, 50, 100, 999, 1000] {
            assert!(judged(gid, 0o775, None), "{gid}");
            assert!(!judged(gid, 0o1775, None), "{gid}, sticky");
            assert!(!judged(gid, 0o755, None), "{gid}, read only");
        }
        assert!(!judged(0, 0o775, None));
        assert!(judged(0, 0o777, None));
    }

    #[test]
    fn only_the_log_directory_may_belong_to_the_groups_of_the_distribution() {
        let groups = "root:x:0:\nadm:x:4:anna\nsyslog:x:110:\nusers:x:100:\nadm:x:100:\n";
        let allowed = |directory: &str, gid| is_log_group(Path::new(directory), gid, groups);
        assert!(allowed("/var/log", 4) && allowed("/var/log", 110));
        assert!(!allowed("/var/log", 100) && !allowed("/var/log", 111));
        assert!(!allowed("/var", 4) && !allowed("/var/log/app", 4));
        assert!(!is_log_group(
            Path::new("/var/log"),
            4,
            "adm\n:::\nadm:x:four:"
        ));
    }

    #[test]
    fn whom_a_list_lets_write_counts_as_a_stranger() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (all, read) = (7, 5);
        assert!(judged(0, 0o775, Some(&list(ACL_USER, 1234, all, all))));
        assert!(judged(0, 0o775, Some(&list(ACL_GROUP, 100, all, all))));
        for harmless in [
            list(ACL_USER, 1234, read, all),
            list(ACL_USER, 0, all, all),
            list(ACL_GROUP, 0, all, all),
            list(ACL_USER, 1234, all, read),
        ] {
            assert!(!judged(0, 0o775, Some(&harmless)), "{harmless:?}");
        }
    }

    #[test]
    fn a_list_that_is_not_understood_counts_as_one_that_lets_write() {
        for odd in [&b""[..], &[3, 0, 0, 0], &[2, 0, 0, 0, 1]] {
            assert_eq!(names_a_writer(odd, &[0]), None, "{odd:?}");
        }
        assert!(lists_a_writer(Path::new("/no/such/directory"), &[0]));
    }
}
