// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks on files: reaching what is not granted by every kind of name, and changing what is
//! granted for reading only. Modes are wide open, so that the sandbox alone refuses.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::{Arm, Row, bare, confined, lp_run_without};
use crate::needs;
use crate::support::{Jail, lp_run, probe, root};

const DENIED: &str = r#"
version = 1
name    = "attacks-files"
[files]
read  = ["${BASE}", "@DIR@/tree/ro"]
exec  = ["${COMMAND}"]
write = ["@DIR@/tree/rw"]
"#;

const GRANTED: &str = r#"
version = 1
name    = "attacks-files-granted"
[files]
read  = ["${BASE}"]
exec  = ["${COMMAND}"]
write = ["@DIR@/tree"]
"#;

/// Reaching a file that nothing grants.
const OUTSIDE: &[Row] = &[
    (
        "FS-01",
        "open-read @DIR@/tree/secret/key",
        "ok",
        "ENOENT",
        "ok",
    ),
    (
        "FS-01w",
        "open-write @DIR@/tree/secret/key",
        "ok",
        "ENOENT",
        "ok",
    ),
    ("FS-01d", "read-dir @DIR@/tree/secret", "ok", "ENOENT", "ok"),
    (
        "FS-03",
        "open-read @DIR@/tree/rw/leak",
        "ok",
        "ENOENT",
        "ok",
    ),
    (
        "FS-03w",
        "open-write @DIR@/tree/rw/leak",
        "ok",
        "ENOENT",
        "ok",
    ),
    (
        "FS-04",
        "open-read @DIR@/tree/rw/chain",
        "ok",
        "ENOENT",
        "ok",
    ),
    (
        "FS-05",
        "open-read /proc/self/root@DIR@/tree/secret/key",
        "ok",
        "ENOENT",
        "ok",
    ),
    (
        "FS-05t",
        "open-read /proc/thread-self/root@DIR@/tree/secret/key",
        "ok",
        "ENOENT",
        "ok",
    ),
    (
        "FS-05p",
        "open-read /proc/1/root/etc/passwd",
        "*",
        "ENOENT",
        "",
    ),
    (
        "FS-06",
        "open-read @DIR@/tree/rw/../secret/key",
        "ok",
        "ENOENT",
        "ok",
    ),
    (
        "FS-06s",
        "open-read //.@DIR@//tree/./secret//key",
        "ok",
        "ENOENT",
        "ok",
    ),
    (
        "FS-18",
        "openat2 @DIR@/tree/secret/key",
        "ok",
        "ENOSYS",
        "ENOSYS",
    ),
    ("FS-34", "stat @DIR@/tree/secret/key", "ok", "ENOENT", "ok"),
    (
        "FS-37",
        "open-path-reopen @DIR@/tree/secret/key",
        "ok",
        "ENOENT",
        "ok",
    ),
    (
        "FS-37p",
        "open-path @DIR@/tree/secret/key",
        "ok",
        "ENOENT",
        "ok",
    ),
    ("FS-38", "inotify @DIR@/tree/secret", "ok", "ENOENT", "ok"),
    (
        "FS-12",
        "rename @DIR@/tree/secret/key @DIR@/tree/rw/stolen",
        "ok",
        "ENOENT",
        "ok",
    ),
    ("FS-01s", "open-read /etc/shadow", "ok", "ENOENT", ""),
    ("FS-29", "open-read /dev/kmsg", "ok", "ENOENT", ""),
    ("FS-48", "open-path /sys/kernel", "ok", "ENOENT", ""),
    ("FS-49", "open-path /run/lp-run/objects", "", "ENOENT", ""),
    ("FS-49s", "open-path /sys/fs/cgroup", "ok", "ENOENT", ""),
    ("FS-55", "open-read /proc/1/environ", "*", "ENOENT", ""),
    ("FS-55m", "open-read /proc/1/mem", "*", "ENOENT", ""),
];

/// Changing what is granted for reading only.
const READ_ONLY: &[Row] = &[
    (
        "FS-02",
        "open-write @DIR@/tree/ro/file",
        "ok",
        "EROFS",
        "ok",
    ),
    ("FS-02c", "create @DIR@/tree/ro/new", "ok", "EROFS", "ok"),
    ("FS-02m", "mkdir @DIR@/tree/ro/newdir", "ok", "EROFS", "ok"),
    ("FS-02u", "unlink @DIR@/tree/ro/victim", "ok", "EROFS", "ok"),
    ("FS-02r", "rmdir @DIR@/tree/ro/empty", "ok", "EROFS", "ok"),
    (
        "FS-02s",
        "symlink target @DIR@/tree/ro/pointer",
        "ok",
        "EROFS",
        "ok",
    ),
    (
        "FS-10",
        "link @DIR@/tree/ro/file @DIR@/tree/rw/alias",
        "ok",
        "EXDEV",
        "ok",
    ),
    (
        "FS-12r",
        "rename @DIR@/tree/ro/one @DIR@/tree/rw/one",
        "ok",
        "EXDEV",
        "ok",
    ),
    (
        "FS-15",
        "rename @DIR@/tree/rw/mine @DIR@/tree/ro/two",
        "ok",
        "EXDEV",
        "ok",
    ),
    ("FS-16", "truncate @DIR@/tree/ro/file", "ok", "EROFS", "ok"),
    (
        "FS-16o",
        "open-truncate @DIR@/tree/ro/file",
        "ok",
        "EROFS",
        "ok",
    ),
    ("FS-17", "creat @DIR@/tree/ro/file", "ok", "EROFS", "ok"),
    ("FS-33", "mkfifo @DIR@/tree/ro/fifo", "ok", "EROFS", "ok"),
    ("FS-35", "chmod @DIR@/tree/ro/file", "ok", "EROFS", ""),
    (
        "FS-35o",
        "chown @DIR@/tree/ro/file 12345",
        "ok",
        "EROFS",
        "",
    ),
    ("FS-35t", "utimes @DIR@/tree/ro/two", "ok", "EROFS", "ok"),
    (
        "FS-57",
        "tmpfile-link @DIR@/tree/ro @DIR@/tree/ro/unnamed",
        "ok",
        "EROFS",
        "ok",
    ),
    (
        "FS-48w",
        "open-write /proc/sys/kernel/core_pattern",
        "ok",
        "EACCES",
        "",
    ),
];

/// What no policy of this kind grants, in a place where the agent may write.
const PRIVILEGED: &[Row] = &[
    (
        "FS-28",
        "mknod-block @DIR@/tree/rw/disk",
        "ok",
        "EACCES",
        "EACCES",
    ),
    (
        "FS-28c",
        "mknod-char @DIR@/tree/rw/memory",
        "ok",
        "EACCES",
        "EACCES",
    ),
    ("FS-39", "fanotify", "ok", "EPERM", "EPERM"),
    (
        "FS-40",
        "open-by-handle @DIR@/tree/rw/mine2",
        "ok",
        "EPERM",
        "EPERM",
    ),
    ("FS-41", "mount-tmpfs @DIR@/tree/rw", "ok", "EPERM", "EPERM"),
    (
        "FS-41b",
        "mount-bind @DIR@/tree/rw @DIR@/tree/ro",
        "ok",
        "EPERM",
        "EPERM",
    ),
    ("FS-41r", "remount-rw @DIR@/tree/ro", "*", "EPERM", "EPERM"),
    ("FS-42", "umount @DIR@/tree/ro", "ok", "EPERM", "EPERM"),
    ("FS-42c", "chroot @DIR@/tree/rw", "ok", "EPERM", "EPERM"),
    ("FS-42f", "fsopen tmpfs", "ok", "EPERM", "EPERM"),
    ("FS-42t", "open-tree @DIR@/tree/rw", "ok", "EPERM", "EPERM"),
    // Last: it leaves the acts after it in another root.
    (
        "FS-42p",
        "pivot-root @DIR@/tree/rw @DIR@/tree/rw",
        "*",
        "EPERM",
        "EPERM",
    ),
];

/// What leaves a file as it is, and what any program does with a descriptor.
const HARMLESS: &[Row] = &[
    (
        "FS-47",
        "write-own-memory @DIR@/tree/ro/file",
        "ok",
        "EROFS",
        "EROFS",
    ),
    // FIOCLEX, FIONCLEX, FIONBIO, FIOASYNC, FIONREAD.
    ("FS-31", "ioctl @DIR@/tree/ro/file 0x5451", "ok", "ok", "ok"),
    (
        "FS-31n",
        "ioctl @DIR@/tree/ro/file 0x5450",
        "ok",
        "ok",
        "ok",
    ),
    (
        "FS-31b",
        "ioctl @DIR@/tree/ro/file 0x5421",
        "ok",
        "ok",
        "ok",
    ),
    (
        "FS-31a",
        "ioctl @DIR@/tree/ro/file 0x5452",
        "ok",
        "ok",
        "ok",
    ),
    (
        "FS-31r",
        "ioctl @DIR@/tree/ro/file 0x541b",
        "ok",
        "ok",
        "ok",
    ),
    ("FS-31d", "ioctl /dev/null 0x5421", "ok", "ok", "ok"),
];

/// The same with the host's tree in view: what is not granted is there and refused.
const HOST_VIEW: &[Row] = &[
    (
        "FS-01",
        "open-read @DIR@/tree/secret/key",
        "ok",
        "EACCES",
        "",
    ),
    ("FS-01d", "read-dir @DIR@/tree/secret", "ok", "EACCES", ""),
    ("FS-03", "open-read @DIR@/tree/rw/leak", "ok", "EACCES", ""),
    ("FS-04", "open-read @DIR@/tree/rw/chain", "ok", "EACCES", ""),
    (
        "FS-05",
        "open-read /proc/self/root@DIR@/tree/secret/key",
        "ok",
        "EACCES",
        "",
    ),
    (
        "FS-06",
        "open-read @DIR@/tree/rw/../secret/key",
        "ok",
        "EACCES",
        "",
    ),
    (
        "FS-37",
        "open-path-reopen @DIR@/tree/secret/key",
        "ok",
        "EACCES",
        "",
    ),
    ("FS-34", "stat @DIR@/tree/secret/key", "ok", "ok", ""),
    ("FS-02", "open-write @DIR@/tree/ro/file", "ok", "EROFS", ""),
    ("FS-02c", "create @DIR@/tree/secret/new", "ok", "EROFS", ""),
    ("FS-35", "chmod @DIR@/tree/secret/key", "ok", "EROFS", ""),
    ("FS-02w", "create @DIR@/tree/rw/own", "ok", "ok", ""),
];

/// Puts the tree in order before an arm.
fn tree(jail: &Jail) {
    let tree = jail.path().join("tree");
    let _ = fs::remove_dir_all(&tree);
    for folder in ["tree", "tree/ro", "tree/ro/empty", "tree/rw", "tree/secret"] {
        open(&jail.folder(folder));
    }
    for file in [
        "ro/file",
        "ro/victim",
        "ro/one",
        "ro/two",
        "rw/mine",
        "rw/mine2",
        "secret/key",
    ] {
        open(&jail.file(&format!("tree/{file}"), "content"));
    }
    let link = |from: &str, to: &Path| symlink(to, tree.join(from)).expect("make a link");
    link("rw/leak", &tree.join("secret/key"));
    link("rw/chain", Path::new("link2"));
    link("rw/link2", Path::new("./link3"));
    link("rw/link3", &tree.join("secret/key"));
}

fn open(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("set the mode");
}

fn three(rows: &[Row]) -> (Jail, crate::support::Outcome) {
    let jail = Jail::shared();
    tree(&jail);
    bare(&jail, rows);
    tree(&jail);
    let denied = confined(&jail, rows, Arm::Denied, DENIED);
    tree(&jail);
    confined(&jail, rows, Arm::Granted, GRANTED);
    (jail, denied)
}

#[test]
fn what_is_not_granted_does_not_exist_under_any_name() {
    needs!(root(), "root");
    let (_jail, denied) = three(OUTSIDE);
    // The agent saw nothing; the operator sees the attempts.
    let hidden = denied.denials("/etc/shadow");
    assert_eq!(hidden.len(), 1, "{denied:?}");
    assert_eq!(hidden[0]["hidden"], true);
    assert_eq!(hidden[0]["errno"], "ENOENT");
    assert_eq!(hidden[0]["count"], 1);
    assert!(!denied.denials("/tree/secret/key").is_empty(), "{denied:?}");
}

#[test]
fn what_is_granted_for_reading_cannot_be_changed() {
    needs!(root(), "root");
    let (jail, _) = three(READ_ONLY);
    assert!(jail.path().join("tree/ro").is_dir());
}

#[test]
fn nothing_makes_devices_mounts_or_handles() {
    needs!(root(), "root");
    three(PRIVILEGED);
}

#[test]
fn a_mapping_changes_no_file_and_ordinary_ioctls_work() {
    needs!(root(), "root");
    three(HARMLESS);
}

/// FS-32: nobody writes to the pipe, and lp-run looks at it without waiting.
#[test]
fn a_grant_on_a_pipe_is_refused_at_once() {
    needs!(root(), "root");
    let jail = Jail::shared();
    tree(&jail);
    let pipe = jail.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("make a pipe");
    let policy = DENIED.replace("@DIR@/tree/ro", "@DIR@/pipe");
    let outcome = jail.run(&policy, &probe(["open-read", "/dev/null"]));
    assert_eq!((outcome.code(), outcome.answer()), (122, ""), "{outcome:?}");
    assert!(outcome.said().contains("neither file nor directory"));
}

#[test]
fn in_the_hosts_view_the_landlock_domain_refuses() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let policy = format!(
        "{DENIED}[identity]\nview = \"host\"\n[enforcement]\ndegrade = [\"unix-sockets\"]\n"
    );
    tree(&jail);
    bare(&jail, HOST_VIEW);
    tree(&jail);
    confined(&jail, HOST_VIEW, Arm::Denied, &policy);
    // The proof that the layer does it: a kernel without Landlock refuses the run, and where
    // that is accepted, the file is read.
    let read = probe([
        "open-read",
        &format!("{}/tree/secret/key", jail.path().display()),
    ]);
    let without = || lp_run_without(&[libc::SYS_landlock_create_ruleset]);
    let refused = jail.run_as(without(), &policy, &[], &read);
    assert_eq!((refused.code(), refused.answer()), (123, ""), "{refused:?}");
    let degraded = ["--allow-degraded", "landlock"];
    let open = jail.run_as(without(), &policy, &degraded, &read);
    assert_eq!(open.answer(), "ok", "{open:?}");
}

#[test]
fn places_of_the_runs_own_are_not_the_hosts() {
    needs!(root(), "root");
    let jail = Jail::shared();
    tree(&jail);
    let name = jail
        .path()
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let places = ["/tmp", "/var/tmp", "/dev/shm"].map(|place| format!("{place}/{name}"));
    let [one, two, three] = &places;
    let command = probe([
        "each", "create", one, "--", "create", two, "--", "create", three,
    ]);
    assert_eq!(jail.run(DENIED, &command).stdout, "ok\nok\nok\n");
    for place in &places {
        assert!(!Path::new(place).exists(), "{place} is on the host");
    }
    assert_eq!(jail.bare(&probe(["create", two])).answer(), "ok");
    fs::remove_file(two).expect("the bare arm made it");
}

#[test]
fn descriptors_that_the_caller_left_open_are_gone() {
    needs!(root(), "root");
    let jail = Jail::shared();
    tree(&jail);
    let leak = "exec 7<tree/secret/key 8</ 9<>tree/rw/mine; exec \"$@\"";
    let through = || {
        let mut shell = Command::new("sh");
        shell.args(["-c", leak, "sh", env!("CARGO_BIN_EXE_lp-run")]);
        shell
    };
    let command = probe([
        "each",
        "fd",
        "7",
        "--",
        "fd",
        "8",
        "--",
        "dup",
        "9",
        "--",
        "descriptors",
    ]);
    let mut bare: Vec<String> = ["sh", "-c", leak, "sh"].map(str::to_owned).to_vec();
    bare.extend(command.clone());
    assert_eq!(jail.bare(&bare).stdout, "ok\nok\nok\nEEXIST\n");
    let closed = jail.run_as(through(), DENIED, &[], &command);
    assert_eq!(closed.stdout, "EBADF\nEBADF\nEBADF\nok\n", "{closed:?}");
    let kept = jail.run_as(through(), DENIED, &["--keep-fd", "7"], &command);
    assert_eq!(kept.stdout, "ok\nEBADF\nEBADF\nEEXIST\n", "{kept:?}");
}

#[test]
fn opens_are_counted_exactly_and_why_agrees_with_the_kernel() {
    needs!(root(), "root");
    let jail = Jail::shared();
    tree(&jail);
    let rows: Vec<Row> = (0..40)
        .map(|_| ("count", "open-read @DIR@/tree/ro/file", "", "ok", ""))
        .chain((0..7).map(|_| ("count", "open-read /etc/shadow", "", "ENOENT", "")))
        .collect();
    let outcome = confined(&jail, &rows, Arm::Denied, DENIED);
    assert_eq!(outcome.rule("files.read[1]")["allowed"], 40, "{outcome:?}");
    assert_eq!(outcome.rule("files.write[0]")["allowed"], 0);
    let denials = outcome.denials("/etc/shadow");
    assert_eq!(
        (denials.len(), &denials[0]["count"]),
        (1, &7.into()),
        "{outcome:?}"
    );
    let policy = jail.path().join("policy.toml");
    let policy = policy.to_str().expect("UTF-8");
    for (way, path, code) in [
        ("--read", "tree/ro/file", 0),
        ("--write", "tree/ro/file", 1),
        ("--write", "tree/rw/mine", 0),
        ("--read", "tree/secret/key", 1),
    ] {
        let path = jail.path().join(path);
        let path = path.to_str().expect("UTF-8");
        let why = lp_run(jail.path(), &["why", "--policy", policy, way, path]);
        assert_eq!(why.code(), code, "{way} {path}: {why:?}");
    }
}

#[test]
fn the_operators_log_on_stdout_cannot_be_opened_again() {
    needs!(root(), "root");
    let jail = Jail::shared();
    tree(&jail);
    let log = jail.path().join("log");
    let empty = |content: &str| {
        fs::write(&log, content).expect("write the log");
        open(&log);
    };
    let append = ["sh", "-c", "exec \"$@\" >>log", "sh"];
    for (act, path) in [
        ("open-truncate", "/proc/self/fd/1"),
        ("open-truncate", "/dev/stdout"),
    ] {
        let command = probe([act, path]);
        empty("before\n");
        let mut bare: Vec<String> = append.map(str::to_owned).to_vec();
        bare.extend(command.clone());
        jail.bare(&bare);
        assert_eq!(fs::read_to_string(&log).expect("the log"), "ok\n");
        empty("before\n");
        let mut through = Command::new(append[0]);
        through.args(&append[1..]).arg(env!("CARGO_BIN_EXE_lp-run"));
        let denied = jail.run_as(through, DENIED, &[], &command);
        let kept = fs::read_to_string(&log).expect("the log");
        assert_eq!(kept, "before\nEACCES\n", "{path}: {denied:?}");
    }
}

#[test]
fn a_socket_is_not_handed_on() {
    needs!(root(), "root");
    let jail = Jail::shared();
    tree(&jail);
    let script = "import os, socket, sys\n\
                  pair = socket.socketpair()\n\
                  os.dup2(pair[0].fileno(), 7)\n\
                  os.execv(sys.argv[1], sys.argv[1:])\n";
    let mut through = Command::new("python3");
    through.args(["-c", script, env!("CARGO_BIN_EXE_lp-run")]);
    let command = probe(["fd", "7"]);
    let refused = jail.run_as(through, DENIED, &["--keep-fd", "7"], &command);
    assert_eq!((refused.code(), refused.answer()), (125, ""), "{refused:?}");
    assert!(refused.stderr.contains("socket"), "{refused:?}");
}

#[test]
fn a_link_that_changes_while_it_is_opened_never_leads_outside() {
    needs!(root(), "root");
    let rows: &[Row] = &[(
        "FS-54",
        "read-flipping @DIR@/tree/rw/flip @DIR@/tree/ro/file @DIR@/tree/secret/key 20000",
        "EUCLEAN",
        "ok",
        "EUCLEAN",
    )];
    let jail = Jail::shared();
    let prepare = || {
        tree(&jail);
        open(&jail.file("tree/secret/key", "secret"));
    };
    prepare();
    bare(&jail, rows);
    prepare();
    confined(&jail, rows, Arm::Denied, DENIED);
    prepare();
    confined(&jail, rows, Arm::Granted, GRANTED);
}
