// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trying, in a child that ends at once, what would change this process for good: new
//! namespaces, filters, rulesets.

use super::SysError;

/// Runs `act` in a forked child and says how it went. `call` names the act in the error. Only
/// while this process has one thread, or with an `act` that takes no lock.
pub fn in_child(
    call: &'static str,
    act: impl FnOnce() -> Result<(), SysError>,
) -> Result<(), SysError> {
    // SAFETY: the child runs `act` and ends without returning into the caller's code.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(SysError::last("fork"));
    }
    if pid == 0 {
        // A panic is caught here, since unwinding would run the caller's code twice.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        let status = match result {
            Ok(Ok(())) => 0,
            Ok(Err(error)) => error.errno().clamp(1, 255),
            Err(_) => 255,
        };
        // SAFETY: ends the child at once, without running anything of the parent's.
        unsafe { libc::_exit(status) }
    }
    let mut status = 0;
    // SAFETY: `pid` is our own child; `status` is a live integer.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        let error = SysError::last("waitpid");
        if error.errno() != libc::EINTR {
            return Err(error);
        }
    }
    let errno = match libc::WIFEXITED(status) {
        true => libc::WEXITSTATUS(status),
        // Killed, by a filter of somebody above us for instance.
        false => libc::ECANCELED,
    };
    match errno {
        0 => Ok(()),
        _ => Err(SysError {
            call,
            source: std::io::Error::from_raw_os_error(errno),
        }),
    }
}

/// Runs `act` in a forked child and gives what it says; `None` is an error. Only while this process
/// has one thread.
pub fn ask_child(act: impl FnOnce() -> Option<Vec<u8>>) -> Result<Vec<u8>, SysError> {
    let (mut read, mut write) = std::io::pipe().map_err(|source| SysError {
        call: "pipe",
        source,
    })?;
    // SAFETY: the child runs `act` and ends without returning into the caller's code.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(SysError::last("fork"));
    }
    if pid == 0 {
        drop(read);
        // A panic is caught here, since unwinding would run the caller's code twice.
        let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        let told = match said {
            Ok(Some(bytes)) => std::io::Write::write_all(&mut write, &bytes).is_ok(),
            _ => false,
        };
        // SAFETY: ends the child at once, without running anything of the parent's.
        unsafe { libc::_exit(i32::from(!told)) }
    }
    drop(write);
    let mut bytes = Vec::new();
    let heard = std::io::Read::read_to_end(&mut read, &mut bytes);
    let ended = super::process::wait_child(pid)?;
    match (heard, ended) {
        (Ok(_), super::process::Ended::Exited(0)) => Ok(bytes),
        _ => Err(SysError {
            call: "a child",
            source: std::io::Error::from_raw_os_error(libc::ECANCELED),
        }),
    }
}

/// Leaves the namespaces named by `CLONE_NEW…` flags for new ones. See unshare(2).
pub fn unshare(flags: i32) -> Result<(), SysError> {
    // SAFETY: an integer only.
    if unsafe { libc::unshare(flags) } < 0 {
        Err(SysError::last("unshare"))
    } else {
        Ok(())
    }
}
