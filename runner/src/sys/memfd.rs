// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files in memory (`memfd_create(2)`) and whether what stands in them can be executed. System
//! calls only.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::SysError;

/// `MFD_EXEC` (`include/uapi/linux/memfd.h`): asks for a file that can be executed.
pub const EXECUTABLE: u32 = 0x10;

/// Whether [`forbid_code`] can work in a pid namespace below the caller's, as far as a look at
/// the setting tells.
pub fn can_forbid_code(proc: &impl AsFd) -> Result<(), SysError> {
    match code_is_forbidden(proc)? {
        true => Ok(()),
        false => open_setting(proc, OFlag::O_WRONLY).map(drop),
    }
}

/// Makes every file in memory that is asked for without a flag not executable, for good, in the
/// pid namespace that the caller lives in: `/proc` may be that of another. A stricter setting of
/// a namespace above stays.
pub fn forbid_code(proc: &impl AsFd) -> Result<(), SysError> {
    if code_is_forbidden(proc)? {
        return Ok(());
    }
    let setting = open_setting(proc, OFlag::O_WRONLY)?;
    super::descriptor::write(setting.as_raw_fd(), b"1").map(drop)
}

/// The setting counts for the reader's pid namespace, and those above it count in.
fn code_is_forbidden(proc: &impl AsFd) -> Result<bool, SysError> {
    let setting = open_setting(proc, OFlag::O_RDONLY)?;
    let mut value = [0];
    let length = nix::unistd::read(&setting, &mut value).map_err(|errno| SysError {
        call: "read of /proc/sys/vm/memfd_noexec",
        source: errno.into(),
    })?;
    Ok(length == 1 && matches!(value, [b'1' | b'2']))
}

fn open_setting(proc: &impl AsFd, flags: OFlag) -> Result<OwnedFd, SysError> {
    let flags = flags | OFlag::O_CLOEXEC;
    openat(proc, c"sys/vm/memfd_noexec", flags, Mode::empty()).map_err(|errno| SysError {
        call: "open of /proc/sys/vm/memfd_noexec",
        source: errno.into(),
    })
}

/// Makes an empty file in memory with these flags, gives it every permission and executes it: the
/// errno of what was refused. ENOEXEC says that nothing was, since there is no program in it.
pub fn execute_errno(flags: u32) -> i32 {
    // SAFETY: the name is a C string; the call writes no memory.
    let fd = unsafe { libc::memfd_create(c"lp-run".as_ptr(), libc::MFD_CLOEXEC | flags) };
    if fd < 0 {
        return SysError::last("memfd_create").errno();
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let argv = [c"lp-run".as_ptr(), ptr::null()];
    let envp = [ptr::null::<libc::c_char>()];
    // SAFETY: path and arrays are C strings and end with a null pointer; an empty file is no
    // program, so that the call always comes back.
    unsafe {
        libc::fchmod(file.as_raw_fd(), 0o777);
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    SysError::last("execveat").errno()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_file_in_memory_is_executed_where_nothing_forbids_it() {
        // The setting of the machine under test may forbid it.
        if std::fs::read_to_string("/proc/sys/vm/memfd_noexec").is_ok_and(|value| value == "0\n") {
            assert_eq!(execute_errno(0), libc::ENOEXEC);
            assert_eq!(execute_errno(EXECUTABLE), libc::ENOEXEC);
        }
    }

    #[test]
    fn the_setting_takes_execution_away_and_holds_for_one_pid_namespace() {
        if !nix::unistd::geteuid().is_root() || !std::path::Path::new(SETTING).exists() {
            return;
        }
        let before = std::fs::read_to_string(SETTING).unwrap();
        let proc = std::fs::File::open("/proc").unwrap();
        can_forbid_code(&proc).unwrap();
        crate::testing::in_child(|| {
            crate::sys::trial::unshare(libc::CLONE_NEWPID).unwrap();
            crate::testing::in_child(|| {
                forbid_code(&proc).unwrap();
                assert_eq!(execute_errno(0), libc::EACCES);
                assert_eq!(
                    execute_errno(EXECUTABLE),
                    libc::ENOEXEC,
                    "only the filter stops it"
                );
            });
        });
        assert_eq!(std::fs::read_to_string(SETTING).unwrap(), before);
    }

    #[test]
    fn a_stricter_setting_above_stays() {
        if !nix::unistd::geteuid().is_root() || !std::path::Path::new(SETTING).exists() {
            return;
        }
        let proc = std::fs::File::open("/proc").unwrap();
        let below = |act: &dyn Fn()| {
            crate::testing::in_child(|| {
                crate::sys::trial::unshare(libc::CLONE_NEWPID).unwrap();
                crate::testing::in_child(act);
            });
        };
        below(&|| {
            std::fs::write(SETTING, "2").unwrap();
            below(&|| {
                assert!(std::fs::write(SETTING, "1").is_err(), "the kernel keeps it");
                can_forbid_code(&proc).unwrap();
                forbid_code(&proc).unwrap();
                assert_eq!(execute_errno(0), libc::EACCES);
            });
        });
    }

    const SETTING: &str = "/proc/sys/vm/memfd_noexec";
}
