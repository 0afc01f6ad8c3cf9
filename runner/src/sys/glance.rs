// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the host has a name, asked of this kernel alone. The name is the agent's choice, and
//! lp-run asks as root: a server or a program that had to answer would learn the name, which is
//! a way out of a run without a network, and could keep lp-run waiting as long as it likes. So
//! the walk goes one name at a time, wakes no automounter, and ends where such a file system
//! begins.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;

use super::statx::mount_id;

/// Most symbolic links that are followed, as in the kernel (path_resolution(7)).
const MAX_LINKS: u32 = 40;
/// Most names that are looked up for one path.
const MAX_NAMES: u32 = 512;

/// File systems that this kernel answers for, from its own disks and memory.
const OWN: [&str; 40] = [
    "bcachefs",
    "binfmt_misc",
    "bpf",
    "btrfs",
    "cgroup",
    "cgroup2",
    "configfs",
    "cramfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "erofs",
    "exfat",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "hfsplus",
    "hugetlbfs",
    "iso9660",
    "jfs",
    "mqueue",
    "nilfs2",
    "ntfs3",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "reiserfs",
    "romfs",
    "securityfs",
    "squashfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "udf",
    "vfat",
    "xfs",
    "zfs",
];

/// Whether `path`, which is absolute, names something. A symbolic link at the end counts itself.
/// What lies on a file system that others answer for counts as there, unasked: it is hidden from
/// the agent in any case. What the host's root lies on is asked, whatever it is.
pub fn exists(path: &Path) -> bool {
    walk(path).unwrap_or(false)
}

fn walk(path: &Path) -> nix::Result<bool> {
    let root = open("/", PLACE, Mode::empty())?;
    let mut known = [mount(&root)?; 2];
    let mut at = root.try_clone().map_err(|_| Errno::EMFILE)?;
    let (mut links, mut names) = (MAX_LINKS, MAX_NAMES);
    let mut rest: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(next) = rest.pop() {
        let mut components = next.components();
        let Some(component) = components.next() else {
            continue;
        };
        rest.push(components.as_path().to_owned());
        let name = match component {
            Component::RootDir => Path::new("/"),
            Component::ParentDir => Path::new(".."),
            Component::Normal(name) => Path::new(name),
            Component::CurDir | Component::Prefix(_) => continue,
        };
        names = names.checked_sub(1).ok_or(Errno::ENAMETOOLONG)?;
        let found = openat(&at, name, PLACE, Mode::empty())?;
        if rest.iter().all(|rest| rest.as_os_str().is_empty()) {
            return Ok(true);
        }
        // Before anything is asked of what was found.
        let mount = mount(&found)?;
        if !known.contains(&mount) {
            if !is_own(mount, &fs::read("/proc/self/mountinfo").unwrap_or_default()) {
                return Ok(true);
            }
            known[1] = mount;
        }
        match readlinkat(&found, "") {
            Ok(target) => {
                links = links.checked_sub(1).ok_or(Errno::ELOOP)?;
                rest.push(PathBuf::from(target));
            }
            Err(_) => at = found,
        }
    }
    Ok(true)
}

/// Opens a place in the tree: neither opened nor followed, and no automounter is woken for it (open(2)).
pub const PLACE: OFlag = OFlag::O_PATH
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

fn mount(place: &OwnedFd) -> nix::Result<u64> {
    mount_id(place.as_fd()).map_err(|error| Errno::from_raw(error.errno()))
}

/// Whether this kernel answers for what is mounted as `mount`, a line of `table`
/// (`/proc/PID/mountinfo`).
pub fn is_own(mount: u64, table: &[u8]) -> bool {
    let table = String::from_utf8_lossy(table);
    table.lines().any(|line| {
        let id = line.split(' ').next().and_then(|word| word.parse().ok());
        let words = line.split_once(" - ").map(|(_, words)| words);
        let filesystem = words.and_then(|words| words.split(' ').next());
        id == Some(mount) && filesystem.is_some_and(|name| OWN.contains(&name))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::ffi::CString;
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::{OpenOptionsExt as _, symlink};

    use super::*;
    use crate::sys::fork::in_child;
    use crate::sys::{mount, trial};

    #[test]
    fn the_name_itself_is_asked_for_and_links_on_the_way_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("real")).unwrap();
        fs::write(at("real/file"), "").unwrap();
        symlink("/nowhere/at/all", at("dangling")).unwrap();
        symlink("../real", at("real/around")).unwrap();
        symlink(at("real"), at("absolute")).unwrap();
        symlink("loop", at("loop")).unwrap();
        for there in [
            "",
            "real",
            "dangling",
            "real/file",
            "real/around/around/file",
            "absolute/file",
            "absolute/../real/./file",
            "loop",
        ] {
            assert!(exists(&at(there)), "{there}");
        }
        for missing in [
            "none",
            "dangling/x",
            "real/file/x",
            "absolute/none",
            "loop/x",
        ] {
            assert!(!exists(&at(missing)), "{missing}");
        }
        assert!(exists(Path::new("/")) && exists(Path::new("/proc/self/stat")));
        assert!(!exists(&PathBuf::from("/x".repeat(600))));
    }

    /// Mounts, in a mount namespace of this process alone, a file system for which a program
    /// would answer that never does. Whoever asks it waits; what it is asked can be read.
    pub(crate) fn silent_server(at: &Path) -> fs::File {
        trial::unshare(libc::CLONE_NEWNS).unwrap();
        mount::make_private().unwrap();
        let device = fs::File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/fuse")
            .unwrap();
        let context = mount::open_filesystem(c"fuse").unwrap();
        let number = CString::new(device.as_raw_fd().to_string()).unwrap();
        for (key, value) in [
            (c"source", c"silent"),
            (c"fd", number.as_c_str()),
            (c"rootmode", c"40000"),
            (c"user_id", c"0"),
            (c"group_id", c"0"),
        ] {
            mount::set_option(&context, key, value).unwrap();
        }
        let made = mount::mount_filesystem(&context, 0).unwrap();
        mount::attach(made, fs::File::open(at).unwrap()).unwrap();
        device
    }

    #[test]
    fn a_file_system_that_a_program_answers_for_is_not_asked() {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("skipped: needs root and FUSE");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (place, link) = (directory.path().join("fuse"), directory.path().join("link"));
        fs::create_dir(&place).unwrap();
        symlink(&place, &link).unwrap();
        in_child(|| {
            // Who asks waits for ever.
            nix::unistd::alarm::set(5);
            let mut device = silent_server(&place);
            for name in ["a", "a/b"] {
                assert!(exists(&place.join(name)));
                assert!(exists(&link.join(name)));
            }
            assert!(exists(&place) && !exists(&place.with_file_name("none")));
            // What the kernel itself asks once: `FUSE_INIT` (26, linux/fuse.h). And no more.
            let mut request = [0; 65536];
            assert!(device.read(&mut request).unwrap() > 40);
            assert_eq!(request[4..8], 26_u32.to_ne_bytes());
            let more = device.read(&mut request).unwrap_err();
            assert_eq!(more.kind(), std::io::ErrorKind::WouldBlock);
        });
    }
}
