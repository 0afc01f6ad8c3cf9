// SPDX-License-Identifier: MIT OR Apache-2.0
//! What travels through a run's ring buffer, which `EVENTS` leads to. An event is sent for the
//! first refusal of each distinct target; repeats are only counted. A reservation that fails
//! adds one to `Tally::lost`; enforcement and counters never depend on it.

use crate::files::{BASE_BYTES, TYPED_BYTES};
use crate::plain_data;

/// Size of each ring buffer in bytes (a power of two, a multiple of the page size).
pub const RING_BYTES: u32 = 1 << 20;

/// `EventHeader::kind`: a [`NetworkEvent`].
pub const KIND_NETWORK: u32 = 1;
/// `EventHeader::kind`: a [`FileEvent`].
pub const KIND_FILE: u32 = 2;
/// `EventHeader::kind`: a [`TakenEvent`].
pub const KIND_TAKEN: u32 = 3;

/// A connect of a TCP or UDP socket.
pub const OP_CONNECT: u32 = 1;
/// A send with an address, or on a socket whose peer no rule allows.
pub const OP_SENDTO: u32 = 2;
/// A bind.
pub const OP_BIND: u32 = 3;
/// A socket of a refused type or protocol.
pub const OP_SOCKET: u32 = 4;
/// A packet that left and was dropped at egress.
pub const OP_EGRESS: u32 = 5;
/// A packet that arrived and was dropped at ingress.
pub const OP_INGRESS: u32 = 6;
/// An open of a file.
pub const OP_OPEN: u32 = 16;
/// An open of a file for writing.
pub const OP_WRITE: u32 = 17;
/// The execution of a program.
pub const OP_EXEC: u32 = 18;

/// A new directory.
pub const OP_MKDIR: u32 = 19;
/// A new node, FIFO or socket.
pub const OP_MKNOD: u32 = 20;
/// A new symbolic link.
pub const OP_SYMLINK: u32 = 21;
/// A hard link.
pub const OP_LINK: u32 = 22;
/// A rename.
pub const OP_RENAME: u32 = 23;
/// The removal of a file.
pub const OP_UNLINK: u32 = 24;
/// The removal of a directory.
pub const OP_RMDIR: u32 = 25;
/// Reading or following a symbolic link.
pub const OP_READLINK: u32 = 26;
/// A change of a mode.
pub const OP_CHMOD: u32 = 27;
/// A change of an owner.
pub const OP_CHOWN: u32 = 28;
/// A change of times.
pub const OP_UTIME: u32 = 29;
/// A change of a size.
pub const OP_TRUNCATE: u32 = 30;
/// A change of an extended attribute or an access control list.
pub const OP_SETXATTR: u32 = 31;
/// Reading an extended attribute.
pub const OP_GETXATTR: u32 = 32;
/// A change of flags or the like.
pub const OP_IOCTL: u32 = 33;
/// A descriptor that arrived over a socket.
pub const OP_RECEIVE: u32 = 34;
/// A connection or datagram to a Unix socket.
pub const OP_UNIX: u32 = 35;
/// Watching for changes.
pub const OP_WATCH: u32 = 36;

/// The first bytes of each event.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct EventHeader {
    /// One of the `KIND_` constants; decides the layout.
    pub kind: u32,
    /// `RunRow::generation` of the run.
    pub generation: u32,
    /// `bpf_ktime_get_boot_ns`.
    pub time: u64,
    /// One of the `OP_` constants.
    pub op: u32,
    /// Positive errno that the agent sees; 0 where the packet was dropped silently.
    pub errno: u32,
    /// Process (tgid), in the initial pid namespace.
    pub pid: u32,
    /// Counter row of the rule that refused, or `run::NO_ROW`.
    pub row: u32,
    /// Program name, NUL padded. Hostile text.
    pub comm: [u8; 16],
}

/// A refused network act.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkEvent {
    /// `kind` is [`KIND_NETWORK`].
    pub header: EventHeader,
    /// Big endian, IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Port, host order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u16,
    /// Address family of the socket (`AF_INET` 2, `AF_INET6` 10).
    pub family: u16,
    /// Zero.
    pub reserved: u16,
}

/// A failed open or exec. Its first `size_of::<FileEvent>() - FILE_TEXT` bytes are always
/// sent; of `text` only `typed + base` bytes travel.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FileEvent {
    /// `kind` is [`KIND_FILE`].
    pub header: EventHeader,
    /// The key in `DENIED_PATHS` or `MISSING_PATHS`.
    pub hash: u64,
    /// First bytes of `text`: what was typed, without its NUL.
    pub typed: u32,
    /// Bytes of `text` behind them: the names of the directory that a relative path starts
    /// from, as the agent sees it, innermost first, each ended by a NUL. None for an absolute
    /// path and for the root directory.
    pub base: u32,
    /// `TYPED_` and `BASE_` bits of [`crate::files`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// Hostile text.
    pub text: [u8; FILE_TEXT],
}

/// An act that an LSM program refused. Its first `size_of::<TakenEvent>() - TAKEN_TEXT` bytes are
/// always sent; of `text` only `length` bytes travel.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TakenEvent {
    /// `kind` is [`KIND_TAKEN`].
    pub header: EventHeader,
    /// The key in `DENIED_OBJECTS`.
    pub hash: u64,
    /// Address of the inode object of the granted root above, or 0.
    pub root: u64,
    /// Bytes of `text`: the names from the object up to that root, innermost first, each ended by a
    /// NUL.
    pub length: u32,
    /// Not 0: upper names are missing.
    pub cut: u32,
    /// Hostile text.
    pub text: [u8; TAKEN_TEXT],
}

/// Size of `TakenEvent::text`.
pub const TAKEN_TEXT: usize = 4096;

/// Size of `FileEvent::text`.
pub const FILE_TEXT: usize = TYPED_BYTES + BASE_BYTES;

plain_data!(
    EventHeader = 48,
    NetworkEvent = 72,
    FileEvent = 72 + FILE_TEXT,
    TakenEvent = 72 + TAKEN_TEXT,
);
