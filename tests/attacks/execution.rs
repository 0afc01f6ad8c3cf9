// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks on execution: running what no `exec` grant names, by every way to start a program,
//! and letting the caller's environment choose code.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Arm, Row, bare, confined, lp_run_without};
use crate::needs;
use crate::support::{Jail, probe, root};

const DENIED: &str = r#"
version = 1
name    = "attacks-execution"
[files]
read  = ["${BASE}", "@DIR@/tree/ro"]
exec  = ["${COMMAND}"]
write = ["@DIR@/tree/rw"]
"#;

const GRANTED: &str = r#"
version = 1
name    = "attacks-execution-granted"
[files]
read  = ["${BASE}"]
exec  = ["${COMMAND}", "@DIR@/tree/ro"]
write = [{ path = "@DIR@/tree/rw", exec = true }]
"#;

const EXECUTION: &[Row] = &[
    ("EX-01", "exec @DIR@/tree/ro/tool", "ok", "EACCES", "ok"),
    ("EX-01f", "exec-fd @DIR@/tree/ro/tool", "ok", "EACCES", "ok"),
    ("EX-02", "exec @DIR@/tree/rw/tool", "ok", "EACCES", "ok"),
    ("EX-09", "exec @DIR@/tree/rw/alias", "ok", "EACCES", "ok"),
    (
        "EX-09p",
        "exec /proc/self/root@DIR@/tree/ro/tool",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "EX-09d",
        "exec @DIR@/tree/rw/../ro/tool",
        "ok",
        "EACCES",
        "ok",
    ),
    ("EX-09h", "exec /usr/bin/env true", "ok", "ENOENT", ""),
    // The loader's own exit status, 127: it could not map the file.
    (
        "EX-10",
        "exec /lib64/ld-linux-x86-64.so.2 @DIR@/tree/rw/tool",
        "ok",
        "EKEYEXPIRED",
        "ok",
    ),
    ("EX-16", "map-exec @DIR@/tree/rw/tool", "ok", "EPERM", "ok"),
    ("EX-16r", "map-exec @DIR@/tree/ro/tool", "ok", "ok", "ok"),
];

/// Flags of `memfd_create`: 2 sealing allowed, 4 huge pages, 8 not executable, 16 executable.
/// Where the kernel has `vm.memfd_noexec`.
const IN_MEMORY: &[Row] = &[
    (
        "EX-04",
        "exec-memfd @DIR@/tree/ro/tool 0",
        "ok",
        "EACCES",
        "EACCES",
    ),
    (
        "EX-04s",
        "exec-memfd @DIR@/tree/ro/tool 2",
        "ok",
        "EACCES",
        "EACCES",
    ),
    (
        "EX-04x",
        "exec-memfd @DIR@/tree/ro/tool 16",
        "ok",
        "EPERM",
        "EPERM",
    ),
    (
        "EX-04n",
        "exec-memfd @DIR@/tree/ro/tool 8",
        "EACCES",
        "EACCES",
        "EACCES",
    ),
    (
        "EX-04p",
        "exec-memfd-path @DIR@/tree/ro/tool 0",
        "ok",
        "EACCES",
        "EACCES",
    ),
    ("EX-04c", "memfd-chmod 0", "ok", "EPERM", "EPERM"),
    ("EX-04cs", "memfd-chmod 2", "ok", "EPERM", "EPERM"),
    // A file of huge pages, where the kernel has them, would take the bit back.
    ("EX-04h", "memfd-chmod 4", "*", "EPERM", "EPERM"),
    ("EX-04hs", "memfd-chmod 12", "*", "EPERM", "EPERM"),
    // What is mapped and not executed is left to compilers at run time.
    (
        "EX-04m",
        "map-exec-memfd @DIR@/tree/ro/tool 0",
        "ok",
        "ok",
        "ok",
    ),
];

/// Where it has not.
const NOT_IN_MEMORY: &[Row] = &[
    (
        "EX-04",
        "exec-memfd @DIR@/tree/ro/tool 0",
        "ok",
        "ENOSYS",
        "ENOSYS",
    ),
    (
        "EX-04s",
        "exec-memfd @DIR@/tree/ro/tool 2",
        "ok",
        "ENOSYS",
        "ENOSYS",
    ),
    (
        "EX-04x",
        "exec-memfd @DIR@/tree/ro/tool 16",
        "*",
        "ENOSYS",
        "ENOSYS",
    ),
];

/// A file without a name, and a pipe.
const UNNAMED: &[Row] = &[
    (
        "EX-05",
        "exec-unnamed @DIR@/tree/ro/tool /tmp",
        "ok",
        "EACCES",
        "EACCES",
    ),
    (
        "EX-05s",
        "exec-unnamed @DIR@/tree/ro/tool /dev/shm",
        "*",
        "EACCES",
        "EACCES",
    ),
    (
        "EX-05w",
        "exec-unnamed @DIR@/tree/ro/tool @DIR@/tree/rw",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "EX-05p",
        "exec-pipe @DIR@/tree/ro/tool",
        "EACCES",
        "EACCES",
        "EACCES",
    ),
];

/// Whether the kernel can make files in memory not executable.
fn has_setting() -> bool {
    Path::new("/proc/sys/vm/memfd_noexec").exists()
}

/// A program in a readable and in a writable place, and links to it.
fn tree() -> Jail {
    let jail = Jail::shared();
    for place in ["tree/ro/tool", "tree/rw/tool"] {
        let tool = jail.file(place, "");
        fs::copy("/bin/true", tool).expect("copy a program");
    }
    let alias = jail.path().join("tree/rw/alias");
    std::os::unix::fs::symlink(jail.path().join("tree/ro/tool"), alias).expect("make a link");
    jail
}

#[test]
fn what_has_no_exec_grant_does_not_run_by_any_name() {
    needs!(root(), "root");
    let jail = tree();
    bare(&jail, EXECUTION);
    let denied = confined(&jail, EXECUTION, Arm::Denied, DENIED);
    let tool = denied.denials("/tree/ro/tool");
    assert!(tool.iter().all(|row| row["kind"] == "exec"), "{denied:?}");
    assert!(!tool.is_empty(), "{denied:?}");
    confined(&jail, EXECUTION, Arm::Granted, GRANTED);
}

#[test]
fn an_allowed_tool_starts_nothing_that_is_not_allowed() {
    needs!(root(), "root");
    let jail = tree();
    let script = "T=$1; for w in 'env T' 'sh -c T' 'find T -maxdepth 0 -exec T ;' 'xargs T' 'nice T'; do \
                  eval \"$(echo \"$w\" | sed \"s|T|$T|g; s|;|';'|\")\" </dev/null >/dev/null 2>&1; echo $?; done";
    let tool = jail.path().join("tree/ro/tool");
    let tool = tool.to_str().expect("UTF-8");
    let command = ["sh", "-c", script, "sh", tool];
    assert_eq!(jail.bare(&command).stdout, "0\n0\n0\n0\n0\n");
    let shell = |grant: &str| {
        format!(
            "version = 1\nname = \"attacks-tools\"\nextends = [\"@shell\"]\n[files]\n{grant} = [\"{}\"]\n",
            jail.path().join("tree/ro").display()
        )
    };
    let denied = jail.run(&shell("read"), &command);
    assert_eq!(denied.stdout, "126\n126\n0\n126\n126\n", "{denied:?}");
    let ran = denied.denials("/tree/ro/tool");
    assert_eq!((ran.len(), &ran[0]["count"]), (1, &5.into()), "{denied:?}");
    let granted = jail.run(&shell("exec"), &command);
    assert_eq!(granted.stdout, "0\n0\n0\n0\n0\n", "{granted:?}");
    assert_eq!(granted.rule("files.exec[0]")["allowed"], 5, "{granted:?}");
}

#[test]
fn a_program_that_stands_in_no_granted_file_does_not_run() {
    needs!(root(), "root");
    let jail = tree();
    let memory = if has_setting() {
        IN_MEMORY
    } else {
        NOT_IN_MEMORY
    };
    let rows = [memory, UNNAMED].concat();
    bare(&jail, &rows);
    confined(&jail, &rows, Arm::Denied, DENIED);
    // Exec of all that is written is no grant of code in memory.
    confined(&jail, &rows, Arm::Granted, GRANTED);
    // Secret memory is nowhere executable, and on many machines it is switched off.
    let secret = jail.run(DENIED, &probe(["exec-memfd-secret"]));
    assert!(
        ["EACCES", "ENOSYS"].contains(&secret.answer()),
        "{secret:?}"
    );
    let strict = format!("{DENIED}[syscalls]\nprofile = \"strict\"\n");
    let command = probe(["memfd-chmod", "0"]);
    assert_eq!(jail.run(&strict, &command).answer(), "EPERM");
}

#[test]
fn without_the_setting_there_are_no_files_in_memory() {
    needs!(root(), "root");
    let jail = tree();
    let tool = jail.path().join("tree/ro/tool");
    let execute = probe(["exec-memfd", &tool.to_string_lossy(), "0"]);
    let asked = probe(["exec-memfd", &tool.to_string_lossy(), "16"]);
    // In a mount namespace where the setting cannot be written, as in many containers.
    let lp_run = || {
        let script = "mount --make-rprivate / && mount --bind /proc/sys /proc/sys && \
                      mount -o remount,bind,ro /proc/sys && exec \"$@\"";
        let mut lp_run = Command::new("unshare");
        lp_run.args(["--mount", "--", "sh", "-c", script, "sh"]);
        lp_run.arg(env!("CARGO_BIN_EXE_lp-run"));
        lp_run
    };
    for command in [&execute, &asked] {
        let refused = jail.run_as(lp_run(), DENIED, &[], command);
        assert_eq!(refused.answer(), "ENOSYS", "{refused:?}");
    }
    needs!(has_setting(), "vm.memfd_noexec");
    // The layers one by one: without the filter the setting holds what does not ask for more.
    let unfiltered = |command: &[String]| {
        let options = [
            "--allow-degraded",
            "seccomp",
            "--allow-degraded",
            "unix-sockets",
        ];
        jail.run_as(
            lp_run_without(&[libc::SYS_seccomp]),
            DENIED,
            &options,
            command,
        )
    };
    assert_eq!(unfiltered(&execute).answer(), "EACCES");
    let ran = unfiltered(&asked);
    assert_eq!((ran.code(), ran.answer()), (0, ""), "{ran:?}");
}

#[test]
fn the_callers_environment_chooses_no_code_and_hands_over_no_secret() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let names = [
        "LD_AUDIT",
        "LD_LIBRARY_PATH",
        "GCONV_PATH",
        "NODE_OPTIONS",
        "PYTHONSTARTUP",
        "PERL5OPT",
        "GIT_SSH_COMMAND",
        "BASH_ENV",
        "ENV",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "SSH_AUTH_SOCK",
        "DBUS_SESSION_BUS_ADDRESS",
        "XDG_RUNTIME_DIR",
        "LPRUN_DISABLE",
    ];
    let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
    lp_run.envs(names.map(|name| (name, "/nowhere/leaked")));
    lp_run.env("PASSED", "through");
    let policy = "version = 1\nname = \"attacks-env\"\n[env]\npass = [\"PASSED\"]\n\
                  [files]\nread = [\"${BASE}\"]\nexec = [\"${COMMAND}\"]\n";
    let outcome = jail.run_as(lp_run, policy, &[], &["/usr/bin/env"]);
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    assert!(!outcome.stdout.contains("leaked"), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("PASSED=through"),
        "{}",
        outcome.stdout
    );
    let own = jail.run(policy, &["/usr/bin/env"]);
    let names = |text: &str| -> Vec<String> {
        let name = |line: &str| line.split('=').next().map(str::to_owned);
        text.lines()
            .filter_map(name)
            .filter(|name| name != "PASSED")
            .collect()
    };
    assert_eq!(names(&outcome.stdout), names(&own.stdout));
}

/// SV-22: what cannot be executed is not executed by something else.
#[test]
fn a_program_that_does_not_start_is_126_and_nothing_runs_in_its_place() {
    needs!(root(), "root");
    let jail = tree();
    let tool = jail.path().join("tree/ro/tool");
    let name = tool.to_string_lossy().into_owned();
    assert_eq!(jail.run(GRANTED, &[&name]).code(), 0);
    // ENOEXEC: a shell would take this for a script of its own.
    fs::write(&tool, "echo it ran\n").expect("change it");
    let script = jail.run(GRANTED, &[&name]);
    assert_eq!((script.code(), script.answer()), (126, ""), "{script:?}");
    assert_eq!(jail.bare(&["sh", "-c", &name]).answer(), "it ran");
    // ETXTBSY.
    fs::copy("/bin/true", &tool).expect("copy a program");
    let writer = fs::OpenOptions::new().append(true).open(&tool);
    let writer = writer.expect("open it for writing");
    let busy = jail.run(GRANTED, &[&name]);
    assert_eq!((busy.code(), busy.answer()), (126, ""), "{busy:?}");
    drop(writer);
    assert_eq!(jail.run(GRANTED, &[&name]).code(), 0);
}

/// EX-21: lp-run inside a run, with a policy that grants more.
#[test]
fn a_run_inside_a_run_has_nothing_that_the_outer_one_has_not() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let secret = jail.file("secret/key", "precious");
    let folder = jail.path().display().to_string();
    let inner = format!(
        "version = 1\nname = \"inner\"\nextends = [\"@shell\"]\n[identity]\nuser = \"caller\"\n\
         [files]\nread = [\"{folder}/secret\"]\n"
    );
    jail.file(
        "open/inner.toml",
        inner.replace("user = \"caller\"", "user = \"dynamic\""),
    );
    let lp_run = env!("CARGO_BIN_EXE_lp-run");
    let outer = format!(
        "version = 1\nname = \"outer\"\nextends = [\"@shell\"]\n[files]\nread = [\"{folder}/open\"]\n\
         exec = [\"{lp_run}\"]\n"
    );
    let policy = format!("{folder}/open/inner.toml");
    let secret = secret.to_string_lossy().into_owned();
    let command = [lp_run, "--policy", &policy, "--", "cat", &secret];
    assert_eq!(jail.bare(&command).answer(), "precious");
    jail.file("open/inner.toml", inner);
    let outcome = jail.run(&outer, &command);
    assert!((122..=125).contains(&outcome.code()), "{outcome:?}");
    assert_eq!(outcome.stdout, "", "{outcome:?}");
}

/// EX-20: a program of the host that takes core dumps gets none; the kernel hands it none where
/// the limit is one byte (core(5)).
#[test]
fn a_crash_hands_the_agents_memory_to_nobody() {
    needs!(root(), "root");
    let jail = Jail::new();
    let limit = ["grep", "core", "/proc/self/limits"];
    let shell = "version = 1\nname = \"attacks-core\"\nextends = [\"@shell\"]\n";
    let mut lp_run = Command::new("prlimit");
    lp_run.args(["--core=4096:4096", env!("CARGO_BIN_EXE_lp-run")]);
    let words = |outcome: &crate::support::Outcome| -> Vec<String> {
        let words = outcome.stdout.split_whitespace().map(str::to_owned);
        words.collect()
    };
    let bare = jail.bare(&[&["prlimit", "--core=4096:4096"][..], &limit].concat());
    assert_eq!(words(&bare)[4..6], ["4096", "4096"], "{bare:?}");
    let outcome = jail.run_as(lp_run, shell, &[], &limit);
    assert_eq!(words(&outcome)[4..6], ["1", "1"], "{outcome:?}");
    let crash = jail.run(shell, &["sh", "-c", "kill -SEGV $$"]);
    assert_eq!(crash.code(), 128 + libc::SIGSEGV, "{crash:?}");
}

/// A file that a rule names, beside others.
const IDENTITY: &[Row] = &[
    ("ID-01", "exec @DIR@/tree/ro/tool", "ok", "EACCES", "ok"),
    ("ID-01f", "exec-fd @DIR@/tree/ro/tool", "ok", "EACCES", "ok"),
    (
        "ID-01p",
        "exec /proc/self/root@DIR@/tree/ro/tool",
        "ok",
        "EACCES",
        "ok",
    ),
    // A hard link is the file itself, a copy is another file.
    ("ID-02", "exec @DIR@/tree/ro/twin", "ok", "EACCES", "ok"),
    ("ID-03", "exec @DIR@/tree/ro/copy", "ok", "EACCES", "EACCES"),
    (
        "ID-03f",
        "exec-fd @DIR@/tree/ro/copy",
        "ok",
        "EACCES",
        "EACCES",
    ),
    // What may be read and not written may be mapped, which is how the loader starts it.
    (
        "ID-04",
        "exec /lib64/ld-linux-x86-64.so.2 @DIR@/tree/ro/copy",
        "ok",
        "ok",
        "ok",
    ),
    // Its name is taken to no other place, and no other file takes its name.
    (
        "ID-05",
        "link @DIR@/tree/ro/tool @DIR@/tree/rw/linked",
        "ok",
        "EXDEV",
        "EXDEV",
    ),
    (
        "ID-06",
        "rename @DIR@/tree/rw/tool @DIR@/tree/ro/tool",
        "",
        "EXDEV",
        "EXDEV",
    ),
    (
        "ID-07",
        "open-write @DIR@/tree/ro/tool",
        "",
        "EROFS",
        "EROFS",
    ),
];

const ONE_FILE: &str = r#"
version = 1
name    = "attacks-execution-file"
[files]
read  = ["${BASE}", "@DIR@/tree/ro"]
exec  = ["${COMMAND}", "@DIR@/tree/ro/tool"]
write = ["@DIR@/tree/rw"]
"#;

/// A tree of files that everybody may change, so that the sandbox alone refuses.
fn files() -> Jail {
    let jail = tree();
    let ro = jail.path().join("tree/ro");
    fs::copy("/bin/true", ro.join("copy")).expect("copy a program");
    fs::hard_link(ro.join("tool"), ro.join("twin")).expect("link");
    for file in ["ro", "rw", "ro/tool", "ro/copy", "rw/tool"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(jail.path().join("tree").join(file), mode).expect("chmod");
    }
    jail
}

#[test]
fn a_rule_that_names_a_file_runs_that_file_alone() {
    needs!(root(), "root");
    bare(&files(), IDENTITY);
    confined(&files(), IDENTITY, Arm::Denied, DENIED);
    confined(&files(), IDENTITY, Arm::Granted, ONE_FILE);
}

#[test]
fn a_program_that_is_replaced_from_outside_is_another_file() {
    needs!(root(), "root");
    let jail = files();
    // What the shell that waits runs is granted by its kit; the tools by their files.
    let policy = ONE_FILE
        .replace("[files]", "extends = [\"@shell\"]\n[files]")
        .replace(
            "\"@DIR@/tree/ro/tool\"",
            "\"@DIR@/tree/ro/tool\", \"@DIR@/tree/ro/twin\", \"@DIR@/alone/tool\"",
        )
        .replace(
            "\"attacks-execution-file\"\n",
            "\"attacks-execution-replaced\"\n",
        );
    let dir = jail.path().join("tree");
    fs::remove_file(dir.join("ro/twin")).expect("remove");
    fs::copy("/bin/true", dir.join("ro/twin")).expect("copy");
    let alone = jail.file("alone/tool", "");
    fs::copy("/bin/true", &alone).expect("copy");
    let script = "cd $1; ro/tool; echo $?; ro/twin; echo $?; ../alone/tool; echo $?; : > rw/ready
                  while [ ! -e rw/go ]; do sleep 0.05; done
                  ro/tool; echo $?; ro/twin; echo $?; ../alone/tool; echo $?";
    let place = dir.clone();
    let changer = std::thread::spawn(move || {
        let mut left = 600;
        while !place.join("rw/ready").exists() && left > 0 {
            std::thread::sleep(std::time::Duration::from_millis(50));
            left -= 1;
        }
        fs::rename(place.join("ro/copy"), place.join("ro/tool")).expect("replace");
        fs::write(place.join("ro/twin"), fs::read("/bin/false").expect("read")).expect("rewrite");
        fs::copy("/bin/false", place.join("false")).expect("copy");
        fs::rename(place.join("false"), &alone).expect("replace");
        fs::write(place.join("rw/go"), "").expect("go on");
    });
    let outcome = jail.run(&policy, &["sh", "-c", script, "sh", &dir.to_string_lossy()]);
    changer.join().expect("it was replaced");
    // Renamed over: another file, which no rule names. Rewritten: still the file of the rule. Where
    // nothing around it is granted, the run sees the file that it started with.
    assert_eq!(outcome.stdout, "0\n0\n0\n126\n1\n0\n", "{outcome:?}");
}
