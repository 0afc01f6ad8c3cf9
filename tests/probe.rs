// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tries one act and prints what the kernel said: `ok`, or the name of the errno. Exit status 0
//! when the act was done, 1 when it was refused, 2 when the act is not known. It decides nothing
//! and knows nothing of lp-run, so the same act is tried bare, confined and granted.
//!
//! Each act is a few system calls, written raw: a library's fallback would hide which call was
//! refused. `probe` alone lists the acts. `probe each ACT... -- ACT...` tries each act in a child
//! of its own and prints one line for each: starting a sandbox costs more than an act.

use std::ffi::CString;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, mem};

use nix::errno::Errno;

/// What a system call gave.
type Answer = Result<usize, Errno>;

/// What separates the acts of `each`.
const SEPARATOR: &str = "--";
/// Where the kernel shows an access list.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// One act: its name, its arguments in words, what it does.
struct Act(&'static str, &'static str, fn(&Arguments) -> Answer);

const ACTS: &[Act] = &[
    Act("open-read", "PATH", |a| open(a.path(0), libc::O_RDONLY)),
    Act("open-distinct", "FOLDER TIMES LENGTH", |a| {
        let folder = &a.0[0];
        let long = "/long name".repeat(a.number(2) / 10);
        let mut last = Ok(0);
        for number in 0..a.number(1) {
            last = open(text(&format!("{folder}/{number}{long}")), libc::O_RDONLY);
        }
        last
    }),
    Act("open-write", "PATH", |a| open(a.path(0), libc::O_WRONLY)),
    Act("open-append", "PATH", |a| {
        open(a.path(0), libc::O_WRONLY | libc::O_APPEND)
    }),
    Act("open-truncate", "PATH", |a| {
        open(a.path(0), libc::O_RDONLY | libc::O_TRUNC)
    }),
    Act("open-path", "PATH", |a| open(a.path(0), libc::O_PATH)),
    // In a Landlock domain of its own below whatever there is, which refuses the same and asks the
    // kernel to log nothing, where the kernel knows that wish.
    Act("open-read-muted", "PATH", |a| {
        raw(
            libc::SYS_prctl,
            &[libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0],
        )?;
        // struct landlock_ruleset_attr: handles the reading of files.
        let handled = [4u64];
        let ruleset = raw(
            libc::SYS_landlock_create_ruleset,
            &[pointer(&handled), size_of_val(&handled), 0],
        )?;
        // LOG_SAME_EXEC_OFF and LOG_SUBDOMAINS_OFF, since ABI 7.
        match raw(libc::SYS_landlock_restrict_self, &[ruleset, 0b101]) {
            Err(Errno::EINVAL) => raw(libc::SYS_landlock_restrict_self, &[ruleset, 0])?,
            other => other?,
        };
        open(a.path(0), libc::O_RDONLY)
    }),
    // EUCLEAN: the file was changed through a private mapping of it.
    Act("write-own-memory", "PATH", |a| {
        let before = fs::read(&a.0[0]).map_err(errno_of)?;
        let fd = open(a.path(0), libc::O_RDONLY)?;
        let (read, private) = (libc::PROT_READ as usize, libc::MAP_PRIVATE as usize);
        let page = raw(libc::SYS_mmap, &[0, 4096, read, private, fd, 0])?;
        let memory = open(text("/proc/self/mem"), libc::O_RDWR)?;
        raw(libc::SYS_pwrite64, &[memory, text("changed"), 7, page])?;
        match fs::read(&a.0[0]).map_err(errno_of)? == before {
            true => Ok(0),
            false => Err(Errno::EUCLEAN),
        }
    }),
    Act("ioctl", "PATH REQUEST", |a| {
        let fd = open(a.path(0), libc::O_RDONLY)?;
        let zero = 0i32;
        raw(libc::SYS_ioctl, &[fd, a.number(1), pointer(&zero)])
    }),
    // Directories in each other, and the last one removed below its own process.
    Act("deep", "FOLDER TIMES", |a| {
        raw(libc::SYS_chdir, &[a.path(0)])?;
        let name = text("d");
        for _ in 0..a.number(1) {
            raw(libc::SYS_mkdir, &[name, 0o755])?;
            raw(libc::SYS_chdir, &[name])?;
        }
        raw(libc::SYS_rmdir, &[text("../d")])
    }),
    Act("create", "PATH", |a| {
        open(a.path(0), libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL)
    }),
    Act("creat", "PATH", |a| {
        raw(libc::SYS_creat, &[a.path(0), 0o644])
    }),
    Act("openat2", "PATH", |a| {
        let how: [u64; 3] = [libc::O_RDONLY as u64, 0, 0];
        raw(
            libc::SYS_openat2,
            &[AT_FDCWD, a.path(0), pointer(&how), size_of_val(&how)],
        )
    }),
    Act("open-path-reopen", "PATH", |a| {
        let fd = open(a.path(0), libc::O_PATH)?;
        open(text(&format!("/proc/self/fd/{fd}")), libc::O_RDONLY)
    }),
    Act("open-path-rewrite", "PATH", |a| {
        let fd = open(a.path(0), libc::O_PATH)?;
        open(text(&format!("/proc/self/fd/{fd}")), libc::O_WRONLY)
    }),
    Act("tmpfile", "FOLDER", |a| {
        open(a.path(0), libc::O_TMPFILE | libc::O_RDWR)
    }),
    Act("tmpfile-link", "FOLDER NEW", |a| {
        let fd = open(a.path(0), libc::O_TMPFILE | libc::O_RDWR)?;
        let from = text(&format!("/proc/self/fd/{fd}"));
        raw(
            libc::SYS_linkat,
            &[
                AT_FDCWD,
                from,
                AT_FDCWD,
                a.path(1),
                libc::AT_SYMLINK_FOLLOW as usize,
            ],
        )
    }),
    Act("read-dir", "PATH", |a| {
        let fd = open(a.path(0), libc::O_RDONLY | libc::O_DIRECTORY)?;
        let mut entries = [0u8; 4096];
        raw(
            libc::SYS_getdents64,
            &[fd, entries.as_mut_ptr() as usize, entries.len()],
        )
    }),
    Act("truncate", "PATH", |a| {
        raw(libc::SYS_truncate, &[a.path(0), 0])
    }),
    Act("mkdir", "PATH", |a| {
        raw(libc::SYS_mkdir, &[a.path(0), 0o755])
    }),
    Act("rmdir", "PATH", |a| raw(libc::SYS_rmdir, &[a.path(0)])),
    Act("unlink", "PATH", |a| raw(libc::SYS_unlink, &[a.path(0)])),
    Act("rename", "FROM TO", |a| {
        raw(libc::SYS_rename, &[a.path(0), a.path(1)])
    }),
    Act("exchange", "ONE OTHER", |a| {
        let flag = libc::RENAME_EXCHANGE as usize;
        let (one, other) = (a.path(0), a.path(1));
        raw(libc::SYS_renameat2, &[AT_FDCWD, one, AT_FDCWD, other, flag])
    }),
    Act("readlink", "PATH", |a| {
        let mut room = [0u8; 256];
        let room = [room.as_mut_ptr() as usize, room.len()];
        raw(libc::SYS_readlink, &[a.path(0), room[0], room[1]])
    }),
    Act("link", "FROM TO", |a| {
        raw(libc::SYS_link, &[a.path(0), a.path(1)])
    }),
    Act("symlink", "TARGET PATH", |a| {
        raw(libc::SYS_symlink, &[a.path(0), a.path(1)])
    }),
    Act("stat", "PATH", |a| {
        let mut status = [0u64; 32];
        raw(libc::SYS_stat, &[a.path(0), status.as_mut_ptr() as usize])
    }),
    Act("chmod", "PATH", |a| {
        raw(libc::SYS_chmod, &[a.path(0), 0o600])
    }),
    Act("chown", "PATH UID", |a| {
        raw(libc::SYS_chown, &[a.path(0), a.number(1), usize::MAX])
    }),
    Act("utimes", "PATH", |a| {
        raw(libc::SYS_utimensat, &[AT_FDCWD, a.path(0), 0, 0])
    }),
    Act("setxattr", "PATH", |a| {
        raw(
            libc::SYS_setxattr,
            &[a.path(0), text("user.lp"), text("x"), 1, 0],
        )
    }),
    Act("getxattr", "PATH", |a| {
        let mut room = [0u8; 16];
        let room = [room.as_mut_ptr() as usize, room.len()];
        raw(
            libc::SYS_getxattr,
            &[a.path(0), text("user.lp"), room[0], room[1]],
        )
    }),
    Act("listxattr", "PATH", |a| {
        raw(libc::SYS_listxattr, &[a.path(0), 0, 0])
    }),
    Act("removexattr", "PATH", |a| {
        raw(libc::SYS_removexattr, &[a.path(0), text("user.lp")])
    }),
    Act("setacl", "PATH", |a| {
        // Version 2, then tag, permissions and id of the owner, a user, the group, the mask and others.
        let entries: [(u16, u16, u32); 5] = [
            (0x01, 7, u32::MAX),
            (0x02, 7, 1),
            (0x04, 7, u32::MAX),
            (0x10, 7, u32::MAX),
            (0x20, 7, u32::MAX),
        ];
        let mut list = 2u32.to_ne_bytes().to_vec();
        for (tag, permissions, id) in entries {
            list.extend(tag.to_ne_bytes());
            list.extend(permissions.to_ne_bytes());
            list.extend(id.to_ne_bytes());
        }
        let value = [list.as_ptr() as usize, list.len()];
        raw(
            libc::SYS_setxattr,
            &[a.path(0), text(ACCESS_LIST), value[0], value[1], 0],
        )
    }),
    Act("removeacl", "PATH", |a| {
        raw(libc::SYS_removexattr, &[a.path(0), text(ACCESS_LIST)])
    }),
    // To what they are: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS.
    Act("setflags", "PATH", |a| {
        let fd = open(a.path(0), libc::O_RDONLY)?;
        let mut flags = [0u32; 2];
        let at = flags.as_mut_ptr() as usize;
        raw(libc::SYS_ioctl, &[fd, 0x8008_6601, at])?;
        raw(libc::SYS_ioctl, &[fd, 0x4008_6602, at])
    }),
    Act("mkfifo", "PATH", |a| {
        raw(libc::SYS_mknod, &[a.path(0), 0o010_600, 0])
    }),
    Act("mknod-block", "PATH", |a| {
        raw(libc::SYS_mknod, &[a.path(0), 0o060_600, 0x700])
    }),
    Act("mknod-char", "PATH", |a| {
        raw(libc::SYS_mknod, &[a.path(0), 0o020_600, 0x101])
    }),
    Act("chdir", "PATH", |a| raw(libc::SYS_chdir, &[a.path(0)])),
    Act("chroot", "PATH", |a| raw(libc::SYS_chroot, &[a.path(0)])),
    Act("inotify", "PATH", |a| {
        let fd = raw(libc::SYS_inotify_init1, &[0])?;
        raw(
            libc::SYS_inotify_add_watch,
            &[fd, a.path(0), libc::IN_CREATE as usize],
        )
    }),
    Act("fanotify", "", |_| raw(libc::SYS_fanotify_init, &[0, 0])),
    Act("open-by-handle", "PATH", open_by_handle),
    Act("fd", "NUMBER", |a| {
        raw(libc::SYS_fcntl, &[a.number(0), libc::F_GETFD as usize])
    }),
    Act("descriptors", "", |_| {
        // EEXIST: one above stderr is open.
        for fd in 3..4096 {
            if raw(libc::SYS_fcntl, &[fd, libc::F_GETFD as usize]).is_ok() {
                return Err(Errno::EEXIST);
            }
        }
        Ok(0)
    }),
    Act("dup", "NUMBER", |a| raw(libc::SYS_dup, &[a.number(0)])),
    Act("exec", "PATH [ARG...]", |a| {
        raw(
            libc::SYS_execve,
            &[a.path(0), pointer(&a.argv(0)[..]), pointer(&[0usize])],
        )
    }),
    Act("exec-fd", "PATH", |a| {
        let fd = open(a.path(0), libc::O_PATH)?;
        exec_descriptor(fd)
    }),
    Act("exec-memfd", "PATH FLAGS", |a| {
        exec_descriptor(memfd(&a.0[0], a.number(1))?)
    }),
    Act("exec-memfd-path", "PATH FLAGS", |a| {
        let path = format!("/proc/self/fd/{}", memfd(&a.0[0], a.number(1))?);
        raw(
            libc::SYS_execve,
            &[text(&path), pointer(&a.argv(0)[..]), pointer(&[0usize])],
        )
    }),
    Act("memfd-chmod", "FLAGS", |a| {
        let fd = raw(libc::SYS_memfd_create, &[text("probe"), a.number(0)])?;
        raw(libc::SYS_fchmod, &[fd, 0o777])
    }),
    Act("map-exec-memfd", "PATH FLAGS", |a| {
        map_code(memfd(&a.0[0], a.number(1))?)
    }),
    Act("exec-memfd-secret", "", |_| {
        let fd = raw(SYS_MEMFD_SECRET, &[0])?;
        raw(libc::SYS_fchmod, &[fd, 0o777])?;
        exec_descriptor(fd)
    }),
    Act("exec-unnamed", "PATH FOLDER", |a| {
        let bytes = fs::read(&a.0[0]).map_err(errno_of)?;
        let flags = (libc::O_TMPFILE | libc::O_WRONLY) as usize;
        let folder = libc::AT_FDCWD as usize;
        let fd = raw(libc::SYS_openat, &[folder, a.path(1), flags, 0o700])?;
        raw(libc::SYS_write, &[fd, bytes.as_ptr() as usize, bytes.len()])?;
        // A file that is open for writing is never executed.
        let again = open(text(&format!("/proc/self/fd/{fd}")), libc::O_RDONLY)?;
        raw(libc::SYS_close, &[fd])?;
        exec_descriptor(again)
    }),
    Act("exec-pipe", "PATH", |a| {
        let bytes = fs::read(&a.0[0]).map_err(errno_of)?;
        let mut ends = [0i32; 2];
        raw(libc::SYS_pipe2, &[ends.as_mut_ptr() as usize, 0])?;
        let some = bytes.len().min(4096);
        raw(
            libc::SYS_write,
            &[ends[1] as usize, bytes.as_ptr() as usize, some],
        )?;
        exec_descriptor(ends[0] as usize)
    }),
    Act("map-exec", "PATH", |a| {
        map_code(open(a.path(0), libc::O_RDONLY)?)
    }),
    Act("map-exec-later", "PATH", |a| {
        let fd = open(a.path(0), libc::O_RDONLY)?;
        let (read, code) = (libc::PROT_READ as usize, libc::PROT_EXEC as usize);
        let private = libc::MAP_PRIVATE as usize;
        let page = raw(libc::SYS_mmap, &[0, 4096, read, private, fd, 0])?;
        raw(libc::SYS_mprotect, &[page, 4096, read | code])
    }),
    Act("map-write", "PATH", |a| {
        let fd = open(a.path(0), libc::O_RDWR)?;
        let write = libc::PROT_WRITE as usize;
        let shared = libc::MAP_SHARED as usize;
        raw(libc::SYS_mmap, &[0, 4096, write, shared, fd, 0])
    }),
    Act("mount-tmpfs", "PATH", |a| {
        raw(
            libc::SYS_mount,
            &[text("tmpfs"), a.path(0), text("tmpfs"), 0, 0],
        )
    }),
    Act("mount-bind", "FROM TO", |a| {
        raw(
            libc::SYS_mount,
            &[a.path(0), a.path(1), 0, libc::MS_BIND as usize, 0],
        )
    }),
    Act("remount-rw", "PATH", |a| {
        let flags = (libc::MS_BIND | libc::MS_REMOUNT) as usize;
        raw(libc::SYS_mount, &[0, a.path(0), 0, flags, 0])
    }),
    Act("umount", "PATH", |a| {
        raw(libc::SYS_umount2, &[a.path(0), libc::MNT_DETACH as usize])
    }),
    Act("pivot-root", "NEW OLD", |a| {
        raw(libc::SYS_pivot_root, &[a.path(0), a.path(1)])
    }),
    Act("fsopen", "TYPE", |a| raw(libc::SYS_fsopen, &[a.path(0), 0])),
    Act("open-tree", "PATH", |a| {
        raw(
            libc::SYS_open_tree,
            &[AT_FDCWD, a.path(0), libc::OPEN_TREE_CLONE as usize],
        )
    }),
    Act("unshare", "FLAGS", |a| {
        raw(libc::SYS_unshare, &[a.number(0)])
    }),
    Act("setns", "PATH", |a| {
        let fd = open(a.path(0), libc::O_RDONLY)?;
        raw(libc::SYS_setns, &[fd, 0])
    }),
    Act("clone", "FLAGS", |a| {
        let child = raw(
            libc::SYS_clone,
            &[a.number(0) | libc::SIGCHLD as usize, 0, 0, 0, 0],
        )?;
        if child == 0 {
            std::process::exit(0);
        }
        Ok(child)
    }),
    Act("kill", "PID SIGNAL", |a| {
        raw(libc::SYS_kill, &[a.number(0), a.number(1)])
    }),
    Act("ptrace", "PID", |a| {
        raw(
            libc::SYS_ptrace,
            &[libc::PTRACE_SEIZE as usize, a.number(0), 0, 0],
        )
    }),
    Act("read-memory", "PID", |a| {
        let mut word = [0u8; 8];
        let local = [word.as_mut_ptr() as usize, word.len()];
        let remote = [0x1000usize, 8];
        raw(
            libc::SYS_process_vm_readv,
            &[a.number(0), pointer(&local), 1, pointer(&remote), 1, 0],
        )
    }),
    Act("pidfd-getfd", "PID FD", |a| {
        let fd = raw(libc::SYS_pidfd_open, &[a.number(0), 0])?;
        raw(libc::SYS_pidfd_getfd, &[fd, a.number(1), 0])
    }),
    Act("setuid", "UID", |a| raw(libc::SYS_setuid, &[a.number(0)])),
    Act("setgroups", "", |_| raw(libc::SYS_setgroups, &[0, 0])),
    Act("rlimit", "RESOURCE SOFT HARD", |a| {
        let limit = [a.number(1), a.number(2)];
        raw(libc::SYS_prlimit64, &[0, a.number(0), pointer(&limit), 0])
    }),
    Act("forks", "COUNT", |a| forks(a.number(0))),
    Act("threads", "COUNT", |a| threads(a.number(0))),
    Act("allocate", "BYTES", |a| {
        // Written, and not by a size that the kernel could do without pages.
        let memory: Vec<u8> = (0..a.number(0)).map(|index| index as u8).collect();
        Ok(std::hint::black_box(memory).len())
    }),
    Act("spin", "MILLISECONDS", |a| {
        let most = Duration::from_millis(a.number(0) as u64);
        while nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID)
            .map(Duration::from)?
            < most
        {}
        Ok(0)
    }),
    Act("tiocsti", "", |_| {
        let byte = *b"x";
        raw(
            libc::SYS_ioctl,
            &[0, libc::TIOCSTI as usize, byte.as_ptr() as usize],
        )
    }),
    Act("syscall", "NUMBER [ARG...]", |a| {
        raw(a.number(0) as i64, &a.numbers(1))
    }),
    Act("own-filter", "VERDICT NUMBER [ARG...]", |a| {
        raw(
            libc::SYS_prctl,
            &[libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0],
        )?;
        let [load, equal, give] = [
            libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            libc::BPF_RET | libc::BPF_K,
        ];
        let [verdict, number] = [a.number(0), a.number(1)].map(|word| word as u32);
        let program = [
            (load, 0, 0),
            (equal, 1, number),
            (give, 0, libc::SECCOMP_RET_ALLOW),
            (give, 0, verdict),
        ];
        let program = program.map(|(code, jt, k)| libc::sock_filter {
            code: code as u16,
            jt,
            jf: 0,
            k,
        });
        let program = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_ptr().cast_mut(),
        };
        let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
        raw(libc::SYS_seccomp, &[mode, 0, pointer(&program)])?;
        raw(a.number(1) as i64, &a.numbers(2))
    }),
    Act("syscall-i386", "NUMBER", |a| interrupt80(a.number(0))),
    Act("socket", "FAMILY TYPE PROTOCOL", |a| {
        raw(libc::SYS_socket, &a.numbers(0))
    }),
    Act("tcp", "ADDRESS", |a| {
        connect(&a.address(0), libc::SOCK_STREAM, 0)
    }),
    Act("mptcp", "ADDRESS", |a| {
        connect(&a.address(0), libc::SOCK_STREAM, libc::IPPROTO_MPTCP)
    }),
    Act("tcp-fastopen", "ADDRESS", |a| {
        let to = a.address(0);
        let fd = socket(&to, libc::SOCK_STREAM, 0)?;
        send(fd, Some(&to), libc::MSG_FASTOPEN)
    }),
    Act("tcp-fastopen-connect", "ADDRESS", |a| {
        let to = a.address(0);
        let fd = socket(&to, libc::SOCK_STREAM, 0)?;
        let on = 1_i32.to_ne_bytes();
        option(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &on)?;
        raw(libc::SYS_connect, &[fd, to.pointer(), to.length])?;
        send(fd, None, 0)
    }),
    Act("tcp-reconnect", "FIRST SECOND", |a| {
        let (first, second) = (a.address(0), a.address(1));
        let fd = socket(&first, libc::SOCK_STREAM, 0)?;
        raw(libc::SYS_connect, &[fd, first.pointer(), first.length])?;
        let nobody = [0u8; 16];
        raw(
            libc::SYS_connect,
            &[fd, nobody.as_ptr() as usize, nobody.len()],
        )?;
        raw(libc::SYS_connect, &[fd, second.pointer(), second.length])
    }),
    Act("udp-connect", "ADDRESS", |a| {
        connect(&a.address(0), libc::SOCK_DGRAM, 0)
    }),
    Act("udp-connect-send", "ADDRESS", |a| {
        let to = a.address(0);
        let fd = socket(&to, libc::SOCK_DGRAM, 0)?;
        raw(libc::SYS_connect, &[fd, to.pointer(), to.length])?;
        send(fd, None, 0)
    }),
    Act("udp-send", "ADDRESS", |a| {
        let to = a.address(0);
        let fd = socket(&to, libc::SOCK_DGRAM, 0)?;
        send(fd, Some(&to), 0)
    }),
    Act("udp-send-long", "ADDRESS SIZE", |a| {
        let to = a.address(0);
        let fd = socket(&to, libc::SOCK_DGRAM, 0)?;
        send_data(fd, Some(&to), 0, &vec![8; a.number(1)])
    }),
    Act("udp-send-unspec", "ADDRESS", |a| {
        let mut to = a.address(0);
        let fd = socket(&to, libc::SOCK_DGRAM, 0)?;
        to.bytes[..2].copy_from_slice(&(libc::AF_UNSPEC as u16).to_ne_bytes());
        send(fd, Some(&to), 0)
    }),
    Act("udp6-send-v4", "IPV4-ADDRESS", |a| {
        let fd = raw(
            libc::SYS_socket,
            &[libc::AF_INET6 as usize, libc::SOCK_DGRAM as usize, 0],
        )?;
        send(fd, Some(&a.address(0)), 0)
    }),
    Act("udp6-connect-v4", "IPV4-ADDRESS", |a| {
        let to = a.address(0);
        let fd = raw(
            libc::SYS_socket,
            &[libc::AF_INET6 as usize, libc::SOCK_DGRAM as usize, 0],
        )?;
        raw(libc::SYS_connect, &[fd, to.pointer(), to.length])
    }),
    Act("udp-lite-send", "ADDRESS", |a| {
        let to = a.address(0);
        let fd = socket(&to, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)?;
        send(fd, Some(&to), 0)
    }),
    Act("udp-connect-send-control", "ADDRESS", |a| {
        let to = a.address(0);
        let fd = socket(&to, libc::SOCK_DGRAM, 0)?;
        raw(libc::SYS_connect, &[fd, to.pointer(), to.length])?;
        send_control(fd, &to)
    }),
    Act("udp-ip-options", "IPV4-ADDRESS", |a| {
        let to = a.address(0);
        let fd = socket(&to, libc::SOCK_DGRAM, 0)?;
        // Three times "no operation", then the end of the list.
        let options = [1_u8, 1, 1, 0];
        option(fd, libc::IPPROTO_IP, libc::IP_OPTIONS, &options)?;
        send(fd, Some(&to), 0)
    }),
    Act("udp-routing-header", "IPV6-ADDRESS", |a| {
        let to = a.address(0);
        let fd = socket(&to, libc::SOCK_DGRAM, 0)?;
        // A segment routing header (RFC 8754) with one segment, the destination.
        let mut header = [0_u8; 24];
        (header[1], header[2]) = (2, 4);
        header[8..].copy_from_slice(&to.bytes[8..24]);
        option(fd, libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &header)?;
        send(fd, Some(&to), 0)
    }),
    Act("udp-connect-send-elsewhere", "FIRST SECOND", |a| {
        let (first, second) = (a.address(0), a.address(1));
        let fd = socket(&first, libc::SOCK_DGRAM, 0)?;
        raw(libc::SYS_connect, &[fd, first.pointer(), first.length])?;
        send(fd, Some(&second), 0)
    }),
    Act("udp-connects", "TIMES THREADS ADDRESS", |a| {
        udp_connects(a.number(0), a.number(1), &a.address(2))
    }),
    Act("udp-sweep", "ADDRESS TIMES", |a| {
        let mut to = a.address(0);
        let fd = socket(&to, libc::SOCK_DGRAM, 0)?;
        let mut last = Ok(0);
        for port in 1..=a.number(1) {
            to.bytes[2..4].copy_from_slice(&(port as u16).to_be_bytes());
            last = send(fd, Some(&to), 0);
        }
        last
    }),
    Act("udp-canary", "GATE", |a| {
        // Before the gate opens: one socket connected elsewhere, and last one to itself.
        let elsewhere = Address::of(&SocketAddr::from(([127, 0, 0, 1], 10)));
        let connected = connect(&elsewhere, libc::SOCK_DGRAM, 0)?;
        let own = Address::of(&SocketAddr::from(([127, 0, 0, 1], 9)));
        let itself = bind(&own, libc::SOCK_DGRAM)?;
        raw(libc::SYS_connect, &[itself, own.pointer(), own.length])?;
        while open(a.path(0), libc::O_RDONLY).is_err() {
            std::thread::sleep(Duration::from_millis(2));
        }
        if send(connected, None, 0) != Err(Errno::EPERM) {
            return Err(Errno::ENOTRECOVERABLE);
        }
        send(itself, None, 0)
    }),
    Act("udp-answer", "ADDRESS", |a| {
        let fd = bind(&a.address(0), libc::SOCK_DGRAM)?;
        let mut from = Address::empty();
        wait(fd)?;
        receive(fd, Some(&mut from))?;
        send(fd, Some(&from), 0)
    }),
    Act("udp-send-receive", "ADDRESS", |a| {
        let to = a.address(0);
        let fd = socket(&to, libc::SOCK_DGRAM, 0)?;
        send(fd, Some(&to), 0)?;
        wait(fd)?;
        receive(fd, None)
    }),
    Act("udp-receive", "ADDRESS", |a| {
        let fd = bind(&a.address(0), libc::SOCK_DGRAM)?;
        wait(fd)?;
        receive(fd, None)
    }),
    Act("tcp-send", "ADDRESS", |a| {
        let fd = connect(&a.address(0), libc::SOCK_STREAM, 0)?;
        send(fd, None, 0)
    }),
    Act("tcp-from", "LOCAL ADDRESS", |a| {
        let (local, to) = (a.address(0), a.address(1));
        let fd = bind(&local, libc::SOCK_STREAM | libc::SOCK_NONBLOCK)?;
        // Only a connection that is established can be written to.
        let _ = raw(libc::SYS_connect, &[fd, to.pointer(), to.length]);
        let entry = [fd as u32, libc::POLLOUT as u32];
        match raw(libc::SYS_poll, &[pointer(&entry), 1, 500])? {
            0 => Err(Errno::ETIMEDOUT),
            ready => Ok(ready),
        }
    }),
    Act("tcp-serve", "ADDRESS", |a| {
        serve(bind(&a.address(0), libc::SOCK_STREAM)?)
    }),
    Act("tcp-serve-unbound", "", |_| {
        serve(raw(
            libc::SYS_socket,
            &[libc::AF_INET as usize, libc::SOCK_STREAM as usize, 0],
        )?)
    }),
    Act("tcp-itself", "ADDRESS", |a| {
        let at = a.address(0);
        let server = bind(&at, libc::SOCK_STREAM)?;
        raw(libc::SYS_listen, &[server, 8])?;
        let mut bound = Address::empty();
        raw(
            libc::SYS_getsockname,
            &[server, bound.pointer(), &raw mut bound.length as usize],
        )?;
        let client = connect(&bound, libc::SOCK_STREAM, 0)?;
        wait(server)?;
        let peer = raw(libc::SYS_accept, &[server, 0, 0])?;
        send(client, None, 0)?;
        wait(peer)?;
        receive(peer, None)
    }),
    Act("ping", "ADDRESS", |a| {
        let to = a.address(0);
        let protocol = if to.v6() {
            libc::IPPROTO_ICMPV6
        } else {
            libc::IPPROTO_ICMP
        };
        let fd = socket(&to, libc::SOCK_DGRAM, protocol)?;
        send(fd, Some(&to), 0)
    }),
    Act("bind-tcp", "ADDRESS", |a| {
        bind(&a.address(0), libc::SOCK_STREAM)
    }),
    Act("bind-udp", "ADDRESS", |a| {
        bind(&a.address(0), libc::SOCK_DGRAM)
    }),
    Act("listen", "ADDRESS", |a| {
        let fd = bind(&a.address(0), libc::SOCK_STREAM)?;
        raw(libc::SYS_listen, &[fd, 1])
    }),
    Act("listen-unbound", "", |_| {
        let fd = raw(
            libc::SYS_socket,
            &[libc::AF_INET as usize, libc::SOCK_STREAM as usize, 0],
        )?;
        raw(libc::SYS_listen, &[fd, 1])
    }),
    Act("unix-connect", "PATH", |a| {
        unix(a, libc::SOCK_STREAM, libc::SYS_connect)
    }),
    Act("unix-bind", "PATH", |a| {
        unix(a, libc::SOCK_STREAM, libc::SYS_bind)
    }),
    Act("unix-datagram", "PATH", |a| {
        unix(a, libc::SOCK_DGRAM, libc::SYS_connect)
    }),
    Act("unix-send", "PATH", |a| {
        let (bytes, length) = unix_address(a);
        let fd = unix_socket(libc::SOCK_DGRAM)?;
        let data = [8u8; 8];
        raw(
            libc::SYS_sendto,
            &[fd, pointer(&data), 8, 0, bytes.as_ptr() as usize, length],
        )
    }),
    Act("unix-pair", "KIND", |a| {
        let [one, other] = unix_pair(a.number(0))?;
        send(one, None, 0)?;
        receive(other, None)
    }),
    Act("unix-pair-forge", "UID", |a| {
        let [one, _other] = unix_pair(libc::SOCK_STREAM as usize)?;
        let data = [8u8; 8];
        let part = [data.as_ptr() as usize, data.len()];
        let (pid, uid) = (raw(libc::SYS_getpid, &[])? as u64, a.number(0) as u64);
        // struct cmsghdr with a 28-byte length, then struct ucred: process, user, group.
        let (level, kind) = (libc::SOL_SOCKET as u64, libc::SCM_CREDENTIALS as u64);
        let control = [28u64, kind << 32 | level, uid << 32 | pid, uid];
        let message = [0, 0, pointer(&part), 1, pointer(&control), 32, 0];
        raw(libc::SYS_sendmsg, &[one, pointer(&message), 0])
    }),
    // EHOSTUNREACH: the datagram went to the other end of the pair, not to the path.
    Act("unix-pair-send", "PATH KIND", |a| {
        let [one, other] = unix_pair(a.number(1))?;
        let (bytes, length) = unix_address(a);
        let data = [8u8; 8];
        raw(
            libc::SYS_sendto,
            &[one, pointer(&data), 8, 0, bytes.as_ptr() as usize, length],
        )?;
        let nothing = wait_for(other, 0) == Err(Errno::ETIMEDOUT);
        if nothing {
            Ok(0)
        } else {
            Err(Errno::EHOSTUNREACH)
        }
    }),
    Act("unix-pair-connect", "PATH KIND", |a| {
        let [one, _other] = unix_pair(a.number(1))?;
        let (bytes, length) = unix_address(a);
        raw(libc::SYS_connect, &[one, bytes.as_ptr() as usize, length])
    }),
    Act("unix-own", "PATH", |a| {
        let server = unix_socket(libc::SOCK_STREAM)?;
        let (bytes, length) = unix_address(a);
        let address = bytes.as_ptr() as usize;
        raw(libc::SYS_bind, &[server, address, length])?;
        raw(libc::SYS_listen, &[server, 1])?;
        let client = unix_socket(libc::SOCK_STREAM)?;
        raw(libc::SYS_connect, &[client, address, length])?;
        let peer = raw(libc::SYS_accept, &[server, 0, 0])?;
        send(client, None, 0)?;
        receive(peer, None)
    }),
    Act("unix-hold", "PATH SECONDS", |a| {
        let server = unix_socket(libc::SOCK_STREAM)?;
        let (bytes, length) = unix_address(a);
        raw(libc::SYS_bind, &[server, bytes.as_ptr() as usize, length])?;
        raw(libc::SYS_listen, &[server, 1])?;
        std::thread::sleep(std::time::Duration::from_secs(a.number(1) as u64));
        Ok(0)
    }),
    Act("read-flipping", "LINK GOOD SECRET TIMES", |a| {
        read_flipping(&a.0[0], [&a.0[1], &a.0[2]], a.number(3))
    }),
    Act("hammer", "FILE ADDRESS STARTED SUCCESS", hammer),
    Act("without", "NUMBER[,NUMBER...] PROGRAM [ARG...]", |a| {
        let numbers: Vec<usize> = a.0[0].split(',').filter_map(|n| n.parse().ok()).collect();
        refuse_calls(&numbers)?;
        exec_here(a, 1)
    }),
];

fn main() -> ExitCode {
    let mut given = env::args_os().skip(1);
    let name = given.next().unwrap_or_default();
    let texts: Option<Vec<CString>> = given.map(|t| CString::new(t.into_vec()).ok()).collect();
    let Some(texts) = texts else {
        return ExitCode::from(2);
    };
    if name == "each" {
        return each(&texts);
    }
    let Some(act) = name.to_str().and_then(find) else {
        for Act(name, arguments, _) in ACTS {
            eprintln!("probe {name} {arguments}");
        }
        return ExitCode::from(2);
    };
    match (act.2)(&Arguments::of(&texts)) {
        Ok(_) => {
            println!("ok");
            ExitCode::SUCCESS
        }
        Err(errno) => {
            println!("{errno:?}");
            ExitCode::FAILURE
        }
    }
}

fn find(name: &str) -> Option<&'static Act> {
    ACTS.iter().find(|act| act.0 == name)
}

/// Tries each act in a child of its own, which leaves nothing behind for the next one.
fn each(texts: &[CString]) -> ExitCode {
    for words in texts.split(|text| text.to_bytes() == SEPARATOR.as_bytes()) {
        let Some((act, rest)) = words
            .split_first()
            .and_then(|(name, rest)| Some((find(name.to_str().ok()?)?, rest)))
        else {
            usage("an act of each is not known");
        };
        match in_child(|| (act.2)(&Arguments::of(rest))) {
            Ok(_) => println!("ok"),
            Err(errno) => println!("{errno:?}"),
        }
    }
    ExitCode::SUCCESS
}

/// What `act` gives in a child. Its errno is the child's exit status; a child that a signal ended
/// gives EINTR, and a program that the child became is asked for its own exit status.
fn in_child(act: impl FnOnce() -> Answer) -> Answer {
    let child = raw(libc::SYS_clone, &[libc::SIGCHLD as usize, 0, 0, 0, 0])?;
    if child == 0 {
        // What a program that the child becomes has to say is no answer.
        let _ = raw(libc::SYS_dup3, &[2, 1, 0]);
        let errno = act().err().map_or(0, |errno| errno as i32);
        std::process::exit(errno);
    }
    let mut status = 0i32;
    raw(
        libc::SYS_wait4,
        &[child, &raw mut status as usize, libc::__WALL as usize, 0],
    )?;
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(0),
        (true, errno) => Err(Errno::from_raw(errno)),
        (false, _) => Err(Errno::EINTR),
    }
}

/// The act's arguments, as text and as C strings.
struct Arguments(Vec<String>, Vec<CString>);

impl Arguments {
    fn of(texts: &[CString]) -> Self {
        let words = texts.iter().map(|t| t.to_string_lossy().into_owned());
        Self(words.collect(), texts.to_vec())
    }

    fn path(&self, index: usize) -> usize {
        self.1
            .get(index)
            .map_or_else(|| usage("a path is missing"), |path| path.as_ptr() as usize)
    }

    fn number(&self, index: usize) -> usize {
        let text = self
            .0
            .get(index)
            .map_or_else(|| usage("a number is missing"), String::as_str);
        let number = text.strip_prefix("0x").map_or_else(
            || text.parse::<i64>().ok().map(|signed| signed as usize),
            |hexadecimal| usize::from_str_radix(hexadecimal, 16).ok(),
        );
        number.unwrap_or_else(|| usage("not a number"))
    }

    fn numbers(&self, from: usize) -> Vec<usize> {
        (from..self.0.len())
            .map(|index| self.number(index))
            .collect()
    }

    fn argv(&self, from: usize) -> Vec<usize> {
        self.1[from..]
            .iter()
            .map(|text| text.as_ptr() as usize)
            .chain([0])
            .collect()
    }

    fn address(&self, index: usize) -> Address {
        let text = self
            .0
            .get(index)
            .map_or_else(|| usage("an address is missing"), String::as_str);
        text.parse().map_or_else(
            |_| usage("not ADDRESS:PORT"),
            |address| Address::of(&address),
        )
    }
}

/// A socket address as the kernel reads it.
struct Address {
    bytes: [u8; 28],
    length: usize,
}

impl Address {
    fn of(address: &SocketAddr) -> Self {
        let mut bytes = [0u8; 28];
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, length) = match address.ip() {
            IpAddr::V4(ip) => {
                bytes[4..8].copy_from_slice(&ip.octets());
                (libc::AF_INET, 16)
            }
            IpAddr::V6(ip) => {
                bytes[8..24].copy_from_slice(&ip.octets());
                (libc::AF_INET6, 28)
            }
        };
        bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        Self { bytes, length }
    }

    /// Room for the kernel to write one.
    fn empty() -> Self {
        Self {
            bytes: [0; 28],
            length: 28,
        }
    }

    fn v6(&self) -> bool {
        self.length == 28
    }

    fn pointer(&self) -> usize {
        self.bytes.as_ptr() as usize
    }
}

const AT_FDCWD: usize = libc::AT_FDCWD as isize as usize;

fn usage(problem: &str) -> ! {
    eprintln!("probe: {problem}");
    std::process::exit(2)
}

fn open(path: usize, flags: i32) -> Answer {
    raw(libc::SYS_openat, &[AT_FDCWD, path, flags as usize, 0o644])
}

/// Opens the file and connects to the address until the end of the process; the first time that
/// either is not refused makes `SUCCESS` and is the answer.
fn hammer(a: &Arguments) -> Answer {
    let create = libc::O_WRONLY | libc::O_CREAT;
    let (file, address) = (a.path(0), a.address(1));
    open(a.path(2), create)?;
    loop {
        let opened = open(file, libc::O_RDONLY);
        let connected = connect(&address, libc::SOCK_STREAM, 0);
        if opened.is_ok() || connected.is_ok() {
            return open(a.path(3), create);
        }
        // The socket of a connect that was refused.
        raw(libc::SYS_close_range, &[3, usize::MAX >> 32, 0])?;
    }
}

/// A file in memory, made with these flags, with the bytes of a file.
fn memfd(from: &str, flags: usize) -> Answer {
    let bytes = fs::read(from).map_err(errno_of)?;
    let fd = raw(libc::SYS_memfd_create, &[text("probe"), flags])?;
    raw(libc::SYS_write, &[fd, bytes.as_ptr() as usize, bytes.len()])?;
    Ok(fd)
}

/// `memfd_secret(2)`, which has the same number everywhere.
const SYS_MEMFD_SECRET: i64 = 447;

fn map_code(fd: usize) -> Answer {
    let protection = (libc::PROT_READ | libc::PROT_EXEC) as usize;
    raw(
        libc::SYS_mmap,
        &[0, 4096, protection, libc::MAP_PRIVATE as usize, fd, 0],
    )
}

fn exec_descriptor(fd: usize) -> Answer {
    let argv = [text("probe"), 0];
    let empty = libc::AT_EMPTY_PATH as usize;
    raw(
        libc::SYS_execveat,
        &[fd, text(""), pointer(&argv), pointer(&[0usize]), empty],
    )
}

fn open_by_handle(arguments: &Arguments) -> Answer {
    // struct file_handle: handle_bytes, handle_type, then the handle itself.
    let mut handle = [0u32; 34];
    handle[0] = 128;
    let mut mount = 0i32;
    let place = &raw mut mount as usize;
    raw(
        libc::SYS_name_to_handle_at,
        &[
            AT_FDCWD,
            arguments.path(0),
            handle.as_mut_ptr() as usize,
            place,
            0,
        ],
    )?;
    let root = open(text("/"), libc::O_RDONLY)?;
    raw(
        libc::SYS_open_by_handle_at,
        &[root, handle.as_mut_ptr() as usize, 0],
    )
}

fn socket(to: &Address, kind: i32, protocol: i32) -> Answer {
    let family = if to.v6() {
        libc::AF_INET6
    } else {
        libc::AF_INET
    };
    raw(
        libc::SYS_socket,
        &[family as usize, kind as usize, protocol as usize],
    )
}

fn connect(to: &Address, kind: i32, protocol: i32) -> Answer {
    let fd = socket(to, kind, protocol)?;
    raw(libc::SYS_connect, &[fd, to.pointer(), to.length])?;
    Ok(fd)
}

fn bind(to: &Address, kind: i32) -> Answer {
    let fd = socket(to, kind, 0)?;
    raw(libc::SYS_bind, &[fd, to.pointer(), to.length])?;
    Ok(fd)
}

fn send(fd: usize, to: Option<&Address>, flags: i32) -> Answer {
    send_data(fd, to, flags, &[8, 0, 0, 0, 0, 0, 0, 0])
}

fn send_data(fd: usize, to: Option<&Address>, flags: i32, data: &[u8]) -> Answer {
    let (address, length) = to.map_or((0, 0), |to| (to.pointer(), to.length));
    raw(
        libc::SYS_sendto,
        &[
            fd,
            data.as_ptr() as usize,
            data.len(),
            flags as usize,
            address,
            length,
        ],
    )
}

/// Sets an option of a socket.
fn option(fd: usize, level: i32, name: i32, value: &[u8]) -> Answer {
    let words = [
        fd,
        level as usize,
        name as usize,
        value.as_ptr() as usize,
        value.len(),
    ];
    raw(libc::SYS_setsockopt, &words)
}

/// Sends to the connected peer with a control message that sets the hop limit.
fn send_control(fd: usize, peer: &Address) -> Answer {
    let (level, kind) = if peer.v6() {
        (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)
    } else {
        (libc::IPPROTO_IP, libc::IP_TTL)
    };
    let data = [8u8; 8];
    let part = [data.as_ptr() as usize, data.len()];
    // struct cmsghdr with a 20-byte length, then the value and its padding.
    let control = [20u64, (kind as u64) << 32 | level as u64, 64];
    // struct msghdr: name, its length, parts, their number, control, its length, flags.
    let message = [0, 0, pointer(&part), 1, pointer(&control), 24, 0];
    raw(libc::SYS_sendmsg, &[fd, pointer(&message), 0])
}

/// Connects UDP sockets again and again, from several threads; all must give the same answer.
fn udp_connects(times: usize, threads: usize, to: &Address) -> Answer {
    let each = || {
        let mut last = Ok(0);
        for _ in 0..times / threads {
            let fd = socket(to, libc::SOCK_DGRAM, 0)?;
            last = raw(libc::SYS_connect, &[fd, to.pointer(), to.length]);
            raw(libc::SYS_close, &[fd])?;
        }
        last
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(each)).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or(Err(Errno::ECANCELED)))
            .try_fold(0, |_, one| one)
    })
}

/// Accepts one connection, reads from it and answers.
fn serve(fd: usize) -> Answer {
    raw(libc::SYS_listen, &[fd, 8])?;
    wait_for(fd, 20_000)?;
    let peer = raw(libc::SYS_accept, &[fd, 0, 0])?;
    wait(peer)?;
    receive(peer, None)?;
    send(peer, None, 0)
}

/// Waits until there is something to read, at most two seconds: ETIMEDOUT.
fn wait(fd: usize) -> Answer {
    wait_for(fd, 2000)
}

fn wait_for(fd: usize, milliseconds: usize) -> Answer {
    let entry = [fd as u32, libc::POLLIN as u32];
    match raw(libc::SYS_poll, &[pointer(&entry), 1, milliseconds])? {
        0 => Err(Errno::ETIMEDOUT),
        ready => Ok(ready),
    }
}

fn receive(fd: usize, from: Option<&mut Address>) -> Answer {
    let mut data = [0u8; 64];
    let (address, length) = from.map_or((0, 0), |from| {
        (from.pointer(), &raw mut from.length as usize)
    });
    raw(
        libc::SYS_recvfrom,
        &[
            fd,
            data.as_mut_ptr() as usize,
            data.len(),
            0,
            address,
            length,
        ],
    )
}

fn unix(arguments: &Arguments, kind: i32, call: i64) -> Answer {
    let (bytes, length) = unix_address(arguments);
    let fd = unix_socket(kind)?;
    raw(call, &[fd, bytes.as_ptr() as usize, length])
}

fn unix_socket(kind: i32) -> Answer {
    raw(
        libc::SYS_socket,
        &[libc::AF_UNIX as usize, kind as usize, 0],
    )
}

fn unix_pair(kind: usize) -> Result<[usize; 2], Errno> {
    let mut pair = [0i32; 2];
    raw(
        libc::SYS_socketpair,
        &[libc::AF_UNIX as usize, kind, 0, pair.as_mut_ptr() as usize],
    )?;
    Ok(pair.map(|fd| fd as usize))
}

/// The address that the first argument names, and its length.
fn unix_address(arguments: &Arguments) -> ([u8; 110], usize) {
    let path = arguments
        .0
        .first()
        .map_or_else(|| usage("a path is missing"), String::as_str);
    let mut bytes = [0u8; 110];
    bytes[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
    // `@name` is an abstract socket: its first byte is zero.
    let name = path
        .strip_prefix('@')
        .map_or(path.to_owned(), |name| format!("\0{name}"));
    if name.len() > 100 {
        usage("a socket's path has at most 100 bytes");
    }
    bytes[2..2 + name.len()].copy_from_slice(name.as_bytes());
    (bytes, 2 + name.len())
}

/// Reads through a link that a thread points at one file, then at the other, again and again.
/// EUCLEAN: once it was not the first file's content that was read.
/// Makes as many children as asked for, which live until all are made or one is refused.
fn forks(count: usize) -> Answer {
    let mut children = Vec::new();
    let mut answer = Ok(0);
    while children.len() < count && answer.is_ok() {
        // SAFETY: the child only waits for a signal.
        match unsafe { libc::fork() } {
            0 => loop {
                // SAFETY: it takes nothing.
                unsafe { libc::pause() };
            },
            -1 => answer = Err(Errno::last()),
            child => children.push(child),
        }
    }
    for child in children {
        // SAFETY: the child is this process's own; nothing is written.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
    }
    answer
}

/// The same with threads.
fn threads(count: usize) -> Answer {
    let (over, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
    let mut made = Vec::new();
    let mut answer = Ok(0);
    while made.len() < count && answer.is_ok() {
        let wait = std::sync::Arc::clone(&wait);
        let thread =
            std::thread::Builder::new().spawn(move || drop(wait.lock().map(|end| end.recv())));
        match thread {
            Ok(thread) => made.push(thread),
            Err(error) => answer = Err(Errno::from_raw(error.raw_os_error().unwrap_or(0))),
        }
    }
    drop(over);
    for thread in made {
        let _ = thread.join();
    }
    answer
}

fn read_flipping(link: &str, targets: [&str; 2], times: usize) -> Answer {
    let good = fs::read(targets[0]).map_err(errno_of)?;
    let done = std::sync::atomic::AtomicBool::new(false);
    let flip = || {
        let next = format!("{link}.next");
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            for target in targets {
                let _ = std::os::unix::fs::symlink(target, &next);
                let _ = fs::rename(&next, link);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(flip);
        let other = (0..times).any(|_| fs::read(link).is_ok_and(|content| content != good));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        if other { Err(Errno::EUCLEAN) } else { Ok(0) }
    })
}

/// Answers these system calls with ENOSYS from now on, as a kernel without them would. Needs
/// CAP_SYS_ADMIN, or no_new_privs.
fn refuse_calls(numbers: &[usize]) -> Answer {
    // struct sock_filter: code, jump if true, jump if false, value.
    let step = |code: u32, jumps: u8, value: u32| -> u64 {
        u64::from(value) << 32 | u64::from(jumps) << 16 | u64::from(code)
    };
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (index, number) in numbers.iter().enumerate() {
        let refusal = (numbers.len() - index) as u8;
        let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        filter.push(step(equal, refusal, *number as u32));
    }
    let end = libc::BPF_RET | libc::BPF_K;
    filter.push(step(end, 0, libc::SECCOMP_RET_ALLOW));
    let refused = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    filter.push(step(end, 0, refused));
    // struct sock_fprog: number of steps, the steps.
    let program = [filter.len(), filter.as_ptr() as usize];
    let mode = libc::SECCOMP_MODE_FILTER as usize;
    raw(
        libc::SYS_prctl,
        &[libc::PR_SET_SECCOMP as usize, mode, pointer(&program), 0, 0],
    )
}

/// Becomes the program at an argument, with the environment as it is.
fn exec_here(arguments: &Arguments, from: usize) -> Answer {
    let words = &arguments.0[from..];
    let error = std::os::unix::process::CommandExt::exec(
        std::process::Command::new(&words[0]).args(&words[1..]),
    );
    Err(errno_of(error))
}

fn errno_of(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// A C string that lives as long as the probe, which is one act long.
fn text(text: &str) -> usize {
    let text = CString::new(text).unwrap_or_default();
    let address = text.as_ptr() as usize;
    mem::forget(text);
    address
}

fn pointer<T: ?Sized>(value: &T) -> usize {
    (&raw const *value).cast::<u8>() as usize
}

/// One system call with up to six words.
fn raw(number: i64, words: &[usize]) -> Answer {
    let mut all = [0usize; 6];
    for (place, word) in all.iter_mut().zip(words) {
        *place = *word;
    }
    // SAFETY: each pointer among the words is to memory of this function's caller that is alive
    // and as large as the call needs; a wrong one gives EFAULT or ends a test program.
    let answer = unsafe { libc::syscall(number, all[0], all[1], all[2], all[3], all[4], all[5]) };
    if answer == -1 {
        Err(Errno::last())
    } else {
        Ok(answer as usize)
    }
}

/// A system call through the 32-bit entry, which numbers calls differently.
#[cfg(target_arch = "x86_64")]
fn interrupt80(number: usize) -> Answer {
    let answer: i32;
    // SAFETY: the 32-bit entry takes its arguments in registers; all are zero, so that the kernel
    // reads and writes no memory. It may clobber r8 to r11.
    unsafe {
        std::arch::asm!(
            "push rbx", "xor ebx, ebx", "int 0x80", "pop rbx",
            inlateout("eax") number as i32 => answer,
            inout("ecx") 0 => _, inout("edx") 0 => _, inout("esi") 0 => _, inout("edi") 0 => _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    if answer < 0 {
        Err(Errno::from_raw(-answer))
    } else {
        Ok(answer as usize)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn interrupt80(_number: usize) -> Answer {
    Err(Errno::ENOSYS)
}
