// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a process sets for itself before it becomes another program, and what a parent asks
//! of its children. Only system calls.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::SysError;

/// `argv`, `envp` and path of an `execve(2)`, laid out before the fork.
#[derive(Debug)]
pub struct ExecArguments {
    path: CString,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// What the pointers point to.
    _text: Vec<CString>,
}

// SAFETY: the pointers lead only into `_text`, which lives as long and is never changed.
unsafe impl Send for ExecArguments {}
// SAFETY: as above; all methods only read.
unsafe impl Sync for ExecArguments {}

impl ExecArguments {
    /// Lays out the arrays. A `CString`'s text does not move when the string does.
    pub fn new(path: CString, argv: Vec<CString>, envp: Vec<CString>) -> Self {
        let pointers = |text: &[CString]| -> Vec<*const c_char> {
            text.iter()
                .map(|item| item.as_ptr())
                .chain([ptr::null()])
                .collect()
        };
        let (argv_pointers, envp_pointers) = (pointers(&argv), pointers(&envp));
        let text = argv.into_iter().chain(envp).collect();
        Self {
            path,
            argv: argv_pointers,
            envp: envp_pointers,
            _text: text,
        }
    }

    /// The path that `execve(2)` is given.
    pub fn path(&self) -> &CStr {
        &self.path
    }

    /// Becomes the program. Comes back only with an error.
    pub fn execute(&self) -> SysError {
        // SAFETY: both arrays end with a null pointer and every other pointer leads to a C
        // string of `_text`.
        unsafe { libc::execve(self.path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        SysError::last("execve")
    }
}

/// Sets every signal to its default and unblocks all. By the system call itself: the C library
/// refuses the two signals that it keeps for its threads, which a caller may have ignored.
pub fn reset_signals() -> Result<(), SysError> {
    /// The kernel's own layout: handler, flags, restorer, mask.
    static DEFAULT: [usize; 4] = [libc::SIG_DFL, 0, 0, 0];
    for signal in 1..=64 {
        // SIGKILL and SIGSTOP have no other disposition, and refuse to be asked.
        // SAFETY: the kernel reads 32 bytes; SIG_DFL runs no code of ours.
        unsafe {
            let old = ptr::null_mut::<u8>();
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const DEFAULT,
                old,
                8_usize,
            );
        }
    }
    // SAFETY: an all-zero sigset_t is the empty set on Linux; the kernel reads 8 bytes of it.
    let status = unsafe {
        let empty: libc::sigset_t = std::mem::zeroed();
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const empty,
            ptr::null::<u8>(),
            8_usize,
        )
    };
    if status == 0 {
        Ok(())
    } else {
        Err(SysError::last("rt_sigprocmask"))
    }
}

/// Lets processes of the same user look at this one, and gives it its own files below `/proc`.
pub fn set_dumpable() -> nix::Result<()> {
    nix::sys::prctl::set_dumpable(true)
}

/// Gives up a real-time scheduling class and a negative nice value of the caller.
pub fn reset_priority() -> Result<(), SysError> {
    // SAFETY: plain calls on the calling process; `parameters` outlives the call.
    unsafe {
        if !matches!(
            libc::sched_getscheduler(0),
            libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE
        ) {
            let parameters: libc::sched_param = std::mem::zeroed();
            if libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const parameters) != 0 {
                return Err(SysError::last("sched_setscheduler"));
            }
        }
        // The system call gives 20 minus the nice value.
        let nice = 20 - libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0);
        if nice < 0 && libc::setpriority(libc::PRIO_PROCESS, 0, 0) != 0 {
            return Err(SysError::last("setpriority"));
        }
    }
    Ok(())
}

/// Sends `signal` to the process that `pidfd` names (`pidfd_send_signal(2)`).
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), SysError> {
    // SAFETY: a null siginfo is allowed; nothing else is read.
    let status = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    };
    if status == 0 {
        Ok(())
    } else {
        Err(SysError::last("pidfd_send_signal"))
    }
}

/// Sends `signal` to every process of the group `leader`.
pub fn signal_group(leader: i32, signal: i32) -> Result<(), SysError> {
    // SAFETY: kill(2) touches no memory; 0 and 1 would mean something else than a group.
    match unsafe { libc::kill(-leader.max(2), signal) } {
        0 => Ok(()),
        _ => Err(SysError::last("kill")),
    }
}

/// Whether the caller is the first process of its pid namespace.
pub fn is_first() -> bool {
    nix::unistd::getpid().as_raw() == 1
}

/// Kills the children of the calling thread, as the kernel lists them (proc_tid_children(5)). Does
/// not allocate. What does not fit into the list is there the next time.
pub fn kill_children() -> Result<(), SysError> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: a NUL-terminated path.
    let fd = unsafe { libc::open(c"/proc/thread-self/children".as_ptr(), flags) };
    if fd < 0 {
        return Err(SysError::last("open of the list of children"));
    }
    // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut list = [0_u8; 4096];
    let length = super::descriptor::read(fd.as_raw_fd(), &mut list)?;
    // A number that is cut off at the end would be another process's.
    let whole = list[..length].iter().rposition(|byte| *byte == b' ');
    for word in list[..whole.unwrap_or(0)].split(|byte| *byte == b' ') {
        let pid = word.iter().fold(0_i32, |pid, digit| {
            pid.saturating_mul(10)
                .saturating_add(i32::from(digit.wrapping_sub(b'0')))
        });
        if pid > 1 {
            // SAFETY: kill(2) touches no memory; the number is a child's until it is waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
    Ok(())
}

/// Kills every other process of the pid namespace, of which the caller must be the first.
pub fn kill_namespace() -> Result<(), SysError> {
    if !is_first() {
        return Err(SysError {
            call: "kill",
            source: std::io::Error::from_raw_os_error(libc::EPERM),
        });
    }
    // SAFETY: kill(2) touches no memory; -1 is everybody that the caller sees but itself.
    match unsafe { libc::kill(-1, libc::SIGKILL) } {
        0 => Ok(()),
        _ => match SysError::last("kill") {
            // There was nobody left.
            error if error.errno() == libc::ESRCH => Ok(()),
            error => Err(error),
        },
    }
}

/// A descriptor of the process with id `pid` (`pidfd_open(2)`, close-on-exec).
pub fn pidfd_open(pid: i32) -> Result<OwnedFd, SysError> {
    // SAFETY: the call touches no memory.
    match unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0_u32) } {
        -1 => Err(SysError::last("pidfd_open")),
        // SAFETY: the kernel has just made this descriptor for us.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
    }
}

/// The id, in the caller's pid namespace, of the process that `pidfd` names; `None` when it is
/// gone.
pub fn pid_of(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    line.trim().parse().ok().filter(|pid| *pid > 0)
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

/// What `waitid(2)` had to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A child ended and is gone now.
    Child(i32, Ended),
    /// A child was stopped by this signal.
    Stopped(i32, i32),
    /// There are children, and nothing happened to them.
    Nothing,
    /// There is no child.
    NoChild,
}

/// Takes one change of any child, without waiting.
pub fn wait_any() -> Result<Waited, SysError> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the kernel to write to.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED) } {
        0 => Ok(Waited::Nothing),
        -1 => {
            let error = SysError::last("waitpid");
            if error.errno() == libc::ECHILD {
                Ok(Waited::NoChild)
            } else {
                Err(error)
            }
        }
        pid if libc::WIFSTOPPED(status) => Ok(Waited::Stopped(pid, libc::WSTOPSIG(status))),
        pid if libc::WIFSIGNALED(status) => {
            Ok(Waited::Child(pid, Ended::Signaled(libc::WTERMSIG(status))))
        }
        pid => Ok(Waited::Child(pid, Ended::Exited(libc::WEXITSTATUS(status)))),
    }
}

/// Waits for the child `pid` to end, without taking changes of other children.
pub fn wait_child(pid: i32) -> Result<Ended, SysError> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the kernel to write to.
        match unsafe { libc::waitpid(pid, &raw mut status, 0) } {
            -1 => {
                let error = SysError::last("waitpid");
                if error.errno() != libc::EINTR {
                    return Err(error);
                }
            }
            _ if libc::WIFSIGNALED(status) => return Ok(Ended::Signaled(libc::WTERMSIG(status))),
            _ => return Ok(Ended::Exited(libc::WEXITSTATUS(status))),
        }
    }
}

/// A write beyond `RLIMIT_FSIZE`, which the caller may have set, is an error (EFBIG) from now on
/// and no longer the end of this process: see setrlimit(2). The program gets its own dispositions.
pub fn survive_file_size_limit() {
    // SAFETY: SIG_IGN runs no code of ours; SIGXFSZ can be ignored.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Whether the process ignores `signal`.
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: with a null new action the call only reads; an all-zero sigaction is a valid
    // place for the kernel to write to.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Whether a process has this real uid, as far as this process can see processes: getpriority(2)
/// looks through all of them at once.
pub fn exists_of(uid: u32) -> bool {
    // SAFETY: errno is this thread's own, and the call takes two numbers; -1 is also a priority,
    // so that errno alone tells a failure.
    unsafe {
        *libc::__errno_location() = 0;
        libc::getpriority(libc::PRIO_USER, uid);
        *libc::__errno_location() != libc::ESRCH
    }
}
