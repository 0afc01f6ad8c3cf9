// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is taken away inside what is granted, as the LSM programs look it up on their way from
//! an object up to the root of its file system: by the inode object, and by names.

use crate::plain_data;
use crate::run::MAX_RUNS;

/// Most objects, and most names, of all runs of one set of maps.
pub const MAX_TAKEN: u32 = 65536;
/// Most objects, and most names, of one run.
pub const MAX_TAKEN_PER_RUN: usize = 4096;
/// Most steps from an object up to the root of its file system. What lies deeper is refused.
pub const MAX_CLIMB: u32 = 4096;
/// Longest name of a rule in bytes: one bit of `RunRow::lengths` for each length.
pub const LONGEST_NAME: usize = 63;
/// Bit of `RunRow::lengths`: there are names with a `*`. No name has no bytes.
pub const STARS: u64 = 1 << 0;
/// Most bytes on each side of a `*`.
pub const LONGEST_SIDE: usize = 31;
/// Most pairs of lengths on the two sides of a `*` in one run.
pub const SHAPES: usize = 8;
/// Words of the positions of one run ([`PatternRow`]).
pub const WORDS: usize = 2;
/// Most parts, in all, of one run's patterns of several parts or below a directory.
pub const POSITIONS: usize = 64 * WORDS;

/// `TakenRow::bits`: a granted root. Patterns hold for it and what lies below it.
pub const ROOT: u32 = 1 << 0;
/// `TakenRow::bits`: neither moved nor removed, or a rule would lose what it names.
pub const FIXED: u32 = 1 << 1;
/// `TakenRow::bits`: a directory in which names are taken away.
pub const NAMES: u32 = 1 << 2;
/// `TakenRow::bits`: reading is taken away, here and below.
pub const READ: u32 = 1 << 3;
/// `TakenRow::bits`: changing is taken away, here and below.
pub const CHANGE: u32 = 1 << 4;
/// Of an act: what is below changes its path with it. It is refused where the names from here up
/// are the upper parts of a pattern.
pub const MOVE: u32 = 1 << 5;

/// Value of `TAKEN` (key: `files::AnchorKey`) and of `TAKEN_NAMES`. Rows count from
/// `RunRow::first_row`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenRow {
    /// `ROOT`, `FIXED`, `NAMES`, `READ`, `CHANGE`; of a name, what it takes away by itself.
    pub bits: u32,
    /// Rule that takes reading away.
    pub read: u32,
    /// Rule that takes changing away, or for which this is fixed.
    pub change: u32,
    /// Zero.
    pub reserved: u32,
    /// Of a name: which parts of patterns it is. Of a directory: which patterns hold below it.
    pub positions: Positions,
}

/// One bit for each part of a run's patterns: bit N of word M is part `64 * M + N`.
pub type Positions = [u64; WORDS];

/// Value of `PATTERNS`, by slot: patterns of several parts, or that hold in one directory. The
/// parts of a pattern stand one after the other from the last, which is met first on the way up,
/// to the first, and in one word.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatternRow {
    /// Last parts.
    pub start: Positions,
    /// First parts of patterns that take reading away.
    pub read: Positions,
    /// First parts of patterns that take changing away.
    pub change: Positions,
    /// First parts of patterns of all that is granted.
    pub anywhere: Positions,
    /// First parts that hold only for what stands in the directory itself.
    pub direct: Positions,
    /// Lengths before and after a `*`: `before | after << 8`, in use if [`SHAPE`] is set.
    pub shapes: [u32; SHAPES],
    /// The rule of each first part.
    pub rows: [u32; POSITIONS],
}

impl PatternRow {
    /// No pattern.
    pub const EMPTY: Self = Self {
        start: [0; WORDS],
        read: [0; WORDS],
        change: [0; WORDS],
        anywhere: [0; WORDS],
        direct: [0; WORDS],
        shapes: [0; SHAPES],
        rows: [0; POSITIONS],
    };
}

/// `PatternRow::shapes` and `NameKey::length`: a name with a `*`.
pub const SHAPE: u32 = 1 << 16;

/// Key of `TAKEN_NAMES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NameKey {
    /// `RunRow::generation`.
    pub generation: u32,
    /// Bytes of the name, or a shape of [`PatternRow::shapes`].
    pub length: u32,
    /// 0: at any depth. Else the address of the directory's inode object.
    pub parent: u64,
    /// NUL padded. Of a name with a `*`: what stands before it in the first half, what stands
    /// behind it in the second.
    pub name: Name,
}

/// Room for a name.
pub type Name = [u64; 8];

// The hooks, by index in `LSM_CANARIES`.
/// An open.
pub const HOOK_OPEN: u32 = 0;
/// An ioctl that may change a file.
pub const HOOK_IOCTL: u32 = 1;
/// A descriptor that arrives over a socket.
pub const HOOK_RECEIVE: u32 = 2;
/// A new file.
pub const HOOK_CREATE: u32 = 3;
/// A hard link.
pub const HOOK_LINK: u32 = 4;
/// The removal of a file.
pub const HOOK_UNLINK: u32 = 5;
/// A symbolic link.
pub const HOOK_SYMLINK: u32 = 6;
/// A new directory.
pub const HOOK_MKDIR: u32 = 7;
/// The removal of a directory.
pub const HOOK_RMDIR: u32 = 8;
/// A new node, FIFO or socket.
pub const HOOK_MKNOD: u32 = 9;
/// A rename.
pub const HOOK_RENAME: u32 = 10;
/// Reading a symbolic link.
pub const HOOK_READLINK: u32 = 11;
/// Following a symbolic link.
pub const HOOK_FOLLOW: u32 = 12;
/// A change of mode, owner, times or size.
pub const HOOK_SETATTR: u32 = 13;
/// A change of an extended attribute.
pub const HOOK_SETXATTR: u32 = 14;
/// Reading an extended attribute.
pub const HOOK_GETXATTR: u32 = 15;
/// The removal of an extended attribute.
pub const HOOK_REMOVEXATTR: u32 = 16;
/// A change of an access control list (Linux 6.2).
pub const HOOK_SET_ACL: u32 = 17;
/// The removal of an access control list (Linux 6.2).
pub const HOOK_REMOVE_ACL: u32 = 18;
/// A connection to a Unix socket.
pub const HOOK_UNIX_CONNECT: u32 = 19;
/// A datagram, or a connection for datagrams, to a Unix socket.
pub const HOOK_UNIX_SEND: u32 = 20;
/// Watching a file or directory for changes.
pub const HOOK_WATCH: u32 = 21;
/// How many hooks there are.
pub const HOOK_COUNT: u32 = 22;
/// Entries of `LSM_CANARIES` for each run.
pub const HOOKS: u32 = 32;
/// Size of `LSM_CANARIES`.
pub const CANARIES: u32 = MAX_RUNS * HOOKS;

/// What differs between kernels, read from their types and set as the read-only global
/// `LSM_LAYOUT` before loading.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LsmLayout {
    /// Which argument of `inode_setattr` is the dentry; the next four likewise.
    pub setattr: u32,
    /// `inode_setxattr`.
    pub setxattr: u32,
    /// `inode_removexattr`.
    pub removexattr: u32,
    /// `inode_set_acl`.
    pub set_acl: u32,
    /// `inode_remove_acl`.
    pub remove_acl: u32,
    /// `unix_sock.path`.
    pub unix_path: u32,
    /// `inode.i_mode`.
    pub inode_mode: u32,
    /// `dentry.d_flags`.
    pub dentry_flags: u32,
    /// `dentry.d_name.len`.
    pub dentry_length: u32,
    /// `socket.sk`.
    pub socket_sk: u32,
    /// `file.f_flags`.
    pub file_flags: u32,
    /// `iattr.ia_valid`.
    pub attr_valid: u32,
    /// `pt_regs.orig_ax`.
    pub call_number: u32,
    /// System calls that the counting programs see the end of.
    pub counted: [u32; 6],
    /// Zero.
    pub reserved: u32,
}

/// Key of `DENIED_OBJECTS`: an act that was refused, by a keyed hash of the granted root and the
/// names below it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeniedObject {
    /// `RunRow::generation`.
    pub generation: u32,
    /// One of the `events::OP_` constants.
    pub op: u32,
    /// Row of the rule.
    pub row: u32,
    /// Zero.
    pub reserved: u32,
    /// Of root and names.
    pub hash: u64,
}

/// Most tasks whose refused system call has not returned yet.
pub const MAX_RETURNING: u32 = 65536;

plain_data!(
    TakenRow = 32,
    NameKey = 80,
    PatternRow = 112 + 4 * POSITIONS,
    DeniedObject = 24,
    LsmLayout = 80,
);
