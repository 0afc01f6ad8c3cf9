// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that stops itself, as a job of its shell.

use std::mem::zeroed;
use std::ptr;

use super::SysError;

/// Stops the caller as `signal` does by default, with its whole process group or alone, and comes
/// back when somebody has continued it. `false`: it was never stopped. The kernel discards the
/// signals of a terminal where nobody is left who could continue the group (an orphaned one,
/// setpgid(2)).
///
/// For a process with one thread: the stop comes before `kill(2)` returns. A SIGCONT that ends
/// the stop is taken here, no handler runs for it.
pub fn stop(signal: i32, with_group: bool) -> Result<bool, SysError> {
    // SAFETY: all-zero is a valid sigaction (SIG_DFL, no flags) and a valid sigset_t; every
    // pointer leads to a live local or is null where the call allows it.
    unsafe {
        let default: libc::sigaction = zeroed();
        let mut before: libc::sigaction = zeroed();
        let (mut continued, mut mask): (libc::sigset_t, libc::sigset_t) = (zeroed(), zeroed());
        libc::sigemptyset(&raw mut continued);
        libc::sigaddset(&raw mut continued, libc::SIGCONT);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const continued, &raw mut mask);
        libc::sigaction(signal, &raw const default, &raw mut before);
        let sent = match with_group {
            true => libc::kill(0, signal),
            false => libc::raise(signal),
        };
        let failure = SysError::last("kill");
        let now: libc::timespec = zeroed();
        let taken = libc::sigtimedwait(&raw const continued, ptr::null_mut(), &raw const now);
        libc::sigaction(signal, &raw const before, ptr::null_mut());
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut());
        match sent {
            0 => Ok(taken == libc::SIGCONT),
            _ => Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fork::fork_child;
    use crate::sys::process::{Ended, wait_child};

    #[test]
    fn a_stop_lasts_until_somebody_continues_it() {
        let child = fork_child(|| match stop(libc::SIGTSTP, false) {
            Ok(true) => 7,
            _ => 1,
        });
        let pid = nix::unistd::Pid::from_raw(child);
        let flags = nix::sys::wait::WaitPidFlag::WUNTRACED;
        // Where the test's own group has nobody who could continue it, there is no stop.
        match nix::sys::wait::waitpid(pid, Some(flags)).expect("wait") {
            nix::sys::wait::WaitStatus::Stopped(..) => {
                nix::sys::signal::kill(pid, nix::sys::signal::SIGCONT).expect("continue");
                assert_eq!(wait_child(child).expect("wait"), Ended::Exited(7));
            }
            status => {
                let orphaned = nix::sys::wait::WaitStatus::Exited(pid, 1);
                assert_eq!(status, orphaned);
            }
        }
    }

    #[test]
    fn a_group_without_anybody_to_continue_it_is_not_stopped() {
        let child = fork_child(|| {
            let own_session = nix::unistd::setsid().is_ok();
            match (own_session, stop(libc::SIGTSTP, true)) {
                (true, Ok(false)) => 0,
                _ => 1,
            }
        });
        assert_eq!(wait_child(child).expect("wait"), Ended::Exited(0));
    }
}
