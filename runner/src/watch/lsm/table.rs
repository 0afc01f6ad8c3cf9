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
use lp_run_common::lsm::{
    CHANGE, FIXED, NAMES, NameKey, PatternRow, READ, ROOT, SHAPE, STARS, TakenRow, WORDS,
};
use lp_run_common::run::NO_ROW;
use nix::sys::stat::{fstat, fstatat};
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC,
    XFS_SUPER_MAGIC, fstatfs,
};

use super::LsmError;
use crate::plan::{Plan, Row, Taken, TakenTarget};
use crate::policy::facts::Object;
use crate::policy::pattern::Pattern;
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
    pub patterns: PatternRow,
    /// Where the agent sees the granted roots, by the address of the object.
    pub roots: HashMap<u64, PathBuf>,
    /// How many positions of each word are taken.
    used: [usize; WORDS],
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
            patterns: PatternRow::EMPTY,
            roots: HashMap::new(),
            used: [0; WORDS],
            held: Vec::new(),
        }
    }

    /// Enters what the plan takes away and the roots that it grants.
    pub fn fill(&mut self, plan: &Plan, made: &[(&Path, BorrowedFd<'_>)]) -> Result<(), LsmError> {
        let (mut names, mut ascii) = (None, true);
        for taken in &plan.taken {
            match &taken.target {
                TakenTarget::Below { root, path } => {
                    self.below(plan, taken, opened(root)?, path)?;
                }
                TakenTarget::Pattern(pattern) => {
                    self.pattern(plan, taken, &Pattern::new(pattern))?;
                    ascii &= pattern.is_ascii();
                    names = names.or(Some(taken.row));
                }
                TakenTarget::Inside {
                    root,
                    directory,
                    pattern,
                } => {
                    self.inside(plan, taken, opened(root)?, directory, pattern)?;
                    if !is_exact(opened(root)?, pattern.is_ascii()) {
                        return Err(inexact(plan, taken.row, &root.path));
                    }
                }
            }
        }
        for anchor in &plan.anchors {
            let Some(object) = &anchor.object else {
                continue;
            };
            let Some(fd) = &object.fd else { continue };
            if let Some(row) = names
                && anchor.directory
                && !is_exact(fd.as_fd(), ascii)
            {
                return Err(inexact(plan, row, &anchor.path));
            }
            self.root(&anchor.path, fd.as_fd())?;
        }
        made.iter().try_for_each(|(path, fd)| self.root(path, *fd))
    }

    fn root(&mut self, path: &Path, object: BorrowedFd<'_>) -> Result<(), LsmError> {
        let key = self.key(object)?;
        let it = Use {
            bits: ROOT,
            row: NO_ROW,
        };
        it.add(self.objects.entry(key).or_insert(EMPTY));
        self.roots
            .entry(key.inode)
            .or_insert_with(|| path.to_owned());
        Ok(())
    }

    /// The place of the self-test: nothing in it may be touched.
    pub fn canary(&mut self, place: BorrowedFd<'_>) -> Result<(), LsmError> {
        let bits = READ | CHANGE;
        self.object(place, Use { bits, row: NO_ROW })
    }

    /// Which lengths the names have.
    pub fn lengths(&self) -> u64 {
        let bit = |key: &NameKey| match key.length & SHAPE {
            0 => 1_u64 << key.length,
            _ => STARS,
        };
        self.names.keys().fold(0, |all, key| all | bit(key))
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
        let failed = |source| path_failed(plan, taken.row, path, source);
        let row = taken.row;
        let last = path.file_name().unwrap_or_default();
        let above = path.parent().unwrap_or(Path::new(""));
        let directory = self
            .descend(row, root, above)
            .map_err(|error| error.of(plan, taken.row, path))?;
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
                if !is_one(object.as_fd()) {
                    return Err(LsmError::Names {
                        rule: key(plan, taken.row),
                        path: path.to_owned(),
                    });
                }
                self.object(object.as_fd(), it)?;
                self.held.push(object);
            }
            Err(error) if error.errno() == libc::ENOENT => {}
            Err(error) => return Err(failed(error)),
        }
        self.held.push(directory);
        Ok(())
    }

    /// Opens a directory below `root`; what is above it does not move.
    fn descend(&mut self, row: Row, root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Descent> {
        let copied = root.try_clone_to_owned();
        let mut directory = copied.map_err(|source| SysError {
            call: "fcntl",
            source,
        })?;
        for part in path.components() {
            self.object(directory.as_fd(), Use { bits: FIXED, row })?;
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let name = text(part.as_os_str().as_bytes());
            let below = open_beneath(&directory, &name, flags, 0)?;
            self.held.push(std::mem::replace(&mut directory, below));
        }
        Ok(directory)
    }

    /// A pattern of all that is granted. One name needs no more than its entry.
    fn pattern(
        &mut self,
        plan: &Plan,
        taken: &Taken,
        pattern: &Pattern<'_>,
    ) -> Result<(), LsmError> {
        if let [name] = pattern.parts() {
            let it = Use {
                bits: bits_of(taken),
                row: taken.row,
            };
            let key = self.part(name).ok_or_else(|| too_many(plan, taken.row))?;
            it.add(self.names.entry(key).or_insert(EMPTY));
            return Ok(());
        }
        let (word, bit) = self.positions(plan, taken, pattern)?;
        self.patterns.anywhere[word] |= bit;
        Ok(())
    }

    /// A pattern of one directory, which does not move.
    fn inside(
        &mut self,
        plan: &Plan,
        taken: &Taken,
        root: BorrowedFd<'_>,
        path: &Path,
        pattern: &str,
    ) -> Result<(), LsmError> {
        let row = taken.row;
        let directory = self
            .descend(row, root, path)
            .map_err(|error| error.of(plan, row, path))?;
        let pattern = Pattern::new(pattern);
        let (word, bit) = self.positions(plan, taken, &pattern)?;
        if pattern.direct() {
            self.patterns.direct[word] |= bit;
        }
        self.object(directory.as_fd(), Use { bits: FIXED, row })?;
        let key = self.key(directory.as_fd())?;
        self.objects.entry(key).or_insert(EMPTY).positions[word] |= bit;
        self.held.push(directory);
        Ok(())
    }

    /// Enters the parts of a pattern; the word and the bit of its first.
    fn positions(
        &mut self,
        plan: &Plan,
        taken: &Taken,
        pattern: &Pattern<'_>,
    ) -> Result<(usize, u64), LsmError> {
        let parts = pattern.parts();
        let word = self.used.iter().position(|used| used + parts.len() <= 64);
        let word = word.ok_or_else(|| too_many(plan, taken.row))?;
        let start = self.used[word];
        self.used[word] += parts.len();
        self.patterns.start[word] |= 1 << start;
        for (position, part) in (start..).zip(parts.iter().rev()) {
            let key = self.part(part).ok_or_else(|| too_many(plan, taken.row))?;
            self.names.entry(key).or_insert(EMPTY).positions[word] |= 1 << position;
        }
        let first = start + parts.len() - 1;
        self.patterns.rows[64 * word + first] = taken.row;
        self.patterns.change[word] |= 1 << first;
        if taken.read {
            self.patterns.read[word] |= 1 << first;
        }
        Ok((word, 1 << first))
    }

    /// The key of a name with at most one `*`; `None` when there are too many shapes.
    fn part(&mut self, part: &str) -> Option<NameKey> {
        let Some((before, after)) = part.split_once('*') else {
            return Some(name_key(self.generation, 0, part.as_bytes()));
        };
        let shape = SHAPE | (before.len() | after.len() << 8) as u32;
        let shapes = &mut self.patterns.shapes;
        let free = shapes.iter_mut().find(|known| [0, shape].contains(known))?;
        *free = shape;
        let mut key = name_key(self.generation, 0, before.as_bytes());
        key.name[4..].copy_from_slice(&name_key(0, 0, after.as_bytes()).name[..4]);
        key.length = shape;
        Some(key)
    }

    fn key(&self, object: BorrowedFd<'_>) -> Result<AnchorKey, LsmError> {
        Ok(AnchorKey {
            generation: self.generation,
            reserved: 0,
            inode: self.inspect.object(object)?,
        })
    }

    fn object(&mut self, object: BorrowedFd<'_>, it: Use) -> Result<(), LsmError> {
        let key = self.key(object)?;
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
        if new & CHANGE != 0 || self.bits & FIXED != 0 && row.change == NO_ROW {
            row.change = self.row;
        }
    }
}

const EMPTY: TakenRow = TakenRow {
    bits: 0,
    read: NO_ROW,
    change: NO_ROW,
    reserved: 0,
    positions: [0; WORDS],
};

/// Why a directory could not be reached.
enum Descent {
    System(SysError),
    Other(LsmError),
}

impl From<SysError> for Descent {
    fn from(error: SysError) -> Self {
        Self::System(error)
    }
}

impl From<LsmError> for Descent {
    fn from(error: LsmError) -> Self {
        Self::Other(error)
    }
}

impl Descent {
    fn of(self, plan: &Plan, row: Row, path: &Path) -> LsmError {
        match self {
            Self::System(source) => path_failed(plan, row, path, source),
            Self::Other(error) => error,
        }
    }
}

fn opened(root: &Object) -> Result<BorrowedFd<'_>, LsmError> {
    let fd = root.fd.as_ref().map(|fd| fd.as_fd());
    fd.ok_or_else(|| LsmError::NotOpened(root.path.clone()))
}

fn path_failed(plan: &Plan, row: Row, path: &Path, source: SysError) -> LsmError {
    LsmError::Path {
        rule: key(plan, row),
        path: path.to_owned(),
        source,
    }
}

fn inexact(plan: &Plan, row: Row, path: &Path) -> LsmError {
    LsmError::Inexact {
        rule: key(plan, row),
        path: path.to_owned(),
    }
}

fn too_many(plan: &Plan, row: Row) -> LsmError {
    LsmError::TooManyPatterns {
        rule: key(plan, row),
    }
}

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

/// Whether all names of it lead to one inode object: of an overlay's files with several names
/// they may not. The plan has asked, of what was there then.
fn is_one(object: BorrowedFd<'_>) -> bool {
    let kind = fstatfs(object).map(|status| status.filesystem_type());
    if kind != Ok(OVERLAYFS_SUPER_MAGIC) {
        return kind.is_ok();
    }
    fstat(object).is_ok_and(|it| it.st_nlink == 1 || it.st_mode & libc::S_IFMT == libc::S_IFDIR)
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
