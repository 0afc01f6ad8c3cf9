// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mounts of the machine: what is mounted below a directory, and under which other names
//! an object can be reached.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::Object;

/// One line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// Its number, which [`Object::mount`] names.
    pub id: u64,
    /// The mount that it stands on.
    pub parent: u64,
    /// Device of the file system, `major:minor`.
    pub device: String,
    /// Which directory of the file system is shown.
    pub root: PathBuf,
    /// Where.
    pub at: PathBuf,
}

/// Reads mountinfo; a line that is none is left out.
pub fn parse(text: &[u8]) -> Vec<MountPoint> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut words = line.split(|byte| *byte == b' ');
            let mut number = || std::str::from_utf8(words.next()?).ok()?.parse().ok();
            let (id, parent) = (number()?, number()?);
            Some(MountPoint {
                id,
                parent,
                device: String::from_utf8_lossy(words.next()?).into_owned(),
                root: path(words.next()?),
                at: path(words.next()?),
            })
        })
        .collect()
}

fn path(word: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(word)))
}

/// Space, tab, line break and backslash stand as `\` and three octal digits in mountinfo.
pub fn unescape(word: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let value = digits.and_then(|digits| {
            digits.iter().try_fold(0u8, |sum, digit| {
                let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
                sum.checked_mul(8)?.checked_add(digit)
            })
        });
        bytes.push(value.unwrap_or(*first));
        rest = &after[if value.is_some() { 3 } else { 0 }..];
    }
    bytes
}

/// The mount points below a directory on its own file system: what is mounted there is another
/// tree.
pub fn below<'m>(
    mounts: &'m [MountPoint],
    object: &'m Object,
) -> impl Iterator<Item = &'m Path> + use<'m> {
    mounts
        .iter()
        .filter(|mount| {
            mount.parent == object.mount
                && mount.at != object.path
                && mount.at.starts_with(&object.path)
        })
        .map(|mount| mount.at.as_path())
}

/// Every other name of `path`, which lies at `object` or is to be made below it: through bind
/// mounts of the same file system, also of something inside it.
pub fn other_names(mounts: &[MountPoint], object: &Object, path: &Path) -> Vec<PathBuf> {
    let Some(own) = mounts.iter().find(|mount| mount.id == object.mount) else {
        return Vec::new();
    };
    let Ok(below) = path.strip_prefix(&own.at) else {
        return Vec::new();
    };
    let inside = join(&own.root, below);
    let others = mounts
        .iter()
        .filter(|mount| mount.id != own.id && mount.device == own.device);
    let mut names: Vec<PathBuf> = others
        .filter_map(|mount| match inside.strip_prefix(&mount.root) {
            Ok(below) => Some(join(&mount.at, below)),
            Err(_) => mount.root.starts_with(&inside).then(|| mount.at.clone()),
        })
        .filter(|name| name != path)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// `Path::join` leaves a slash at the end when there is nothing to join.
fn join(base: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() {
        base.to_owned()
    } else {
        base.join(below)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeFacts;
    use super::super::{Facts, Kind, SystemFacts};
    use super::*;

    fn mounts() -> Vec<MountPoint> {
        parse(
            b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
              28 27 254:0 /etc/cron.d /srv/x/cache rw shared:1 - ext4 /dev/vda rw\n\
              29 27 0:40 / /srv/x/a\\040b\\134 rw - tmpfs none rw\n\
              30 27 254:16 / /usr/local rw - ext4 /dev/vdb rw\n\
              31 30 0:41 / /usr/local/deep rw - tmpfs none rw\n\
              nonsense\n",
        )
    }

    fn object(path: &str, mount: u64) -> Object {
        let mut facts = FakeFacts::new();
        for above in Path::new(path).ancestors() {
            let above = above.to_str().unwrap();
            facts.put(above, Kind::Directory, 0, 0o755, b"");
        }
        let object = facts.open(Path::new(path), &[]).unwrap();
        Object { mount, ..object }
    }

    #[test]
    fn mountinfo_is_read_with_its_escapes() {
        let mounts = mounts();
        assert_eq!(mounts.len(), 5);
        assert_eq!(mounts[2].at, Path::new("/srv/x/a b\\"));
        assert_eq!(mounts[1].root, Path::new("/etc/cron.d"));
    }

    #[test]
    fn only_the_nearest_mounts_are_below() {
        let mounts = mounts();
        let of = |path, mount| below(&mounts, &object(path, mount)).count();
        assert_eq!((of("/usr", 27), of("/usr/local", 30)), (1, 1));
        assert_eq!((of("/srv/x", 27), of("/srv/y", 27)), (2, 0));
    }

    #[test]
    fn a_bind_mount_gives_other_names_both_ways() {
        let mounts = mounts();
        let names = |path: &str, mount| other_names(&mounts, &object(path, mount), path.as_ref());
        assert_eq!(
            names("/srv/x/cache/y", 28),
            [PathBuf::from("/etc/cron.d/y")]
        );
        assert_eq!(names("/etc/cron.d", 27), [PathBuf::from("/srv/x/cache")]);
        // What the tree holds is reached through it.
        assert_eq!(names("/etc", 27), [PathBuf::from("/srv/x/cache")]);
        assert!(names("/usr/local", 30).is_empty());
    }

    #[test]
    fn the_kernel_names_the_mount_of_an_object() {
        let root = SystemFacts::default()
            .open(Path::new("/proc"), &[])
            .unwrap();
        let mounts = SystemFacts::default().mounts().unwrap();
        let own = mounts.iter().find(|mount| mount.id == root.mount).unwrap();
        assert_eq!(own.at, Path::new("/proc"));
    }
}
