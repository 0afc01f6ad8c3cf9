// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attempts of a caller who may run lp-run as root (through sudo and its kin) to have with its
//! rights what is not his.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use crate::needs;
use crate::policies::exists;
use crate::support::{Jail, Outcome, probe, raises_limits, root};

/// The caller: nobody.
pub(super) const CALLER: &str = "65534";

/// Installs the policies below `installed` for this run alone, in a mount namespace of its own.
const INSTALLED: &str = "mkdir -p /etc/lp-run && mount -t tmpfs none /etc/lp-run &&\n\
    cp -r $0/installed /etc/lp-run/policies && exec \"$@\"";

/// What an installed policy starts with.
pub(super) const HEAD: &str =
    "version = 1\nname = \"attempts-caller\"\n[files]\nread = [\"${BASE}\"]\n";

/// `lp-run -p POLICY OPTIONS -- COMMAND` as `variable` names the caller.
pub(super) fn run(jail: &Jail, who: &[(&str, &str)], policy: &str, command: &[&str]) -> Outcome {
    let mut lp_run = Command::new("unshare");
    lp_run.args(["--mount", "--", "sh", "-c", INSTALLED]);
    lp_run.arg(jail.path()).arg(env!("CARGO_BIN_EXE_lp-run"));
    for name in ["SUDO_UID", "PKEXEC_UID", "DOAS_USER"] {
        lp_run.env_remove(name);
    }
    lp_run.envs(who.iter().copied());
    // The caller may write a report, and nothing that is there already.
    rights(&jail.path().to_string_lossy(), 0o1777);
    let work = jail.folder("work");
    let options = ["--workdir", &work.to_string_lossy()];
    jail.run_named(lp_run, policy, &options, command)
}

pub(super) fn installed(jail: &Jail, text: &str) {
    jail.file("installed/p.toml", text);
}

/// Copies the probe to a place of root's, with a mode.
pub(super) fn program(jail: &Jail, name: &str, mode: u32) -> String {
    let probe = probe([]).remove(0);
    let copy = jail.file(name, fs::read(probe).expect("read the probe"));
    fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).expect("set a mode");
    copy.to_string_lossy().into_owned()
}

pub(super) fn rights(path: &str, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set a mode");
}

#[test]
fn a_typed_program_is_held_to_the_callers_own_rights() {
    needs!(root(), "root");
    let jail = Jail::shared();
    installed(&jail, &format!("{HEAD}exec = [\"${{COMMAND}}\"]\n"));
    let sudo = [("SUDO_UID", CALLER)];
    for (mode, code) in [(0o755, 0), (0o700, 126), (0o711, 126)] {
        let tool = program(&jail, "tool", mode);
        let outcome = run(&jail, &sudo, "p", &[&tool, "open-read", "/dev/null"]);
        assert_eq!(outcome.code(), code, "{mode:o} {outcome:?}");
        // For root himself nothing is held back.
        assert_eq!(
            run(&jail, &[], "p", &[&tool, "open-read", "/dev/null"]).code(),
            0,
            "{mode:o}"
        );
    }
    // A rule that names it is root's word.
    let tool = program(&jail, "tool", 0o700);
    installed(&jail, &format!("{HEAD}exec = [\"{tool}\"]\n"));
    let outcome = run(&jail, &sudo, "p", &[&tool, "open-read", "/dev/null"]);
    assert_eq!(outcome.code(), 0, "{outcome:?}");
}

#[test]
fn a_directory_open_to_a_group_of_the_callers_lends_nothing_of_its_owners() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let work = jail.folder("work");
    let key = jail.file("work/key", "a secret of root's");
    rights(&key.to_string_lossy(), 0o600);
    chown(&work, None, Some(65534)).expect("hand it to the group");
    let policy = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../policies/read-only.toml"
    ));
    installed(&jail, &policy.expect("the shipped policy"));
    let sudo = [("SUDO_UID", CALLER)];
    let key = key.to_string_lossy().into_owned();
    let cat = ["cat", &key];
    rights(&work.to_string_lossy(), 0o750);
    let outcome = run(&jail, &sudo, "p", &cat);
    assert_eq!((outcome.code(), outcome.answer()), (122, ""), "{outcome:?}");
    assert!(outcome.said().contains("not open to all"), "{outcome:?}");
    // Root lends what is his, and what is open to all needs no lending.
    let outcome = run(&jail, &[], "p", &cat);
    assert_eq!(outcome.answer(), "a secret of root's", "{outcome:?}");
    rights(&work.to_string_lossy(), 0o755);
    let outcome = run(&jail, &sudo, "p", &cat);
    assert_eq!((outcome.code(), outcome.answer()), (1, ""), "{outcome:?}");
    assert!(outcome.stderr.contains("Permission denied"), "{outcome:?}");
}

#[test]
fn a_group_of_the_callers_own_directory_is_lent_only_to_its_members() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let work = jail.folder("work");
    let key = jail.file("work/key", "a secret of the group's");
    rights(&key.to_string_lossy(), 0o640);
    let sudo = [("SUDO_UID", CALLER)];
    let key = key.to_string_lossy().into_owned();
    let head = HEAD.replace("read = [\"${BASE}\"]\n", "exec = [\"${COMMAND}\"]\n");
    let read = "read = [\"${BASE}\", \"${WORKDIR}\"]\n";
    let write = "read = [\"${BASE}\"]\nwrite = [\"${WORKDIR}\"]\n";
    for (mode, line) in [(0o755, write), (0o750, read)] {
        installed(&jail, &format!("{head}{line}"));
        rights(&work.to_string_lossy(), mode);
        for (gid, code) in [(4242, 122), (65534, 0)] {
            for place in [&work, std::path::Path::new(&key)] {
                let owner = if place == work { 65534 } else { 0 };
                chown(place, Some(owner), Some(gid)).expect("hand it over");
            }
            let outcome = run(&jail, &sudo, "p", &["cat", &key]);
            assert_eq!(outcome.code(), code, "{line} {gid} {outcome:?}");
            assert_eq!(outcome.answer().is_empty(), code != 0, "{outcome:?}");
        }
    }
}

/// Adds to an object's access control list what user `CALLER` may do (acl(5), the kernel's form:
/// include/uapi/linux/posix_acl_xattr.h).
fn list(path: &str, rights: u16) {
    let mode = fs::metadata(path).expect("look").permissions().mode() as u16;
    let mut value = 2_u32.to_le_bytes().to_vec();
    let nobody = u32::MAX;
    for (tag, rights, id) in [
        (1, mode >> 6 & 7, nobody),
        (2, rights, 65534),
        (4, mode >> 3 & 7, nobody),
        (0x10, 7, nobody),
        (0x20, mode & 7, nobody),
    ] {
        let entry: [u16; 2] = [tag, rights];
        value.extend(entry.iter().flat_map(|part| part.to_le_bytes()));
        value.extend(id.to_le_bytes());
    }
    let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    let code = "import os,sys; os.setxattr(sys.argv[1], 'system.posix_acl_access', \
                bytes.fromhex(sys.argv[2]))";
    let set = Command::new("python3")
        .args(["-c", code, path, &hex])
        .status();
    assert!(set.expect("start python").success());
}

/// A policy of the caller's own, with these lines.
pub(super) fn own_policy(jail: &Jail, lines: &str) -> String {
    let policy = jail.file(
        "own.toml",
        format!("{HEAD}exec = [\"${{COMMAND}}\"]\n{lines}"),
    );
    chown(&policy, Some(65534), None).expect("hand it over");
    policy.to_string_lossy().into_owned()
}

#[test]
fn a_list_that_takes_from_the_caller_takes_from_his_agent() {
    needs!(root() && exists("python3"), "root and python3");
    let jail = Jail::shared();
    installed(&jail, &format!("{HEAD}exec = [\"${{COMMAND}}\"]\n"));
    let sudo = [("SUDO_UID", CALLER)];
    let text = jail.file("text", "words").to_string_lossy().into_owned();
    let policy = own_policy(&jail, "").replace("own.toml", "named.toml");
    let named = format!(
        "version = 1\nname = \"n\"\n[files]\nread = [\"${{BASE}}\", \"{text}\"]\nexec = [\"${{COMMAND}}\"]\n"
    );
    chown(jail.file("named.toml", named), Some(65534), None).expect("hand it over");
    let read = || run(&jail, &sudo, &policy, &["cat", &text]);
    assert_eq!(read().answer(), "words");
    list(&text, 0);
    let outcome = read();
    assert_eq!((outcome.code(), outcome.answer()), (122, ""), "{outcome:?}");
    assert!(outcome.said().contains("may not use"), "{outcome:?}");
    list(&text, 4);
    assert_eq!(read().answer(), "words");
    // A program, and the work directory, which an installed policy grants.
    let tool = program(&jail, "tool", 0o755);
    let typed = || {
        let act = [tool.as_str(), "open-read", "/dev/null"];
        run(&jail, &sudo, &own_policy(&jail, ""), &act).code()
    };
    assert_eq!(typed(), 0);
    list(&tool, 4);
    assert_eq!(typed(), 126);
    let work = jail.folder("work").to_string_lossy().into_owned();
    let enter = || run(&jail, &sudo, "p", &["true"]).code();
    assert_eq!(enter(), 0);
    list(&work, 4);
    assert_eq!(enter(), 122);
}

/// `lp-run WORDS` as root, called by `uid` or by root itself.
fn verb(uid: Option<&str>, words: &[&str]) -> (String, String) {
    let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
    for name in ["SUDO_UID", "PKEXEC_UID", "DOAS_USER"] {
        lp_run.env_remove(name);
    }
    lp_run.envs(uid.map(|uid| ("SUDO_UID", uid))).args(words);
    let output = lp_run.output().expect("start lp-run");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stdout), text(output.stderr))
}

#[test]
fn a_verb_reads_only_what_its_caller_may_read() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let file = jail.file("kept.jsonl", "{\"kind\":\"words-of-root\"}\n");
    let name = file.to_string_lossy().into_owned();
    let verbs: [&[&str]; 4] = [
        &["log", "--file", &name],
        &["log", "--json", "--file", &name],
        &["log", "verify", &name],
        &["report", &name],
    ];
    for (mode, told) in [(0o600, false), (0o644, true)] {
        rights(&name, mode);
        for words in verbs {
            let (out, err) = verb(Some(CALLER), words);
            let refused = err.replace("lp-run:   ", "").contains("ermission denied");
            assert_eq!(
                (out.is_empty(), refused),
                (!told || words[0] == "report", !told),
                "{words:?}: {out}{err}"
            );
            // Root may read it in any case.
            let (out, err) = verb(None, words);
            assert!(!err.contains("denied"), "{words:?}: {out}{err}");
        }
    }
    let (out, _) = verb(Some(CALLER), verbs[0]);
    assert!(out.contains("words-of-root"), "{out}");
}

#[test]
fn no_answer_tells_what_a_closed_directory_holds() {
    needs!(root(), "root");
    let jail = Jail::shared();
    installed(&jail, &format!("{HEAD}exec = [\"${{COMMAND}}\"]\n"));
    let sudo = [("SUDO_UID", CALLER)];
    let closed = jail.folder("closed").to_string_lossy().into_owned();
    jail.file("closed/there.d/HEAD", "ref: refs/heads/main\n");
    std::os::unix::fs::symlink("/etc", jail.path().join("closed/link.d")).expect("link");
    program(&jail, "closed/tool.d", 0o755);
    rights(&closed, 0o700);
    let names = ["there.d", "none.d", "link.d", "tool.d"];
    let answers = |ask: &dyn Fn(&str) -> Outcome| {
        let all = names.map(|name| {
            let outcome = ask(&format!("{closed}/{name}"));
            let lines = outcome.stderr.lines();
            let said: Vec<_> = lines.map(|line| line.replace(name, "NAME")).collect();
            (outcome.code(), said)
        });
        assert_eq!(all, [&all[0]; 4].map(Clone::clone));
        all[0].clone()
    };
    let ruled = |rule: &str, path: &str| {
        let policy = own_policy(&jail, &rule.replace('@', path));
        run(&jail, &sudo, &policy, &["true"])
    };
    for (rule, code) in [
        ("write = [\"@\"]\n", 122),
        ("write = [{ path = \"@\", create = \"dir\" }]\n", 122),
        ("write = [{ path = \"@/x\", optional = true }]\n", 0),
        ("deny = [\"@\"]\n", 0),
        ("protect = [\"@/x\"]\n", 0),
        ("[network]\nunix = [\"@\"]\n", 122),
    ] {
        let answer = answers(&|path| ruled(rule, path));
        assert_eq!(answer.0, code, "{rule} {answer:?}");
    }
    let none = own_policy(&jail, "");
    answers(&|path| run(&jail, &sudo, &none, &[path]));
    answers(&|path| run(&jail, &sudo, "p", &[path]));
    let script = jail.file("script", "").to_string_lossy().into_owned();
    rights(&script, 0o755);
    answers(&|path| {
        jail.file("script", format!("#!{path}\n"));
        run(&jail, &sudo, "p", &[&script])
    });
    // For root they are what they are.
    let outcome = run(&jail, &[], "p", &[&format!("{closed}/none.d")]);
    assert!(outcome.said().contains("does not exist"), "{outcome:?}");
    installed(
        &jail,
        &format!("{HEAD}exec = [\"${{COMMAND}}\", \"/usr/bin\"]\nwrite = [\"${{GIT_DIR}}\"]\n"),
    );
    answers(&|path| {
        jail.file("work/.git", format!("gitdir: {path}\n"));
        run(&jail, &sudo, "p", &["true"])
    });
}

#[test]
fn a_policy_that_the_caller_may_not_read_is_told_to_nobody() {
    needs!(root(), "root");
    let jail = Jail::shared();
    installed(&jail, &format!("{HEAD}exec = [\"${{COMMAND}}\"]\n"));
    let secret = jail
        .file("secret.toml", "hunter2 = 1\n")
        .to_string_lossy()
        .into_owned();
    let outer = jail.file(
        "outer.toml",
        "version = 1\nname = \"o\"\nextends = [\"secret.toml\"]\n",
    );
    chown(&outer, Some(65534), None).expect("hand it over");
    let outer = outer.to_string_lossy().into_owned();
    let sudo = [("SUDO_UID", CALLER)];
    for (mode, told) in [(0o644, true), (0o600, false)] {
        rights(&secret, mode);
        for policy in [&secret, &outer] {
            let outcome = run(&jail, &sudo, policy, &["/bin/true"]);
            assert_eq!(outcome.code(), 122, "{outcome:?}");
            assert_eq!(outcome.stderr.contains("hunter2"), told, "{outcome:?}");
            assert_eq!(outcome.stderr.contains("Permission"), !told, "{outcome:?}");
        }
    }
    // What root installed is run whether the caller may read it or not.
    let tool = program(&jail, "tool", 0o755);
    rights(
        &jail.path().join("installed/p.toml").to_string_lossy(),
        0o600,
    );
    let outcome = run(&jail, &sudo, "p", &[&tool, "open-read", "/dev/null"]);
    assert_eq!(outcome.code(), 0, "{outcome:?}");
}

#[test]
fn a_file_of_the_callers_own_is_read_and_written_and_stays_his() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let policy = "version = 1\nname = \"attempts-caller\"\nextends = [\"@shell\"]\n\
                  [identity]\nuser = \"caller\"\n";
    installed(&jail, policy);
    rights(&jail.path().to_string_lossy(), 0o1777);
    let act = "chmod 666 /proc/self/fd/0 /proc/self/fd/1; cat; echo error >&2; echo last";
    for owner in [65534, 0] {
        let [input, output] = [("in", "one\ntwo\n"), ("out", "before\n")].map(|(name, text)| {
            let path = jail.file(name, text);
            chown(&path, Some(owner), None).expect("hand it over");
            rights(&path.to_string_lossy(), 0o600);
            path
        });
        let mut lp_run = Command::new("unshare");
        let redirected = format!("{INSTALLED} <$0/in >>$0/out 2>&1");
        lp_run.args(["--mount", "--", "sh", "-c", &redirected]);
        lp_run
            .arg(jail.path())
            .arg(env!("CARGO_BIN_EXE_lp-run"))
            .env("SUDO_UID", CALLER);
        let options = ["--workdir", "/srv", "-q"];
        let outcome = jail.run_named(lp_run, "p", &options, &["bash", "-c", act]);
        assert_eq!(outcome.code(), 0, "{outcome:?}");
        let text = fs::read_to_string(&output).expect("read it");
        let own = text.strip_prefix("before\n").expect("added");
        let refused = own
            .lines()
            .filter(|line| line.starts_with("chmod:"))
            .count();
        // His own are pipes of the agent's; root's are handed over, and are not the agent's.
        assert_eq!(refused, if owner == 0 { 2 } else { 0 }, "{text}");
        assert!(own.ends_with("one\ntwo\nerror\nlast\n"), "{text}");
        for path in [input, output] {
            let mode = fs::metadata(path).expect("look").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "owner {owner}");
        }
    }
}

#[test]
fn every_way_to_root_names_the_caller() {
    needs!(root(), "root");
    let jail = Jail::shared();
    installed(&jail, &format!("{HEAD}exec = [\"${{COMMAND}}\"]\n"));
    let tool = program(&jail, "tool", 0o755);
    for who in [
        ("SUDO_UID", CALLER),
        ("PKEXEC_UID", CALLER),
        ("DOAS_USER", "nobody"),
    ] {
        let outcome = run(&jail, &[who], "p", &[&tool, "open-read", "/dev/null"]);
        assert_eq!(outcome.code(), 0, "{outcome:?}");
        let report = outcome.report.expect("a report");
        assert_eq!(report["caller"]["uid"], 65534, "{who:?}");
    }
    for who in [
        &[("SUDO_UID", CALLER), ("PKEXEC_UID", "1")][..],
        &[("SUDO_UID", "me")],
        &[("DOAS_USER", "nobody-of-this-name")],
    ] {
        let outcome = run(&jail, who, "p", &[&tool, "open-read", "/dev/null"]);
        assert_eq!(outcome.code(), 122, "{outcome:?}");
        assert!(outcome.stderr.contains("unset"), "{outcome:?}");
    }
}

#[test]
fn what_is_kept_for_another_policy_is_granted_to_nobody() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let tool = program(&jail, "tool", 0o755);
    let own = "/var/lib/lp-run/state/attempts-caller";
    fs::create_dir_all("/var/lib/lp-run/state/attempts-other").expect("make another's");
    fs::create_dir_all(own).expect("make its own");
    for (place, code) in [
        (own, 0),
        ("/var/lib/lp-run/state/attempts-other", 122),
        ("/var/lib/lp-run", 122),
    ] {
        installed(
            &jail,
            &format!("{HEAD}exec = [\"${{COMMAND}}\", \"{place}\"]\n"),
        );
        let outcome = run(&jail, &[], "p", &[&tool, "open-read", "/dev/null"]);
        assert_eq!(outcome.code(), code, "{place}: {outcome:?}");
        assert_eq!(outcome.stderr.contains("kept"), code != 0);
    }
    for place in [own, "/var/lib/lp-run/state/attempts-other"] {
        fs::remove_dir(place).expect("remove it");
    }
}

#[test]
fn the_callers_limits_bind_the_agent_and_not_lp_run() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let policy = "version = 1\nname = \"attempts-limits\"\nextends = [\"@shell\"]\n\
                  [limits]\nopen_files = 64\n";
    let limited = |limits: &[&str]| {
        let mut lp_run = Command::new("prlimit");
        lp_run.args(limits).arg(env!("CARGO_BIN_EXE_lp-run"));
        let show = "ulimit -Sf; ulimit -Hf; ulimit -St; ulimit -Sn; ulimit -Hn; ulimit -Sc";
        jail.run_as(lp_run, policy, &[], &["bash", "-c", show])
    };
    // A soft limit of next to nothing ends neither lp-run nor its report.
    let outcome = limited(&[
        "--fsize=1024:1073741824",
        "--cpu=1000:2000",
        "--data=1048576:",
    ]);
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    assert_eq!(
        outcome.stdout, "1\n1048576\n1000\n64\n64\n0\n",
        "{outcome:?}"
    );
    assert!(outcome.report.is_some());
    let nothing = limited(&["--fsize=1073741824:1073741824"]);
    assert_eq!(nothing.code(), 0, "{nothing:?}");
}

#[test]
fn a_hard_limit_that_is_too_small_is_said_at_the_start() {
    needs!(root(), "root");
    needs!(
        !raises_limits(),
        "a root that may not raise a hard limit (no CAP_SYS_RESOURCE)"
    );
    let jail = Jail::shared();
    let policy = "version = 1\nname = \"attempts-limits\"\nextends = [\"@shell\"]\n";
    for (limit, code) in [
        ("--cpu=5:5", 122),
        ("--nofile=128:128", 122),
        ("--cpu=60:60", 0),
    ] {
        let mut lp_run = Command::new("prlimit");
        lp_run.arg(limit).arg(env!("CARGO_BIN_EXE_lp-run"));
        let outcome = jail.run_as(lp_run, policy, &[], &["true"]);
        assert_eq!(outcome.code(), code, "{limit}: {outcome:?}");
        assert_eq!(outcome.stderr.contains("ulimit"), code != 0, "{outcome:?}");
    }
}
