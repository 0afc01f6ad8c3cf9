// SPDX-License-Identifier: MIT OR Apache-2.0
//! faccessat2(2): what the calling thread could do with an object.

use std::os::fd::{AsFd, AsRawFd};

/// Whether the kernel would let this thread use the object that `fd` (`O_PATH` will do) stands
/// for, with the file system ids that it has now. `bits` are those of access(2): 4 to read, 2 to
/// write, 1 to run or search.
pub fn granted(fd: impl AsFd, bits: u32) -> bool {
    let flags = libc::AT_EACCESS | libc::AT_EMPTY_PATH;
    // The wrappers of C libraries compute an answer of their own on some systems.
    // SAFETY: an open descriptor and an empty NUL-terminated path.
    let done = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            bits,
            flags,
        )
    };
    done == 0
}
