// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a plan takes away, as the programs look it up: objects by the address that the kernel
//! has for them, names by their bytes.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use lp_run_common::files::AnchorKey;
use lp_run_common::lsm::{CHANGE, FIXED, NAMES, NameKey, PART, READ, ROOT, TakenRow};
use lp_run_common::run::NO_ROW;
use nix::sys::stat::fstatat;
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC,
    XFS_SUPER_MAGIC, fstatfs,
};

use super::LsmError;
use crate::plan::{Plan, Row, Taken, TakenTarget};
use crate::sys::SysError;
use crate::sys::beneath::open_beneath;
use crate::watch::files::inspect::Inspect;

/// File systems whose names are compared byte by byte. Where one of them can be told otherwise,
/// the kernel side sees it.
const EXACT: [FsType; 5] = [
    BTRFS_SUPER_MAGIC,
    EXT4_SUPER_MAGIC,
    OVERLAYFS_SUPER_MAGIC,
    TMPFS_MAGIC,
    XFS_SUPER_MAGIC,
];

/// Rows by their keys.
pub(super) type Entries<K> = HashMap<K, TakenRow>;

/// The entries of one run.
pub(super) struct Table<'a> {
    inspect: &'a Inspect,
    generation: u32,
    pub objects: Entries<AnchorKey>,
    pub names: Entries<NameKey>,
    /// What the addresses in `objects` and `names` are of.
    pub held: Vec<OwnedFd>,
}

/// What one rule does with an entry.
#[derive(Clone, Copy)]
struct Use {
    bits: u32,
    row: Row,
}

impl<'a> Table<'a> {
    pub fn new(inspect: &'a Inspect, generation: u32) -> Self {
        Self {
            inspect,
            generation,
            objects: HashMap::new(),
            names: HashMap::new(),
            held: Vec::new(),
        }
    }

    /// Enters what the plan takes away and, for patterns, the roots that it grants.
    pub fn fill(&mut self, plan: &Plan, made: &[BorrowedFd<'_>]) -> Result<(), LsmError> {
        let (mut patterns, mut ascii) = (None, true);
        for taken in &plan.taken {
            match &taken.target {
                TakenTarget::Below { root, path } => {
                    let Some(root) = &root.fd else {
                        return Err(LsmError::NotOpened(root.path.clone()));
                    };
                    self.below(plan, taken, root.as_fd(), path)?;
                }
                TakenTarget::Pattern(parts) => {
                    self.pattern(taken, parts);
                    ascii &= parts.iter().all(|part| part.is_ascii());
                    patterns = patterns.or(Some(taken.row));
                }
            }
        }
        let Some(row) = patterns else { return Ok(()) };
        for anchor in &plan.anchors {
            let Some(object) = &anchor.object else {
                continue;
            };
            let Some(fd) = &object.fd else { continue };
            if anchor.directory && !is_exact(fd.as_fd(), ascii) {
                return Err(LsmError::Inexact {
                    rule: key(plan, row),
                    path: anchor.path.clone(),
                });
            }
            self.object(fd.as_fd(), Use { bits: ROOT, row })?;
        }
        for fd in made {
            self.object(*fd, Use { bits: ROOT, row })?;
        }
        Ok(())
    }

    /// The place of the self-test: nothing in it may be touched.
    pub fn canary(&mut self, place: BorrowedFd<'_>) -> Result<(), LsmError> {
        let bits = READ | CHANGE;
        self.object(place, Use { bits, row: NO_ROW })
    }

    /// Which lengths the names have.
    pub fn lengths(&self) -> u64 {
        let bits = self.names.keys().map(|key| 1_u64 << key.length);
        bits.fold(0, |all, bit| all | bit)
    }

    /// Something below a granted root: the object if it is there, its name always, and the
    /// directories above, which must not move.
    fn below(
        &mut self,
        plan: &Plan,
        taken: &Taken,
        root: BorrowedFd<'_>,
        path: &Path,
    ) -> Result<(), LsmError> {
        let failed = |source| LsmError::Path {
            rule: key(plan, taken.row),
            path: path.to_owned(),
            source,
        };
        let row = taken.row;
        let last = path.file_name().unwrap_or_default();
        let mut directory = root.try_clone_to_owned().map_err(|source| {
            failed(SysError {
                call: "fcntl",
                source,
            })
        })?;
        for part in path.parent().into_iter().flat_map(Path::components) {
            self.object(directory.as_fd(), Use { bits: FIXED, row })?;
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let name = text(part.as_os_str().as_bytes());
            let below = open_beneath(&directory, &name, flags, 0).map_err(failed)?;
            self.held.push(std::mem::replace(&mut directory, below));
        }
        let bits = FIXED | NAMES;
        self.object(directory.as_fd(), Use { bits, row })?;
        let it = Use {
            bits: bits_of(taken),
            row,
        };
        let parent = self.inspect.object(directory.as_fd())?;
        self.name(parent, last.as_bytes(), it);
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        match open_beneath(&directory, &text(last.as_bytes()), flags, 0) {
            Ok(object) => {
                self.object(object.as_fd(), it)?;
                self.held.push(object);
            }
            Err(error) if error.errno() == libc::ENOENT => {}
            Err(error) => return Err(failed(error)),
        }
        self.held.push(directory);
        Ok(())
    }

    /// A name at any depth, or a name in a directory of a name.
    fn pattern(&mut self, taken: &Taken, parts: &[String]) {
        let it = Use {
            bits: bits_of(taken),
            row: taken.row,
        };
        match parts {
            [name] => self.name(0, name.as_bytes(), it),
            [directory, name] => {
                let part = Use { bits: PART, ..it };
                let next = self.names.len() as u32 + 1;
                self.name(0, directory.as_bytes(), part);
                let number = self
                    .names
                    .get_mut(&name_key(self.generation, 0, directory.as_bytes()))
                    .map_or(next, |row| {
                        row.number = if row.number == 0 { next } else { row.number };
                        row.number
                    });
                self.name(number.into(), name.as_bytes(), it);
            }
            // The plan makes a gap of it.
            _ => {}
        }
    }

    fn object(&mut self, object: BorrowedFd<'_>, it: Use) -> Result<(), LsmError> {
        let key = AnchorKey {
            generation: self.generation,
            reserved: 0,
            inode: self.inspect.object(object)?,
        };
        it.add(self.objects.entry(key).or_insert(EMPTY));
        Ok(())
    }

    fn name(&mut self, parent: u64, name: &[u8], it: Use) {
        let key = name_key(self.generation, parent, name);
        it.add(self.names.entry(key).or_insert(EMPTY));
    }
}

impl Use {
    /// Adds it to a row; of several rules that take the same away, the first counts.
    fn add(self, row: &mut TakenRow) {
        let new = self.bits & !row.bits;
        row.bits |= self.bits;
        if new & READ != 0 {
            row.read = self.row;
        }
        // What only keeps a directory in its place gives way to what takes changing away.
        if new & CHANGE != 0 || self.bits & (FIXED | PART) != 0 && row.change == NO_ROW {
            row.change = self.row;
        }
    }
}

const EMPTY: TakenRow = TakenRow {
    bits: 0,
    read: NO_ROW,
    change: NO_ROW,
    number: 0,
};

fn bits_of(taken: &Taken) -> u32 {
    CHANGE | if taken.read { READ } else { 0 }
}

fn name_key(generation: u32, parent: u64, name: &[u8]) -> NameKey {
    let mut bytes = [0; size_of::<lp_run_common::lsm::Name>()];
    bytes[..name.len()].copy_from_slice(name);
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
    }
    NameKey {
        generation,
        length: name.len() as u32,
        parent,
        name: words,
    }
}

fn key(plan: &Plan, row: Row) -> String {
    let rule = plan.rules.get(row as usize);
    rule.map(|rule| rule.info.key.clone()).unwrap_or_default()
}

fn text(name: &[u8]) -> CString {
    // Names of a path have no NUL byte.
    CString::new(name).unwrap_or_default()
}

/// Whether each name in a directory's file system is written in one way only: known of its
/// type, or tried with a name that is there. Beyond ASCII there are other ways than case.
fn is_exact(directory: BorrowedFd<'_>, ascii: bool) -> bool {
    let kind = fstatfs(directory).map(|status| status.filesystem_type());
    if kind.is_ok_and(|kind| EXACT.contains(&kind)) {
        return true;
    }
    if !ascii {
        return false;
    }
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let Ok(entries) = fs::read_dir(path) else {
        return false;
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let swapped = names.filter_map(|name| {
        let other = swap_case(name.as_bytes());
        (other != name.as_bytes()).then(|| text(&other))
    });
    let missing = |name: CString| {
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        fstatat(directory, name.as_c_str(), flags) == Err(nix::errno::Errno::ENOENT)
    };
    swapped.take(16).any(missing)
}

fn swap_case(name: &[u8]) -> Vec<u8> {
    let swap = |byte: &u8| match byte.is_ascii_lowercase() {
        true => byte.to_ascii_uppercase(),
        false => byte.to_ascii_lowercase(),
    };
    name.iter().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_padded_and_counted() {
        let key = name_key(7, 3, b".env");
        assert_eq!((key.generation, key.length, key.parent), (7, 4, 3));
        assert_eq!(key.name[0].to_ne_bytes(), *b".env\0\0\0\0");
        assert_eq!(key.name[1..], [0; 7]);
    }

    #[test]
    fn of_two_rules_the_first_counts() {
        let mut row = EMPTY;
        for (bits, by) in [(CHANGE, 4), (CHANGE | READ, 6), (FIXED, 9)] {
            Use { bits, row: by }.add(&mut row);
        }
        assert_eq!((row.read, row.change), (6, 4));
        assert_eq!(row.bits, CHANGE | READ | FIXED);
    }

    #[test]
    fn a_plain_file_system_writes_a_name_in_one_way() {
        let directory = tempfile::tempdir().unwrap();
        let fd = fs::File::open(directory.path()).unwrap();
        assert!(is_exact(fd.as_fd(), true));
        assert_eq!(swap_case(b"a.B1"), b"A.b1");
    }
}
