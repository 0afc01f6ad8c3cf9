// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files: reading what is not granted, changing what may only be read, and the roundabout ways.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use super::{Attempt, granted, refused, works};
use crate::needs;
use crate::support::{Jail, probe, root};

const READING: &[Attempt] = &[
    works("open-read @DIR@/secret/file", "ENOENT"),
    works("open-path @DIR@/secret/file", "ENOENT"),
    works("open-path-reopen @DIR@/secret/file", "ENOENT"),
    works("read-dir @DIR@/secret", "ENOENT"),
    works("stat @DIR@/secret/file", "ENOENT"),
    works("inotify @DIR@/secret", "ENOENT"),
    works("chdir @DIR@/secret", "ENOENT"),
    works("open-read @DIR@/store/pointer", "ENOENT"),
    works("open-read @DIR@/store/chain", "ENOENT"),
    works("open-read @DIR@/store/../secret/file", "ENOENT"),
    works("open-read //@DIR@/./store//../secret/file", "ENOENT"),
    works("open-read /proc/self/root/@DIR@/secret/file", "ENOENT"),
    works(
        "open-read /proc/thread-self/root/@DIR@/secret/file",
        "ENOENT",
    ),
    works("exec @DIR@/secret/tool open-read /dev/null", "ENOENT"),
];

const CHANGING: &[Attempt] = &[
    works("open-write @DIR@/out/file", "EROFS"),
    works("open-truncate @DIR@/out/file", "EROFS"),
    works("truncate @DIR@/out/file", "EROFS"),
    works("create @DIR@/out/new", "EROFS"),
    works("creat @DIR@/out/file", "EROFS"),
    works("mkdir @DIR@/out/folder", "EROFS"),
    works("rmdir @DIR@/out/empty", "EROFS"),
    works("unlink @DIR@/out/victim", "EROFS"),
    works("rename @DIR@/out/first @DIR@/out/second", "EROFS"),
    works("link @DIR@/out/file @DIR@/out/alias", "EROFS"),
    works("symlink /etc @DIR@/out/symlink", "EROFS"),
    works("mkfifo @DIR@/out/fifo", "EROFS"),
    works("unix-bind @DIR@/out/socket", "EROFS"),
    works("utimes @DIR@/out/file", "EROFS"),
    works("chmod @DIR@/out/file", "EROFS"),
    works("tmpfile-link @DIR@/out @DIR@/out/appeared", "EROFS"),
];

/// What no grant of files gives.
const NEVER: &[Attempt] = &[
    works("mknod-block @DIR@/out/block", "EACCES"),
    works("mknod-char @DIR@/out/char", "EACCES"),
    works("chown @DIR@/out/file 0", "EPERM"),
    works("fanotify", "EPERM"),
    works("open-by-handle @DIR@/store/file", "EPERM"),
    works("open-write /proc/sys/kernel/core_pattern", "EACCES"),
    works("open-read /proc/1/status", "ENOENT"),
    works("read-dir /sys/kernel", "ENOENT"),
    works("open-read /dev/kmsg", "ENOENT"),
    works("open-read /dev/loop-control", "ENOENT"),
    works("read-dir /sys/fs/cgroup", "ENOENT"),
    works("rename @DIR@/store/victim @DIR@/out/moved", "EXDEV"),
    works("link @DIR@/store/file @DIR@/out/alias-of-store", "EXDEV"),
];

const BASE: &str = r#"
version = 1
name = "attacks"
[files]
exec = ["${COMMAND}"]
"#;

fn jail() -> Jail {
    let jail = Jail::new();
    for folder in ["store", "out", "out/empty", "secret"] {
        let folder = jail.folder(folder);
        fs::set_permissions(folder, Permissions::from_mode(0o777)).expect("open the folder");
    }
    for name in [
        "store/file",
        "store/victim",
        "out/file",
        "out/victim",
        "out/first",
        "secret/file",
    ] {
        let file = jail.file(name, "content");
        // Permissions alone would let everybody write: what refuses is the sandbox.
        fs::set_permissions(file, Permissions::from_mode(0o666)).expect("open the file");
    }
    let secret = jail.path().join("secret");
    symlink(secret.join("file"), jail.path().join("store/pointer")).expect("symlink");
    symlink("hop", jail.path().join("store/chain")).expect("symlink");
    symlink("../store/pointer", jail.path().join("store/hop")).expect("symlink");
    for tool in ["secret/tool", "store/tool", "out/tool"] {
        fs::copy(&probe([])[0], jail.path().join(tool)).expect("copy the probe");
    }
    jail
}

#[test]
fn what_is_not_granted_cannot_be_read_by_any_way() {
    needs!(root(), "root");
    let denied = format!("{BASE}read = [\"${{BASE}}\", \"@DIR@/store\", \"@DIR@/out\"]\n");
    let grants = BASE.replace("\"${COMMAND}\"", "\"${COMMAND}\", \"@DIR@/secret\"");
    refused(READING, &denied, jail);
    granted(
        READING,
        &format!("{grants}read = [\"${{BASE}}\", \"@DIR@/store\"]\n"),
        jail,
    );
}

#[test]
fn what_may_only_be_read_cannot_be_changed_by_any_way() {
    needs!(root(), "root");
    let read = "read = [\"${BASE}\", \"@DIR@/store\"";
    refused(CHANGING, &format!("{BASE}{read}, \"@DIR@/out\"]\n"), jail);
    granted(
        CHANGING,
        &format!("{BASE}{read}]\nwrite = [\"@DIR@/out\"]\n"),
        jail,
    );
}

#[test]
fn no_grant_of_files_gives_devices_the_kernel_or_another_grant() {
    needs!(root(), "root");
    let policy =
        format!("{BASE}read = [\"${{BASE}}\", \"@DIR@/store\"]\nwrite = [\"@DIR@/out\"]\n");
    refused(NEVER, &policy, jail);
}

#[test]
fn only_what_exec_names_is_executed() {
    needs!(root(), "root");
    const TOOLS: &[Attempt] = &[
        works("exec @DIR@/store/tool open-read @DIR@/store/file", "EACCES"),
        works(
            "exec /proc/self/root/@DIR@/store/tool open-read @DIR@/store/file",
            "EACCES",
        ),
        works("exec-fd @DIR@/store/tool", "EACCES"),
        works("exec @DIR@/out/tool open-read @DIR@/store/file", "EACCES"),
    ];
    let policy =
        format!("{BASE}read = [\"${{BASE}}\", \"@DIR@/store\"]\nwrite = [\"@DIR@/out\"]\n");
    let executable = jail;
    let prepare = || {
        let jail = executable();
        for tool in ["store/tool", "out/tool"] {
            let tool = jail.path().join(tool);
            fs::set_permissions(tool, Permissions::from_mode(0o755)).expect("make it a program");
        }
        jail
    };
    let direct = &TOOLS[..2];
    refused(direct, &policy, prepare);
    let grants = policy.replace("\"${COMMAND}\"", "\"${COMMAND}\", \"@DIR@/store\"");
    granted(direct, &grants, prepare);
    let jail = prepare();
    let answers = super::run(&jail, &policy, &super::words(&jail, TOOLS));
    assert_eq!(answers, "EACCES\nEACCES\nEACCES\nEACCES\n");
}
