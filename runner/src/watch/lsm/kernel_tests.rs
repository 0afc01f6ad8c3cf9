// SPDX-License-Identifier: MIT OR Apache-2.0
//! The LSM programs on the running kernel: real processes in a cgroup of the test's own.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::*;
use crate::plan::testing::{add, plan, policy};
use crate::policy::facts::{Facts as _, Object, SystemFacts};
use crate::policy::model::{Policy, Target, Verb};
use crate::sys::attempt::Attempts;
use crate::testing::in_child;
use crate::watch::testing::{Base, unified};
use crate::watch::{Rules, State};

/// One at a time: the hooks are the machine's.
static TURN: Mutex<()> = Mutex::new(());

/// A run of the test's own, from which something is taken.
pub(super) struct Bench {
    pub(super) lsm: Lsm,
    run: Run,
    cgroup: PathBuf,
    _held: Vec<OwnedFd>,
    _base: Arc<Base>,
    _turn: MutexGuard<'static, ()>,
}

/// A directory to be granted.
pub(super) fn tree() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

pub(super) fn object(path: &Path) -> Object {
    SystemFacts::default().open(path, &[0]).unwrap()
}

pub(super) fn granted(tree: &Path) -> Policy {
    let mut policy = policy();
    add(&mut policy, Verb::Write, Target::Object(object(tree)));
    policy
}

/// Whether the kernel runs LSM programs; if not, that is said aloud (past the harness, which keeps
/// what tests that pass say).
pub(super) fn runs_programs() -> bool {
    if unified().is_none() {
        eprintln!("skipped: cgroup v2 is not mounted");
        return false;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return false;
    }
    // Without `bpf` in the list the kernel takes the programs, and runs none of them.
    let list = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let listed = list.trim().split(',').any(|module| module == "bpf");
    if !listed {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: this kernel runs no LSM programs: `bpf` is not in its list"
        );
    }
    listed
}

impl Bench {
    /// `None`, said aloud, where the kernel takes no LSM programs.
    pub(super) fn new(policy: Policy, canary: &Path) -> Option<Self> {
        let base = Base::shared();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        if !runs_programs() {
            return None;
        }
        let unified = unified().unwrap();
        let objects = Objects::acquire(base.path(), 16).unwrap();
        let mut lsm = match objects.lsm() {
            Ok(lsm) => lsm,
            Err(error) if std::env::var_os("LP_RUN_TEST_LSM").is_none() => {
                let _ = writeln!(
                    std::io::stderr(),
                    "SKIPPED: this kernel runs no LSM programs: {error}"
                );
                return None;
            }
            Err(error) => panic!("{error:?}"),
        };
        let plan = plan(policy);
        assert_eq!(plan.open_gaps().count(), 0, "{:?}", plan.gaps);
        let cgroup = unified.join(format!("lp-run-lsm-{}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        let directory = super::super::open_cgroup(&cgroup).unwrap();
        let (_, level) = lsm.inspect.cgroup(directory.as_fd()).unwrap();
        let mut run = objects.start(Rules::from(&plan), directory, level).unwrap();
        let canary = File::open(canary).unwrap();
        let held = lsm.start(&plan, &[], canary.as_fd(), &mut run).unwrap();
        run.set_state(State::Live).unwrap();
        Some(Self {
            lsm,
            run,
            cgroup,
            _held: held,
            _base: base,
            _turn: turn,
        })
    }

    /// Does something as a process of the run.
    pub(super) fn inside(&self, act: impl FnOnce()) {
        let procs = self.cgroup.join("cgroup.procs");
        in_child(|| {
            fs::write(procs, "0").unwrap();
            act();
        });
    }

    pub(super) fn denied(&self) -> Vec<u64> {
        let usage = self.run.usage().unwrap();
        usage
            .iter()
            .map(|usage| usage.denied.unwrap_or(0))
            .collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.cgroup);
    }
}

/// Errno of an act, 0 if it was let.
fn errno<T>(result: std::io::Result<T>) -> i32 {
    result
        .err()
        .map_or(0, |error| error.raw_os_error().unwrap_or(-1))
}

pub(super) fn refused<T>(what: &str, result: std::io::Result<T>) {
    assert_eq!(errno(result), libc::EACCES, "{what}");
}

pub(super) fn let_through<T>(what: &str, result: std::io::Result<T>) {
    assert_eq!(errno(result), 0, "{what}");
}

/// Opens for writing without changing anything.
pub(super) fn open_to_write(path: &Path) -> std::io::Result<File> {
    fs::OpenOptions::new().append(true).open(path)
}

#[test]
fn every_hook_refuses_in_what_is_denied_and_nowhere_else() {
    let (taken, open) = (tree(), tree());
    let nobody = tree();
    let Some(mut bench) = Bench::new(granted(nobody.path()), taken.path()) else {
        return;
    };
    let attempts = |directory: &Path| {
        let directory = File::open(directory).unwrap();
        (Attempts::prepare(directory.as_fd()).unwrap(), directory)
    };
    let (free, free_directory) = attempts(open.path());
    let (closed, closed_directory) = attempts(taken.path());
    bench.run.set_state(State::Canary).unwrap();
    bench.inside(|| {
        let answers = free.make(free_directory.as_fd()).unwrap();
        for (hook, answer) in HOOKS.iter().zip(answers) {
            assert_ne!(answer, libc::EACCES, "{} outside", hook.name);
        }
    });
    assert_eq!(bench.lsm.silent().unwrap().len(), bench.lsm.programs.len());
    bench.inside(|| {
        let answers = closed.make(closed_directory.as_fd()).unwrap();
        for (hook, answer) in HOOKS.iter().zip(answers) {
            assert_eq!(answer, libc::EACCES, "{}", hook.name);
        }
    });
    assert_eq!(bench.lsm.silent().unwrap(), [""; 0]);
    // Outside the run the same acts succeed.
    let answers = closed.make(closed_directory.as_fd()).unwrap();
    assert!(!answers.contains(&libc::EACCES), "{answers:?}");
}

#[test]
fn rules_hold_whatever_leads_to_what_they_name() {
    let tree = tree();
    let w = tree.path();
    for directory in ["sub/deep", ".git/hooks", "secret", "conf"] {
        fs::create_dir_all(w.join(directory)).unwrap();
    }
    let files = [
        "open",
        ".env",
        "sub/.env",
        ".git/hooks/hook",
        ".git/config",
        "secret/key",
        "conf/keep",
    ];
    for file in files {
        fs::write(w.join(file), "x").unwrap();
    }
    symlink("open", w.join("sub/plain")).unwrap();
    let mut policy = granted(w);
    add(
        &mut policy,
        Verb::Deny,
        Target::Pattern("**/.env".to_owned()),
    );
    add(
        &mut policy,
        Verb::Protect,
        Target::Pattern("**/.git/hooks".to_owned()),
    );
    add(
        &mut policy,
        Verb::Deny,
        Target::Object(object(&w.join("secret"))),
    );
    add(
        &mut policy,
        Verb::Protect,
        Target::Object(object(&w.join("conf/keep"))),
    );
    add(
        &mut policy,
        Verb::Protect,
        Target::Missing(w.join("conf/later")),
    );
    let canary = super::kernel_tests::tree();
    let Some(bench) = Bench::new(policy, canary.path()) else {
        return;
    };
    bench.inside(|| {
        let at = |name: &str| w.join(name);
        // Patterns, at any depth, there and later.
        for name in [".env", "sub/.env"] {
            refused("read", File::open(at(name)));
            refused("write", open_to_write(&at(name)));
            refused("rename", fs::rename(at(name), at("other")));
            refused("link", fs::hard_link(at(name), at("other")));
            refused("remove", fs::remove_file(at(name)));
            refused(
                "mode",
                fs::set_permissions(at(name), fs::Permissions::from_mode(0o666)),
            );
        }
        refused("create", fs::write(at("sub/deep/.env"), "x"));
        refused("directory", fs::create_dir(at("sub/deep/.env")));
        refused("symbolic link", symlink("open", at("sub/deep/.env")));
        refused("rename to", fs::rename(at("open"), at("sub/deep/.env")));
        refused("link to", fs::hard_link(at("open"), at("sub/deep/.env")));
        let_through("a longer name", fs::write(at("sub/deep/.env2"), "x"));
        let_through("another name", fs::write(at("sub/deep/xenv"), "x"));
        let_through("what is open", fs::write(at("open"), "y"));
        let_through(
            "read",
            fs::read(at("sub/plain").parent().unwrap().join("../open")),
        );
        // A name of two parts is not laundered through its first.
        let_through("read what is protected", fs::read(at(".git/hooks/hook")));
        refused("write", open_to_write(&at(".git/hooks/hook")));
        refused("new hook", fs::write(at(".git/hooks/new"), "x"));
        refused("move its directory", fs::rename(at(".git"), at("git")));
        refused("move it", fs::rename(at(".git/hooks"), at(".git/other")));
        let_through("beside it", fs::write(at(".git/config"), "y"));
        let_through("hooks elsewhere", fs::create_dir_all(at("git/hooks")));
        refused("move to its name", fs::rename(at("git"), at("sub/.git")));
        refused("link to its name", symlink("git", at("sub/.git")));
        let_through("make its name", fs::create_dir(at("sub/.git")));
        refused("make it", fs::create_dir(at("sub/.git/hooks")));
        let_through("remove its directory", fs::remove_dir(at("sub/.git")));
        // Objects, and all below.
        refused("read", File::open(at("secret/key")));
        refused("list", fs::read_dir(at("secret")));
        refused("create", fs::write(at("secret/new"), "x"));
        refused("rename", fs::rename(at("secret"), at("public")));
        refused("rename out", fs::rename(at("secret/key"), at("key")));
        refused("link out", fs::hard_link(at("secret/key"), at("key")));
        // Names in a directory, which stays where it is.
        let_through("read", fs::read(at("conf/keep")));
        refused("write", open_to_write(&at("conf/keep")));
        refused("replace", fs::rename(at("open"), at("conf/keep")));
        refused("later", fs::write(at("conf/later"), "x"));
        refused("move", fs::rename(at("conf"), at("conf2")));
        let_through("beside", fs::write(at("conf/new"), "x"));
        // Neither half of an exchange.
        for (one, other) in [
            ("open", ".env"),
            ("sub/.env", "open"),
            ("open", ".git"),
            ("sub", "conf"),
        ] {
            let (one, other) = (at(one), at(other));
            let (cwd, flags) = (
                nix::fcntl::AT_FDCWD,
                nix::fcntl::RenameFlags::RENAME_EXCHANGE,
            );
            let result = nix::fcntl::renameat2(cwd, &one, cwd, &other, flags);
            refused("exchange", result.map_err(std::io::Error::from));
        }
    });
    let denied = bench.denied();
    assert_eq!(denied[0], 0);
    assert!(denied[1..6].iter().all(|count| *count > 0), "{denied:?}");
    // An editor outside replaces the file: its name is still taken.
    fs::write(w.join("conf/fresh"), "z").unwrap();
    fs::rename(w.join("conf/fresh"), w.join("conf/keep")).unwrap();
    bench.inside(|| {
        refused(
            "a new file of the name",
            open_to_write(&w.join("conf/keep")),
        )
    });
    // Moved away, the object is still taken.
    fs::rename(w.join("secret"), w.join("moved")).unwrap();
    bench.inside(|| refused("under another name", File::open(w.join("moved/key"))));
    // The programs leave everybody else alone.
    let_through("outside", fs::read(w.join(".env")));
    drop(bench);
}

/// What a pattern below one directory takes away holds where the directory is what is granted:
/// below a wider grant its files could be moved out of it, which is a gap.
#[test]
fn patterns_of_one_directory_hold_below_it() {
    let tree = tree();
    let keys = &tree.path().join("keys");
    fs::create_dir_all(keys.join("sub")).unwrap();
    for file in [
        "sub/tok",
        "a.key",
        "sub/a.key",
        "plain",
        "../tok",
        "../a.key",
    ] {
        fs::write(keys.join(file), "x").unwrap();
    }
    let mut policy = granted(keys);
    for text in ["**/tok", "*.key"] {
        let text = format!("{}/{text}", keys.display());
        add(&mut policy, Verb::Deny, Target::Pattern(text));
    }
    let canary = super::kernel_tests::tree();
    let Some(bench) = Bench::new(policy, canary.path()) else {
        return;
    };
    bench.inside(|| {
        let at = |name: &str| keys.join(name);
        for name in ["sub/tok", "a.key"] {
            refused(name, File::open(at(name)));
            refused(name, open_to_write(&at(name)));
            refused(name, fs::hard_link(at(name), at("linked")));
            refused(name, fs::remove_file(at(name)));
        }
        for name in ["sub/a.key", "plain", "../tok", "../a.key"] {
            let_through(name, fs::read(at(name)));
        }
        // One that is made, renamed or linked to such a name.
        let_through("deeper", fs::create_dir(at("sub/sub")));
        for name in ["deep.key", "sub/sub/tok"] {
            refused(name, fs::write(at(name), "x"));
            refused(name, fs::rename(at("plain"), at(name)));
            refused(name, fs::hard_link(at("plain"), at(name)));
            refused(name, symlink("plain", at(name)));
        }
        // The directory of a pattern stays where it is.
        refused("moved", fs::rename(at(""), at("../keys2")));
        let_through("not the directory's", fs::rename(at("sub"), at("sub2")));
        refused("still below it", fs::read(at("sub2/tok")));
    });
    let denied = bench.denied();
    assert!(denied[1..3].iter().all(|count| *count > 0), "{denied:?}");
    drop(bench);
}

#[test]
fn patterns_hold_at_every_depth_and_are_not_laundered() {
    let tree = tree();
    let w = tree.path();
    for directory in ["deep/er", "a/b1/c", "a/other", "x/b1/c", "secrets-1"] {
        fs::create_dir_all(w.join(directory)).unwrap();
    }
    for file in [
        "k.pem",
        "deep/er/k.pem",
        "pem",
        "secrets-1/f",
        "deep/secrets-2",
        "secrets",
        "a/b1/c/f",
        "x/b1/c/f",
        "a/other/c",
        "plain",
    ] {
        fs::write(w.join(file), "x").unwrap();
    }
    let pattern = |text: &str| Target::Pattern(text.to_owned());
    let mut policy = granted(w);
    for text in ["**/*.pem", "**/secrets-*", "**/a/b*/c"] {
        add(&mut policy, Verb::Deny, pattern(text));
    }
    add(&mut policy, Verb::Protect, pattern("**/p/q/*r"));
    let canary = super::kernel_tests::tree();
    let Some(bench) = Bench::new(policy, canary.path()) else {
        return;
    };
    bench.inside(|| {
        let at = |name: &str| w.join(name);
        for name in [
            "k.pem",
            "deep/er/k.pem",
            "secrets-1/f",
            "deep/secrets-2",
            "a/b1/c/f",
        ] {
            refused(name, File::open(at(name)));
            refused(name, open_to_write(&at(name)));
            refused(name, fs::hard_link(at(name), at("linked")));
            refused(name, fs::remove_file(at(name)));
        }
        for name in ["pem", "secrets", "x/b1/c/f", "a/other/c", "plain"] {
            let_through(name, fs::read(at(name)));
        }
        // One that is made, renamed or linked to such a name.
        for name in ["new.pem", "deep/secrets-"] {
            refused(name, fs::write(at(name), "x"));
            refused(name, fs::rename(at("plain"), at(name)));
            refused(name, fs::hard_link(at("plain"), at(name)));
            refused(name, symlink("plain", at(name)));
        }
        // The upper parts of a pattern: a directory takes no place among them, in or out.
        refused("in at the top", fs::rename(at("x"), at("deep/a")));
        refused("in at the middle", fs::rename(at("x/b1"), at("a/b2")));
        refused("out at the middle", fs::rename(at("a/b1"), at("x/b2")));
        refused("out at the top", fs::rename(at("a"), at("x/other")));
        refused("linked", symlink("../x/b1", at("a/bb")));
        let_through("another middle", fs::rename(at("x/b1"), at("x/bb")));
        let_through("beside the parts", fs::rename(at("a/other"), at("a/more")));
        let_through("made", fs::create_dir_all(at("deep/a/b")));
        refused("made whole", fs::create_dir(at("deep/a/b/c")));
        // What is protected is read.
        let_through("parts", fs::create_dir_all(at("p/q")));
        refused("made", fs::write(at("p/q/xr"), "x"));
        refused("moved in", fs::rename(at("x"), at("p/q/r")));
        let_through("beside", fs::write(at("p/q/xs"), "x"));
    });
    let denied = bench.denied();
    assert_eq!(denied[0], 0);
    assert!(denied[1..5].iter().all(|count| *count > 0), "{denied:?}");
    let_through("outside", fs::read(w.join("k.pem")));
    drop(bench);
}

#[test]
fn each_refused_act_is_told_once_by_its_path_and_its_rule() {
    let tree = tree();
    let w = tree.path();
    fs::create_dir_all(w.join("a/conf")).unwrap();
    for file in ["a/.env", "a/conf/f", "plain"] {
        fs::write(w.join(file), "x").unwrap();
    }
    symlink("a/.env", w.join("link")).unwrap();
    fs::set_permissions(w.join("a/.env"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut policy = granted(w);
    let pattern = Target::Pattern("**/.env".to_owned());
    add(&mut policy, Verb::Deny, pattern);
    let conf = Target::Object(object(&w.join("a/conf")));
    add(&mut policy, Verb::Protect, conf);
    let canary = super::kernel_tests::tree();
    let Some(mut bench) = Bench::new(policy, canary.path()) else {
        return;
    };
    let at = |name: &str| w.join(name);
    bench.inside(|| {
        refused("read", File::open(at("a/.env")));
        refused("again, by another way", File::open(at("link")));
        refused("write", open_to_write(&at("a/.env")));
        refused("rename to", fs::rename(at("plain"), at("a/.env")));
        refused("rename from", fs::rename(at("a/.env"), at("env")));
        let mode = fs::Permissions::from_mode(0o600);
        refused("mode", fs::set_permissions(at("a/.env"), mode));
        refused("directory", fs::create_dir(at("a/conf/new")));
        refused("execute", std::process::Command::new(at("a/.env")).status());
        refused("move", fs::rename(at("a/conf"), at("conf")));
        refused("remove", fs::remove_file(at("a/conf/f")));
    });
    let clock = bench.run.clock();
    let mut told = Vec::new();
    let refusals = &mut bench.lsm.refusals;
    bench.run.drain(100, |event| match event {
        crate::watch::Decoded::Taken(news) => told.extend(refusals.note(news, &clock)),
        other => panic!("{other:?}"),
    });
    let summary = |denials: &[crate::record::event::Denial]| -> Vec<String> {
        let one = |denial: &crate::record::event::Denial| {
            let target = String::from_utf8(denial.target.clone()).unwrap();
            let name = target.strip_prefix(w.to_str().unwrap()).unwrap().to_owned();
            assert!(!denial.as_typed && denial.pid != 0 && denial.first <= denial.last);
            format!(
                "{} {name} {:?} {}",
                denial.op.name(),
                denial.row,
                denial.count
            )
        };
        let mut lines: Vec<String> = denials.iter().map(one).collect();
        lines.sort_unstable();
        lines
    };
    let all = bench.lsm.refusals.denials(&clock).unwrap();
    let expected = [
        "chmod /a/.env Some(1) 1",
        "exec /a/.env Some(1) 1",
        "mkdir /a/conf/new Some(2) 1",
        "open /a/.env Some(1) 2",
        "rename /a/.env Some(1) 2",
        "rename /a/conf Some(2) 1",
        "unlink /a/conf/f Some(2) 1",
        "write /a/.env Some(1) 1",
    ];
    assert_eq!(summary(&all), expected);
    assert_eq!(told.len(), expected.len(), "one event for each target");
    assert_eq!(bench.denied()[..3], [0, 7, 3], "the rules' own counts");
}
