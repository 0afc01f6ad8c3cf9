// SPDX-License-Identifier: MIT OR Apache-2.0
//! The LSM programs, which are attached once for all runs: one left out, or taken off before the
//! proof, refuses the run; and where the start is told to go on without one, the act that it holds
//! succeeds and no other. No other run is there meanwhile.

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::PoisonError;

use lp_run::watch::lsm::HOOKS;

use super::{DEBUG, Halted};
use crate::attacks::taken::{held, open};
use crate::needs;
use crate::support::{Jail, Outcome, SHARED, probe, root};

const POLICY: &str = r#"
version = 1
name = "faults-lsm"
extends = ["@shell"]
[files]
exec = ["@PROBE@"]
write = ["@DIR@/tree"]
deny = ["**/.env"]
protect = ["**/kept", "@DIR@/tree/settings"]
[network]
unix = ["self"]
[enforcement]
degrade = ["unix-sockets"]
"#;

/// One program in so many is left out: each start attaches all others anew, and that takes long
/// where the machine is emulated. The self-test asks each hook in the same way.
const SAMPLE: usize = 5;

/// Acts, and the programs that hold each: none of them does without the other.
const HELD: [(&[&str], &str); 10] = [
    (&["lsm_open"], "open-read @DIR@/tree/.env"),
    // FS-11: a hard link of what is protected, made before the run.
    (&["lsm_open"], "open-write @DIR@/tree/alias"),
    // FS-20: a name that is not there yet. What is made is opened too.
    (&["lsm_create", "lsm_open"], "create @DIR@/tree/later/.env"),
    (&["lsm_mknod"], "mkfifo @DIR@/tree/new/.env"),
    (&["lsm_mkdir"], "mkdir @DIR@/tree/other/.env"),
    // FS-19: what is protected and there.
    (&["lsm_unlink"], "unlink @DIR@/tree/old/kept"),
    (&["lsm_setattr"], "chmod @DIR@/tree/.env"),
    (&["lsm_link"], "link @DIR@/tree/.env @DIR@/tree/linked"),
    // IPC-01, IPC-06: sockets by their paths.
    (
        &["lsm_unix_stream_connect"],
        "unix-connect @DIR@/tree/stream/.env",
    ),
    (&["lsm_unix_may_send"], "unix-send @DIR@/tree/datagram/.env"),
];

/// A tree of everything that is named, open to all.
fn jail() -> Jail {
    let jail = Jail::shared();
    for file in ["tree/.env", "tree/old/kept", "tree/settings"] {
        jail.file(file, "x");
    }
    for folder in ["later", "new", "other", "stream", "datagram"] {
        jail.folder(&format!("tree/{folder}"));
    }
    let tree = jail.path().join("tree");
    fs::hard_link(tree.join("settings"), tree.join("alias")).expect("make a link");
    open(&tree);
    jail
}

/// Whoever answers at the sockets of a tree.
fn answering(jail: &Jail) -> (UnixListener, UnixDatagram) {
    let tree = jail.path().join("tree");
    let stream = UnixListener::bind(tree.join("stream/.env")).expect("bind");
    let datagram = UnixDatagram::bind(tree.join("datagram/.env")).expect("bind");
    open(&tree);
    (stream, datagram)
}

fn policy() -> String {
    POLICY.replace("@PROBE@", &probe([])[0])
}

/// A run with these faults; [`SHARED`] is held already.
fn run(jail: &Jail, faults: &str, command: &[String]) -> Outcome {
    let folder = jail.path().to_string_lossy();
    let policy = jail.file("policy.toml", policy().replace("@DIR@", &folder));
    let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
    lp_run.env("LP_RUN_FAULT", faults);
    lp_run.arg("--policy").arg(policy).arg("--").args(command);
    jail.bare_as(lp_run)
}

fn echo() -> Vec<String> {
    ["sh", "-c", "echo it ran"].map(str::to_owned).to_vec()
}

#[test]
fn a_program_that_is_left_out_or_taken_off_refuses_the_run() {
    needs!(root(), "root");
    needs!(DEBUG, "a debug build of lp-run");
    let _alone = SHARED.write().unwrap_or_else(PoisonError::into_inner);
    let jail = jail();
    let whole = run(&jail, "", &echo());
    if !held(&whole) {
        return;
    }
    assert_eq!(whole.answer(), "it ran", "{whole:?}");
    // All but those that not every kernel has.
    for hook in HOOKS.iter().filter(|hook| !hook.later).step_by(SAMPLE) {
        let outcome = run(&jail, &format!("skip={}", hook.program), &echo());
        let name = hook.name;
        assert_eq!(
            (outcome.code(), outcome.answer()),
            (123, ""),
            "{name}: {outcome:?}"
        );
        assert!(outcome.said().contains("file-deny"), "{name}: {outcome:?}");
        assert!(outcome.said().contains(name), "{name}: {outcome:?}");
    }
    for hook in [HOOKS[0], HOOKS[10]] {
        let halted = Halted::under(&jail, &policy(), "StateCanary", "echo it ran");
        let link = pin(
            Path::new("/run/lp-run/bpf"),
            &format!("link-{}", hook.program),
        );
        fs::remove_file(link.expect("a link")).expect("take the program off");
        halted.resume();
        let (code, out, err) = halted.end();
        assert_eq!(
            (code, out.as_str()),
            (Some(123), ""),
            "{}: {err}",
            hook.name
        );
        assert!(err.contains("file-deny"), "{}: {err}", hook.name);
    }
}

#[test]
fn each_act_is_noticed_when_its_program_is_gone() {
    needs!(root(), "root");
    needs!(DEBUG, "a debug build of lp-run");
    let _alone = SHARED.write().unwrap_or_else(PoisonError::into_inner);
    if !held(&run(&jail(), "", &echo())) {
        return;
    }
    let tried = |faults: &str| {
        let jail = jail();
        let _sockets = answering(&jail);
        let mut acts = probe(["each"]);
        for (_, act) in HELD {
            if acts.len() > 2 {
                acts.push("--".to_owned());
            }
            let folder = jail.path().to_string_lossy();
            acts.extend(act.split(' ').map(|word| word.replace("@DIR@", &folder)));
        }
        run(&jail, faults, &acts)
    };
    let answers = |gone: &[&str]| -> String {
        HELD.map(
            |(programs, _)| match programs.iter().all(|it| gone.contains(it)) {
                true => "ok\n",
                false => "EACCES\n",
            },
        )
        .concat()
    };
    let whole = tried("");
    assert_eq!(whole.stdout, answers(&[]), "{whole:?}");
    let mut sets: Vec<&[&str]> = HELD.iter().map(|(programs, _)| *programs).collect();
    sets.dedup();
    for gone in sets {
        let skipped: String = gone.iter().map(|it| format!("skip={it}\n")).collect();
        let outcome = tried(&format!("{skipped}skip=judge\nskip=verify"));
        assert_eq!(outcome.stdout, answers(gone), "{gone:?}: {outcome:?}");
    }
}

/// The file of this name below a directory.
fn pin(directory: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find_map(|path| match path.is_dir() {
            true => pin(&path, name),
            false => path.ends_with(name).then_some(path),
        })
}
