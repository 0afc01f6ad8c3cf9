// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files: reading what is not granted, changing what may only be read, and the roundabout ways.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use super::{Arm, Row, confined, refused};
use crate::needs;
use crate::support::{Jail, probe, root};

const READING: &[Row] = &[
    ("GR-01", "open-read @DIR@/secret/file", "ok", "ENOENT", "ok"),
    ("GR-02", "open-path @DIR@/secret/file", "ok", "ENOENT", "ok"),
    (
        "GR-03",
        "open-path-reopen @DIR@/secret/file",
        "ok",
        "ENOENT",
        "ok",
    ),
    ("GR-04", "read-dir @DIR@/secret", "ok", "ENOENT", "ok"),
    ("GR-05", "stat @DIR@/secret/file", "ok", "ENOENT", "ok"),
    ("GR-06", "inotify @DIR@/secret", "ok", "ENOENT", "ok"),
    ("GR-07", "chdir @DIR@/secret", "ok", "ENOENT", "ok"),
    (
        "GR-08",
        "open-read @DIR@/store/pointer",
        "ok",
        "ENOENT",
        "ok",
    ),
    ("GR-09", "open-read @DIR@/store/chain", "ok", "ENOENT", "ok"),
    (
        "GR-10",
        "open-read @DIR@/store/../secret/file",
        "ok",
        "ENOENT",
        "ok",
    ),
    (
        "GR-11",
        "open-read //@DIR@/./store//../secret/file",
        "ok",
        "ENOENT",
        "ok",
    ),
    (
        "GR-12",
        "open-read /proc/self/root/@DIR@/secret/file",
        "ok",
        "ENOENT",
        "ok",
    ),
    (
        "GR-13",
        "open-read /proc/thread-self/root/@DIR@/secret/file",
        "ok",
        "ENOENT",
        "ok",
    ),
    (
        "GR-14",
        "exec @DIR@/secret/tool open-read /dev/null",
        "ok",
        "ENOENT",
        "ok",
    ),
];

const CHANGING: &[Row] = &[
    ("GR-15", "open-write @DIR@/out/file", "ok", "EROFS", "ok"),
    ("GR-16", "open-truncate @DIR@/out/file", "ok", "EROFS", "ok"),
    ("GR-17", "truncate @DIR@/out/file", "ok", "EROFS", "ok"),
    ("GR-18", "create @DIR@/out/new", "ok", "EROFS", "ok"),
    ("GR-19", "creat @DIR@/out/file", "ok", "EROFS", "ok"),
    ("GR-20", "mkdir @DIR@/out/folder", "ok", "EROFS", "ok"),
    ("GR-21", "rmdir @DIR@/out/empty", "ok", "EROFS", "ok"),
    ("GR-22", "unlink @DIR@/out/victim", "ok", "EROFS", "ok"),
    (
        "GR-23",
        "rename @DIR@/out/first @DIR@/out/second",
        "ok",
        "EROFS",
        "ok",
    ),
    (
        "GR-24",
        "link @DIR@/out/file @DIR@/out/alias",
        "ok",
        "EROFS",
        "ok",
    ),
    (
        "GR-25",
        "symlink /etc @DIR@/out/symlink",
        "ok",
        "EROFS",
        "ok",
    ),
    ("GR-26", "mkfifo @DIR@/out/fifo", "ok", "EROFS", "ok"),
    ("GR-28", "utimes @DIR@/out/file", "ok", "EROFS", "ok"),
    ("GR-29", "chmod @DIR@/out/file", "ok", "EROFS", "ok"),
    (
        "GR-30",
        "tmpfile-link @DIR@/out @DIR@/out/appeared",
        "ok",
        "EROFS",
        "ok",
    ),
];

/// What no grant of files gives.
const NEVER: &[Row] = &[
    ("GR-31", "mknod-block @DIR@/out/block", "ok", "EACCES", ""),
    ("GR-32", "mknod-char @DIR@/out/char", "ok", "EACCES", ""),
    ("GR-33", "chown @DIR@/out/file 0", "ok", "EPERM", ""),
    ("GR-34", "fanotify", "ok", "EPERM", ""),
    (
        "GR-35",
        "open-by-handle @DIR@/store/file",
        "ok",
        "EPERM",
        "",
    ),
    (
        "GR-36",
        "open-write /proc/sys/kernel/core_pattern",
        "ok",
        "EACCES",
        "",
    ),
    ("GR-37", "open-read /proc/1/status", "ok", "ENOENT", ""),
    ("GR-38", "read-dir /sys/kernel", "ok", "ENOENT", ""),
    ("GR-39", "open-read /dev/kmsg", "ok", "ENOENT", ""),
    ("GR-40", "open-read /dev/loop-control", "ok", "ENOENT", ""),
    ("GR-41", "read-dir /sys/fs/cgroup", "ok", "ENOENT", ""),
    (
        "GR-42",
        "rename @DIR@/store/victim @DIR@/out/moved",
        "ok",
        "EXDEV",
        "",
    ),
    (
        "GR-43",
        "link @DIR@/store/file @DIR@/out/alias-of-store",
        "ok",
        "EXDEV",
        "",
    ),
];

const BASE: &str = r#"
version = 1
name = "attacks-grants"
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
    confined(
        &jail(),
        READING,
        Arm::Granted,
        &format!("{grants}read = [\"${{BASE}}\", \"@DIR@/store\"]\n"),
    );
}

#[test]
fn what_may_only_be_read_cannot_be_changed_by_any_way() {
    needs!(root(), "root");
    let read = "read = [\"${BASE}\", \"@DIR@/store\"";
    refused(CHANGING, &format!("{BASE}{read}, \"@DIR@/out\"]\n"), jail);
    confined(
        &jail(),
        CHANGING,
        Arm::Granted,
        &format!("{BASE}{read}]\nwrite = [\"@DIR@/out\"]\n"),
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
    const TOOLS: &[Row] = &[
        (
            "GR-44",
            "exec @DIR@/store/tool open-read @DIR@/store/file",
            "ok",
            "EACCES",
            "ok",
        ),
        (
            "GR-45",
            "exec /proc/self/root/@DIR@/store/tool open-read @DIR@/store/file",
            "ok",
            "EACCES",
            "ok",
        ),
        ("GR-46", "exec-fd @DIR@/store/tool", "", "EACCES", ""),
        (
            "GR-47",
            "exec @DIR@/out/tool open-read @DIR@/store/file",
            "",
            "EACCES",
            "",
        ),
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
    refused(TOOLS, &policy, prepare);
    let grants = policy.replace("\"${COMMAND}\"", "\"${COMMAND}\", \"@DIR@/store\"");
    confined(&prepare(), TOOLS, Arm::Granted, &grants);
}
