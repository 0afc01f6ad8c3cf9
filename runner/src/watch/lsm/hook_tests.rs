// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every hook of the kernel's that has to do with files, mappings, mounts or sockets is used, or
//! stands here with the reason why not. `docs/hooks.md` is made of it; the kernel that the tests
//! run on is held against it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use expect_test::expect_file;

use super::HOOKS;
use crate::watch::btf::Btf;

/// What hooks of these topics are called.
const TOPICS: [&str; 12] = [
    "backing_file_",
    "bprm_",
    "d_instantiate",
    "dentry_",
    "file_",
    "inode_",
    "mmap_",
    "move_mount",
    "path_",
    "sb_",
    "socket_",
    "unix_",
];

/// The kernels of the table, by the start of their release, and the hooks that each lacks.
const KERNELS: [(&str, &[&str]); 3] = [
    (
        "6.1.",
        &[
            "backing_file_alloc",
            "backing_file_free",
            "file_post_open",
            "file_release",
            "file_truncate",
            "inode_file_getattr",
            "inode_file_setattr",
            "inode_free_security_rcu",
            "inode_get_acl",
            "inode_getlsmprop",
            "inode_post_create_tmpfile",
            "inode_post_remove_acl",
            "inode_post_removexattr",
            "inode_post_set_acl",
            "inode_post_setattr",
            "inode_remove_acl",
            "inode_set_acl",
            "inode_setintegrity",
            "inode_xattr_skipcap",
            "mmap_backing_file",
            "path_post_mknod",
        ],
    ),
    (
        "6.12.",
        &[
            "inode_file_getattr",
            "inode_file_setattr",
            "inode_getlsmprop",
        ],
    ),
    ("6.18.", &["inode_getsecid"]),
];

/// Hooks that are not used, by the reason.
const DISMISSED: &[(&str, &[&str])] = &[
    (
        "keeps the labels of other modules; nothing is decided",
        &[
            "backing_file_alloc",
            "backing_file_free",
            "d_instantiate",
            "dentry_create_files_as",
            "dentry_init_security",
            "file_alloc_security",
            "file_free_security",
            "file_set_fowner",
            "inode_alloc_security",
            "inode_free_security",
            "inode_free_security_rcu",
            "inode_getlsmprop",
            "inode_getsecctx",
            "inode_getsecid",
            "inode_getsecurity",
            "inode_init_security",
            "inode_init_security_anon",
            "inode_invalidate_secctx",
            "inode_listsecurity",
            "inode_notifysecctx",
            "inode_setintegrity",
            "inode_setsecctx",
            "inode_setsecurity",
            "inode_xattr_skipcap",
            "sb_alloc_security",
            "sb_clone_mnt_opts",
            "sb_delete",
            "sb_eat_lsm_opts",
            "sb_free_mnt_opts",
            "sb_free_security",
            "sb_mnt_opts_compat",
            "sb_set_mnt_opts",
            "sb_show_options",
            "socket_getpeersec_dgram",
            "socket_getpeersec_stream",
            "socket_post_create",
        ],
    ),
    (
        "comes after the act",
        &[
            "bprm_committed_creds",
            "bprm_committing_creds",
            "file_post_open",
            "file_release",
            "inode_post_create_tmpfile",
            "inode_post_remove_acl",
            "inode_post_removexattr",
            "inode_post_set_acl",
            "inode_post_setattr",
            "inode_post_setxattr",
            "path_post_mknod",
        ],
    ),
    (
        "the act is asked at its `inode_` hook too: `inode_create`, `inode_link`, `inode_mkdir`, \
         `inode_mknod`, `inode_rename`, `inode_rmdir`, `inode_setattr`, `inode_symlink`, \
         `inode_unlink`",
        &[
            "file_truncate",
            "path_chmod",
            "path_chown",
            "path_link",
            "path_mkdir",
            "path_mknod",
            "path_rename",
            "path_rmdir",
            "path_symlink",
            "path_truncate",
            "path_unlink",
        ],
    ),
    (
        "uses a descriptor: `file_open` or `file_receive` was asked for it, and a mapping can do \
         no more than its descriptor",
        &[
            "file_fcntl",
            "file_lock",
            "file_mprotect",
            "file_permission",
            "file_send_sigiotask",
            "mmap_addr",
            "mmap_backing_file",
            "mmap_file",
        ],
    ),
    (
        "a program and its interpreter are opened: `file_open`",
        &[
            "bprm_check_security",
            "bprm_creds_for_exec",
            "bprm_creds_from_file",
        ],
    ),
    (
        "part of a change that is asked itself",
        &[
            "inode_copy_up",
            "inode_copy_up_xattr",
            "inode_killpriv",
            "inode_need_killpriv",
        ],
    ),
    (
        "what is denied may be seen to exist: names, modes, times and sizes",
        &[
            "inode_file_getattr",
            "inode_get_acl",
            "inode_getattr",
            "inode_listxattr",
            "inode_permission",
            "sb_statfs",
        ],
    ),
    (
        "the system-call filter refuses the call: 32-bit programs, `file_setattr`, mounts, `chroot`",
        &[
            "file_ioctl_compat",
            "inode_file_setattr",
            "move_mount",
            "path_chroot",
            "sb_kern_mount",
            "sb_mount",
            "sb_pivotroot",
            "sb_remount",
            "sb_umount",
        ],
    ),
    (
        "addresses belong to the cgroup programs; a Unix socket is asked at `inode_mknod`, \
         `unix_stream_connect`, `unix_may_send` and, for what it carries, `file_receive`",
        &[
            "socket_accept",
            "socket_bind",
            "socket_connect",
            "socket_create",
            "socket_getpeername",
            "socket_getsockname",
            "socket_getsockopt",
            "socket_listen",
            "socket_recvmsg",
            "socket_sendmsg",
            "socket_setsockopt",
            "socket_shutdown",
            "socket_sock_rcv_skb",
            "socket_socketpair",
        ],
    ),
];

/// Each hook with the reason why it is not used, or none.
fn table() -> Vec<(&'static str, Option<&'static str>)> {
    let used = HOOKS.iter().map(|hook| (hook.name, None));
    let dismissed = DISMISSED
        .iter()
        .flat_map(|(why, hooks)| hooks.iter().map(|hook| (*hook, Some(*why))));
    let mut table: Vec<_> = used.chain(dismissed).collect();
    table.sort_unstable();
    table
}

#[test]
fn no_hook_is_listed_twice_and_none_is_lacked_that_is_not_listed() {
    let table = table();
    let names: BTreeSet<&str> = table.iter().map(|row| row.0).collect();
    assert_eq!(names.len(), table.len());
    for (kernel, lacks) in KERNELS {
        for hook in lacks {
            assert!(names.contains(hook), "{kernel}: {hook}");
            let used = HOOKS.iter().find(|used| used.name == *hook);
            assert!(used.is_none_or(|hook| hook.later), "{kernel}: {hook}");
        }
    }
}

/// `docs/hooks.md` is this table; UPDATE_EXPECT=1 writes it anew.
#[test]
fn the_page_in_docs_is_this_table() {
    let mut page = String::from(
        "# Hooks of LSM programs\n\nWhat lp-run does with each hook that the kernel's security \
         modules have for files, mappings,\nmounts and sockets. A test fails on a kernel that has \
         another one. The page is made by it.\n\n| hook |",
    );
    for (kernel, _) in KERNELS {
        let _ = write!(page, " {} |", kernel.trim_end_matches('.'));
    }
    page.push_str(" used, or why not |\n|---|");
    page.push_str(&"---|".repeat(KERNELS.len() + 1));
    for (hook, why) in table() {
        let _ = write!(page, "\n| `{hook}` |");
        for (_, lacks) in KERNELS {
            page.push_str(if lacks.contains(&hook) {
                " – |"
            } else {
                " yes |"
            });
        }
        let _ = write!(page, " {} |", why.unwrap_or("**used**"));
    }
    page.push('\n');
    // Other machines run this program without cargo, which says where the sources are.
    match std::env::var_os("UPDATE_EXPECT") {
        Some(_) => expect_file!["../../../../docs/hooks.md"].assert_eq(&page),
        None => assert_eq!(page, include_str!("../../../../docs/hooks.md")),
    }
}

#[test]
fn the_running_kernel_has_no_other_hook() {
    let btf = Btf::of_running_kernel().unwrap();
    let of_topics = |name: &String| TOPICS.iter().any(|topic| name.starts_with(topic));
    let found = btf.functions("bpf_lsm_").into_iter().filter(of_topics);
    let found: BTreeSet<String> = found.collect();
    assert!(found.contains("file_open"), "{found:?}");
    let known = |lacks: &[&str]| -> BTreeSet<String> {
        let names = table().into_iter().map(|row| row.0);
        names
            .filter(|name| !lacks.contains(name))
            .map(str::to_owned)
            .collect()
    };
    let release = nix::sys::utsname::uname().unwrap();
    let release = release.release().to_string_lossy().into_owned();
    match KERNELS.iter().find(|(start, _)| release.starts_with(start)) {
        Some((_, lacks)) => assert_eq!(found, known(lacks)),
        None => {
            let all = known(&[]);
            let other: Vec<_> = found.difference(&all).collect();
            assert!(
                other.is_empty(),
                "used for nothing, without a reason: {other:?}"
            );
        }
    }
}
