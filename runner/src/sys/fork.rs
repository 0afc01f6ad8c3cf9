// SPDX-License-Identifier: MIT OR Apache-2.0
//! For tests: a forked child that restricts itself, and system calls by number.

/// Runs `act` in a forked child and fails when it panics there. The child of a test process
/// with many threads: `act` must not wait for a lock that another thread may hold; allocating
/// is safe with glibc, whose fork takes care of malloc.
pub fn in_child(act: impl FnOnce()) {
    // SAFETY: the child runs `act` and ends without returning into the test's harness.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        if let Err(panic) = &result {
            tell(
                panic
                    .downcast_ref::<String>()
                    .map_or("panicked", String::as_str),
            );
        }
        // SAFETY: ends the child at once, without running anything of the parent's.
        unsafe { libc::_exit(if result.is_ok() { 0 } else { 1 }) }
    }
    let mut status = 0;
    // SAFETY: `pid` is our own child; `status` is a live integer.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "child: {status:#x}"
    );
}

/// Runs `act` in a forked child, which the caller waits for; gives its process id.
pub fn fork_child(act: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs `act` and ends without returning into the test's harness.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        // SAFETY: ends the child at once, without running anything of the parent's.
        unsafe { libc::_exit(result.unwrap_or(101)) }
    }
    pid
}

/// A system call with integers that the kernel does not take for valid pointers: 0 or the
/// positive errno. Arguments that are not given are 0.
pub fn syscall_errno<const N: usize>(number: libc::c_long, arguments: [u64; N]) -> i32 {
    let mut all = [0u64; 6];
    all[..N].copy_from_slice(&arguments);
    let [a, b, c, d, e, f] = all;
    // SAFETY: the callers pass flags, null pointers and all ones only, which no call writes
    // through.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    } else {
        0
    }
}

/// Writes to standard error, past the harness, which keeps a test's output to itself.
fn tell(text: &str) {
    for part in [text, "\n"] {
        // SAFETY: a live buffer of the length that is passed.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
}
