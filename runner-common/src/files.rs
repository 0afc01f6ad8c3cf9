// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files as the counting programs see them: an anchor is the inode object of a granted path.

use crate::plain_data;
use crate::run::MAX_RUNS;

/// Most anchors of all runs of one set of maps.
pub const MAX_ANCHORS: u32 = 65536;
/// Most anchors of one run.
pub const MAX_ANCHORS_PER_RUN: usize = 4096;
/// Longest typed path in an event, NUL included (`PATH_MAX`).
pub const TYPED_BYTES: usize = 4096;
/// Room behind the typed path for the names of the base directory; what does not fit is cut
/// off at the top and the event says so.
pub const BASE_BYTES: usize = 2048;
/// Longest name of one directory, NUL included (`NAME_MAX` + 1).
pub const NAME_BYTES: usize = 256;
/// Most steps from a file up to its anchor, mount crossings included. An open deeper than
/// that is counted in `FileTotals::unfinished`, and the counts are then known to be short.
pub const MAX_CLIMB: u32 = 4096;

/// Most distinct missing paths (`ENOENT`) of one run at a time. User space removes those that mean
/// nothing before it is full; what comes faster is summed in its `Tally`.
pub const MAX_MISSING_PER_RUN: u64 = 4000;
/// Most distinct missing paths: room for every run's own, whatever the others do.
pub const MAX_MISSING: u32 = MAX_RUNS * 4096;

/// `FileEvent::flags`: the typed path could not be read, it is empty in the event.
pub const TYPED_UNREADABLE: u32 = 1 << 0;
/// `FileEvent::flags`: the typed path is longer than [`TYPED_BYTES`].
pub const TYPED_TRUNCATED: u32 = 1 << 1;
/// `FileEvent::flags`: upper names of the base directory are missing.
pub const BASE_TRUNCATED: u32 = 1 << 2;

/// First argument of the program `inspect`: low half of the inode object's address.
pub const INSPECT_OBJECT_LOW: u64 = 0;
/// First argument of the program `inspect`: high half of the inode object's address.
pub const INSPECT_OBJECT_HIGH: u64 = 1;
/// First argument of the program `inspect`: low half of the inode number.
pub const INSPECT_NUMBER_LOW: u64 = 2;
/// First argument of the program `inspect`: how many directories lie above this one in its
/// file system; of a cgroup's directory this is the cgroup's level.
pub const INSPECT_DEPTH: u64 = 3;

/// Where the running kernel keeps the members that the programs follow: byte offsets, read
/// from its BTF and set as the read-only global `FILE_LAYOUT` before loading.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// `task_struct.files`.
    pub task_files: u32,
    /// `task_struct.fs`.
    pub task_fs: u32,
    /// `task_struct.mm`.
    pub task_mm: u32,
    /// `mm_struct.exe_file`.
    pub mm_exe_file: u32,
    /// `fs_struct.pwd`.
    pub fs_pwd: u32,
    /// `files_struct.fdt`.
    pub files_fdt: u32,
    /// `fdtable.max_fds`.
    pub fdt_max_fds: u32,
    /// `fdtable.fd`.
    pub fdt_fd: u32,
    /// `file.f_path`.
    pub file_path: u32,
    /// `file.f_mode`.
    pub file_mode: u32,
    /// `file.f_inode`.
    pub file_inode: u32,
    /// `path.mnt`.
    pub path_mnt: u32,
    /// `path.dentry`.
    pub path_dentry: u32,
    /// `dentry.d_parent`.
    pub dentry_parent: u32,
    /// `dentry.d_inode`.
    pub dentry_inode: u32,
    /// `dentry.d_name.name`.
    pub dentry_name: u32,
    /// `inode.i_ino`.
    pub inode_number: u32,
    /// `vfsmount.mnt_root`.
    pub mnt_root: u32,
    /// `mount.mnt`, for the way from a `vfsmount` back to its `mount`.
    pub mount_mnt: u32,
    /// `mount.mnt_parent`.
    pub mount_parent: u32,
    /// `mount.mnt_mountpoint`.
    pub mount_mountpoint: u32,
    /// First to fourth argument of a system call in `pt_regs`, still there at its exit.
    pub arguments: [u32; 4],
    /// Zero.
    pub reserved: u32,
}

/// Value of `FILE_TOTALS` (per CPU, index: the run's slot): what the rule rows leave out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTotals {
    /// Successful opens, `O_PATH` aside, whether or not an anchor was found.
    pub opens: u64,
    /// Successful execs.
    pub execs: u64,
    /// Opens and execs with no anchor above them, or whose anchor owns no such right: the
    /// run's own places.
    pub elsewhere: u64,
    /// Opens and execs whose way to an anchor could not be followed to its end.
    pub unfinished: u64,
}

/// Key of `ANCHORS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AnchorKey {
    /// `RunRow::generation`.
    pub generation: u32,
    /// Zero.
    pub reserved: u32,
    /// Address of the kernel's `struct inode`, held alive by a descriptor of lp-run.
    pub inode: u64,
}

/// Value of `ANCHORS`: which rule owns each right on the tree below the anchor. Rows count
/// from `RunRow::first_row`; `run::NO_ROW` means that no rule gives the right here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnchorRow {
    /// Rule that owns reading.
    pub read: u32,
    /// Rule that owns writing.
    pub write: u32,
    /// Rule that owns execution.
    pub exec: u32,
    /// Zero.
    pub reserved: u32,
}

/// Key of `DENIED_PATHS` (`EACCES`, `EPERM`, `EROFS`) and `MISSING_PATHS` (`ENOENT`): an open
/// or exec that failed, by a keyed hash of the base directory's object and the typed path.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeniedPath {
    /// `RunRow::generation`.
    pub generation: u32,
    /// One of the `events::OP_` constants.
    pub op: u32,
    /// Positive errno.
    pub errno: u32,
    /// Zero.
    pub reserved: u32,
    /// 64-bit hash of base directory and typed path.
    pub hash: u64,
}

plain_data!(
    AnchorKey = 16,
    AnchorRow = 16,
    DeniedPath = 24,
    Layout = 104,
    FileTotals = 32,
);
