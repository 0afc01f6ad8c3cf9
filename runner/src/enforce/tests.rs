// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mechanisms together, on this kernel: a policy is compiled and prepared, a child puts it
//! in force as shim and agent do, and tries what is allowed beside what is not. Needs root;
//! without, each test says so and passes over.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::host::Depth;
use crate::plan::{CompileOptions, compile};
use crate::policy::facts::{Facts, SystemFacts, User};
use crate::policy::model::{
    Audit, FileRule, HomeChoice, Identity, Limits, Policy, RuleInfo, Target, Task, UserChoice,
    Verb, ViewChoice,
};
use crate::sys::trial::unshare;
use crate::testing::{in_child, syscall_errno};

/// A store of files with an owner of its own, away from the places that a view replaces.
struct Store(tempfile::TempDir);

const OWNER: u32 = 64_123;

impl Store {
    fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("lp-run-test-")
            .tempdir_in("/srv")
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let store = Self(dir);
        for name in ["granted", "work", "secret"] {
            let path = store.path(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("file"), name).unwrap();
            // Open to everybody, so that it is not the mode that refuses.
            for (path, mode) in [(path.join("file"), 0o666), (path.clone(), 0o777)] {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        for path in [store.path("work"), store.path("work/file")] {
            chown(path, Some(OWNER), Some(OWNER)).unwrap();
        }
        store
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }
}

fn rule(verb: Verb, path: &Path) -> FileRule {
    FileRule {
        info: RuleInfo {
            key: format!("files.{verb:?}"),
            ..RuleInfo::default()
        },
        verb,
        targets: vec![Target::Object(
            SystemFacts::default().open(path, &[]).unwrap(),
        )],
        exec: false,
        dangerous: None,
        mask_fallback: false,
    }
}

fn policy(view: ViewChoice, files: Vec<FileRule>) -> Policy {
    let root = User {
        name: "root".to_owned(),
        uid: 0,
        gid: 0,
        home: PathBuf::from("/root"),
    };
    Policy {
        name: "enforce-tests".to_owned(),
        file: PathBuf::from("tests.toml"),
        sha256: String::new(),
        file_owner: 0,
        task: Task::default(),
        command: None,
        invoke: None,
        valid: None,
        params: BTreeMap::new(),
        identity: Identity {
            user: UserChoice::Dynamic,
            home: HomeChoice::Temp,
            terminal: true,
            stdio_direct: false,
            view,
        },
        env_pass: Vec::new(),
        env_set: BTreeMap::new(),
        path_dirs: Vec::new(),
        files,
        existing: Default::default(),
        network: Vec::new(),
        resolvers: Vec::new(),
        listen: Vec::new(),
        unix: Vec::new(),
        limits: Limits {
            memory: None,
            processes: None,
            cpu: None,
            wall_time: None,
            open_files: Some(100),
            file_size: Some(1 << 20),
            tmp: crate::policy::model::Store::Tmpfs(1 << 20),
            shm: 1 << 20,
            stop_signal: 15,
            stop_grace: Duration::from_secs(1),
            denials: None,
        },
        syscalls_strict: false,
        degrade: Vec::new(),
        audit: Audit {
            log: None,
            stop_on_failure: true,
            tell_agent: false,
            count_files: false,
            require_counts: false,
        },
        secrets: Vec::new(),
        workdir: PathBuf::from("/tmp"),
        way: Vec::new(),
        home: PathBuf::from("/tmp/home"),
        kept: ["/var/lib/lp-run/state/test", "/var/cache/lp-run/test"].map(PathBuf::from),
        mounts: Vec::new(),
        caller: root,
        refusals: Vec::new(),
        warnings: Vec::new(),
        defaults: Vec::new(),
        overridden: Vec::new(),
    }
}

/// Given to each agent.
const SECRETS: &[(&str, &[u8])] = &[("token", b"a secret")];

/// Puts `policy` in force in a child and runs `act` there, as the agent. `false`: not root.
fn confined(policy: Policy, act: impl FnOnce(&Prepared)) -> bool {
    if !nix::unistd::geteuid().is_root() {
        let _ = writeln!(io::stderr(), "needs root: passed over");
        return false;
    }
    let host = Host::probe(Depth::Run);
    let plan = compile(policy, &host, &CompileOptions::default()).unwrap();
    let state = tempfile::tempdir_in("/run").unwrap();
    let self_dir = state.path().join("self");
    fs::create_dir(&self_dir).unwrap();
    fs::set_permissions(&self_dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(self_dir.join("policy.txt"), "what it may do").unwrap();
    let options = PrepareOptions {
        state_dir: state.path(),
        run_dir: &state.path().join("run"),
        self_dir: Some(&self_dir),
        secrets: SECRETS,
        inherited: rlimits::Inherited::now(),
    };
    let prepared = prepare(&plan, &host, &options).unwrap();
    in_child(|| {
        unshare(libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC).unwrap();
        // Pid 1 builds the tree, its child is confined.
        in_child(|| {
            let proc = fs::File::open("/proc").unwrap();
            let done = prepared
                .apply_memfd(proc.as_fd())
                .and_then(|()| prepared.apply_view());
            done.map_err(|error| prepared.describe(&error)).unwrap();
            in_child(|| {
                become_agent(&prepared).unwrap();
                act(&prepared);
            });
        });
    });
    true
}

fn become_agent(prepared: &Prepared) -> Result<(), String> {
    let mut evidence = CanaryEvidence::default();
    let steps = [
        Prepared::apply_rlimits,
        Prepared::apply_identity,
        Prepared::apply_keyring,
        Prepared::apply_no_new_privs,
    ];
    steps
        .iter()
        .try_for_each(|step| step(prepared))
        .and_then(|()| prepared.apply_landlock(&mut evidence))
        .and_then(|()| {
            prepared.try_before_filter(&mut evidence);
            prepared.apply_seccomp(&mut evidence)
        })
        .map_err(|error| prepared.describe(&error))?;
    assert!(
        evidence.landlock_holds() && evidence.seccomp_holds() && evidence.memfd_holds(),
        "{evidence:?}"
    );
    Ok(())
}

/// 0 or the errno.
fn errno<T>(result: io::Result<T>) -> i32 {
    result
        .err()
        .map_or(0, |error| error.raw_os_error().unwrap_or(-1))
}

fn open(path: impl AsRef<Path>) -> i32 {
    errno(File::open(path))
}

fn write(path: impl AsRef<Path>) -> i32 {
    errno(File::options().write(true).open(path))
}

#[test]
fn only_what_is_granted_exists() {
    let store = Store::new();
    let policy = policy(
        ViewChoice::Private,
        vec![rule(Verb::Read, &store.path("granted"))],
    );
    confined(policy, |_| {
        assert_eq!(open(store.path("granted/file")), 0);
        assert_eq!(open(store.path("granted")), 0);
        assert_eq!(write(store.path("granted/file")), libc::EROFS);
        assert_eq!(errno(fs::write(store.path("granted/new"), "")), libc::EROFS);
        assert_eq!(
            errno(fs::remove_file(store.path("granted/file"))),
            libc::EROFS
        );
        for hidden in [
            store.path("secret/file"),
            "/etc/shadow".into(),
            "/usr/bin/true".into(),
        ] {
            assert_eq!(open(&hidden), libc::ENOENT, "{}", hidden.display());
        }
        assert_eq!(open("/"), 0, "the private root may be listed");
        assert_eq!(errno(fs::create_dir("/new")), libc::EROFS);
        for climb in ["/proc/self/root/etc/shadow", "/proc/self/cwd/../etc/shadow"] {
            assert_eq!(open(climb), libc::ENOENT, "{climb}");
        }
    });
}

#[test]
fn private_places_are_usable_and_hold_no_programs() {
    let store = Store::new();
    let policy = policy(
        ViewChoice::Private,
        vec![rule(Verb::Read, &store.path("granted"))],
    );
    confined(policy, |prepared| {
        for place in ["/tmp", "/var/tmp", "/dev/shm", "/tmp/home"] {
            let file = Path::new(place).join("script");
            fs::write(&file, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            let run = std::process::Command::new(&file).status();
            assert_eq!(errno(run), libc::EACCES, "{place}");
            fs::rename(&file, Path::new(place).join("renamed")).unwrap();
            assert_eq!(errno(symlink("/", Path::new(place).join("link"))), 0);
        }
        assert_eq!(errno(fs::write("/dev/null", "x")), 0);
        assert_eq!(errno(fs::write("/dev/full", "x")), libc::ENOSPC);
        assert_eq!(errno(fs::create_dir("/dev/new")), libc::EROFS);
        assert_eq!(
            fs::read_link("/dev/stdin").unwrap(),
            Path::new("/proc/self/fd/0")
        );
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        assert!(
            passwd.contains(&format!("agent:x:{0}:{0}:", prepared.identity.uid)),
            "{passwd}"
        );
        // Root's and 0644: the mode is asked before the mount.
        assert_eq!(write("/etc/passwd"), libc::EACCES);
        assert_eq!(
            fs::read_to_string("/run/lp-run/self/policy.txt").unwrap(),
            "what it may do"
        );
        assert_eq!(write("/run/lp-run/self/policy.txt"), libc::EACCES);
        let node = syscall_errno(
            libc::SYS_mknod,
            [c"/tmp/n".as_ptr() as u64, 0o020_666, 0x103],
        );
        assert!([libc::EPERM, libc::EACCES].contains(&node), "{node}");
    });
}

#[test]
fn the_agent_is_nobody_in_particular() {
    let store = Store::new();
    let policy = policy(
        ViewChoice::Private,
        vec![rule(Verb::Read, &store.path("granted"))],
    );
    confined(policy, |prepared| {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let field = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let uid = prepared.identity.uid;
        assert_eq!(field("Uid:"), format!("{uid} {uid} {uid} {uid}"));
        assert_eq!(field("Gid:"), format!("{uid} {uid} {uid} {uid}"));
        assert_eq!(field("Groups:"), "");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2");
        assert_eq!(
            open("/proc/1/status"),
            libc::ENOENT,
            "pid 1 is not even a name"
        );
        assert_eq!(
            write("/proc/self/attr/current"),
            libc::EROFS,
            "its mode is 0666"
        );
        assert_eq!(write("/proc/sys/kernel/core_pattern"), libc::EACCES);
        assert_eq!(syscall_errno(libc::SYS_setuid, [0; 3]), libc::EPERM);
        assert_eq!(syscall_errno(libc::SYS_setgroups, [0; 3]), libc::EPERM);
        assert_eq!(syscall_errno(libc::SYS_kill, [1, 9, 0]), libc::EPERM);
        let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
        assert_eq!(nix::sys::resource::getrlimit(limit).unwrap(), (100, 100));
    });
}

#[test]
fn what_the_agent_makes_belongs_to_the_trees_owner() {
    let store = Store::new();
    let work = store.path("work");
    let policy = policy(ViewChoice::Private, vec![rule(Verb::Write, &work)]);
    let ran = confined(policy, |prepared| {
        assert_eq!(fs::metadata(&work).unwrap().uid(), prepared.identity.uid);
        fs::write(work.join("file"), "changed").unwrap();
        fs::write(work.join("made"), "x").unwrap();
        fs::create_dir(work.join("directory")).unwrap();
        fs::rename(work.join("made"), work.join("directory/moved")).unwrap();
        fs::hard_link(work.join("file"), work.join("again")).unwrap();
        fs::set_permissions(work.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(errno(chown(work.join("file"), Some(0), None)), libc::EPERM);
        let run = work.join("directory/moved");
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(
            errno(std::process::Command::new(&run).status()),
            libc::EACCES
        );
        let across = fs::rename(work.join("file"), "/tmp/file");
        assert_eq!(errno(across), libc::EXDEV);
    });
    if ran {
        let made = fs::metadata(store.path("work/directory/moved")).unwrap();
        assert_eq!((made.uid(), made.gid()), (OWNER, OWNER));
        assert_eq!(
            fs::read_to_string(store.path("work/file")).unwrap(),
            "changed"
        );
    }
}

#[test]
fn programs_run_where_exec_is_granted_only() {
    let store = Store::new();
    let program = store.path("granted/program");
    fs::copy("/bin/busybox", &program).unwrap();
    let run = |program: &Path| errno(std::process::Command::new(program).arg("true").status());
    let files = vec![
        rule(Verb::Exec, &store.path("granted")),
        rule(Verb::Read, &store.path("work")),
    ];
    fs::copy("/bin/busybox", store.path("work/program")).unwrap();
    confined(policy(ViewChoice::Private, files), |_| {
        assert_eq!(run(&program), 0);
        assert_eq!(open(store.path("work/program")), 0);
        assert_eq!(run(&store.path("work/program")), libc::EACCES);
    });
}

#[test]
fn the_hosts_tree_is_read_only_and_closed() {
    let store = Store::new();
    let work = store.path("work");
    let files = vec![
        rule(Verb::Read, &store.path("granted")),
        rule(Verb::Write, &work),
    ];
    confined(policy(ViewChoice::Host, files), |_| {
        assert_eq!(open(store.path("granted/file")), 0);
        assert_eq!(write(store.path("granted/file")), libc::EROFS);
        assert_eq!(open(store.path("secret/file")), libc::EACCES);
        assert_eq!(
            errno(fs::metadata(store.path("secret/file"))),
            0,
            "its name can be seen"
        );
        assert_eq!(errno(fs::write(store.path("secret/new"), "")), libc::EROFS);
        assert_eq!(open("/etc/hostname"), libc::EACCES);
        assert_eq!(errno(fs::write(work.join("new"), "")), 0);
        assert_eq!(errno(fs::write("/tmp/new", "")), 0);
        let changed = fs::set_permissions("/tmp/../etc", fs::Permissions::from_mode(0o777));
        assert_eq!(errno(changed), libc::EROFS);
    });
}

#[test]
fn masks_hide_and_protect() {
    let store = Store::new();
    // A mask holds only where nobody but root changes what stands around it.
    let closed = fs::Permissions::from_mode(0o755);
    fs::set_permissions(store.path("granted"), closed).unwrap();
    fs::create_dir(store.path("granted/private")).unwrap();
    fs::write(store.path("granted/private/file"), "").unwrap();
    let files = vec![
        rule(Verb::Read, &store.path("granted")),
        rule(Verb::Deny, &store.path("granted/private")),
        rule(Verb::Deny, &store.path("granted/file")),
    ];
    confined(policy(ViewChoice::Private, files), |_| {
        assert_eq!(open(store.path("granted")), 0);
        assert_eq!(open(store.path("granted/file")), libc::EACCES);
        assert_eq!(open(store.path("granted/private")), libc::EACCES);
        assert_eq!(open(store.path("granted/private/file")), libc::EACCES);
    });
}

#[test]
fn a_plan_with_an_open_gap_is_not_prepared() {
    let store = Store::new();
    let files = vec![
        rule(Verb::Read, &store.path("granted")),
        // Anybody may rename over it: no mask would hold.
        rule(Verb::Deny, &store.path("granted/file")),
    ];
    let mut host = Host::emulated(7);
    host.bpf_lsm = Host::probe(Depth::Run).bpf_lsm;
    let options = CompileOptions::default();
    let plan = compile(policy(ViewChoice::Private, files), &host, &options).unwrap();
    let state = tempfile::tempdir().unwrap();
    let options = PrepareOptions {
        state_dir: state.path(),
        run_dir: state.path(),
        self_dir: None,
        secrets: SECRETS,
        inherited: rlimits::Inherited::now(),
    };
    let error = prepare(&plan, &host, &options).unwrap_err();
    assert!(
        matches!(error, EnforceError::OpenGap("file-deny")),
        "{error:?}"
    );
}

#[test]
fn terminals_are_the_runs_own() {
    let store = Store::new();
    let policy = policy(
        ViewChoice::Private,
        vec![rule(Verb::Read, &store.path("granted"))],
    );
    confined(policy, |prepared| {
        let (outside, inside) = (
            prepared.devpts().unwrap(),
            fs::metadata("/dev/pts").unwrap(),
        );
        let held = nix::sys::stat::fstat(outside.as_fd()).unwrap();
        assert_eq!(held.st_dev, inside.dev());
        assert_eq!(open("/dev/ptmx"), 0);
    });
}

#[test]
fn a_file_system_without_id_maps_is_named_with_its_rule() {
    let error = EnforceError::IdMap {
        path: PathBuf::from("/srv/work"),
        rule: Some("files.write[0]".to_owned()),
        filesystem: "9p".to_owned(),
        source: crate::sys::SysError {
            call: "mount_setattr",
            source: io::Error::from_raw_os_error(libc::EINVAL),
        },
    };
    assert_eq!(
        error.to_string(),
        "map the owner of `/srv/work` to the agent for files.write[0] (file system 9p)"
    );
}

#[test]
fn a_secret_is_the_agents_to_read_and_no_more() {
    use std::os::unix::fs::MetadataExt;
    confined(policy(ViewChoice::Private, Vec::new()), |prepared| {
        let token = "/run/lp-run/secrets/token";
        assert_eq!(fs::read(token).unwrap(), b"a secret");
        let metadata = fs::metadata(token).unwrap();
        let expected = (prepared.identity.uid, 0o400);
        assert_eq!((metadata.uid(), metadata.mode() & 0o7777), expected);
        let _ = fs::set_permissions(token, fs::Permissions::from_mode(0o600));
        assert_eq!(write(token), libc::EACCES);
        assert_eq!(errno(fs::remove_file(token)), libc::EACCES);
        assert_eq!(
            errno(fs::write("/run/lp-run/secrets/new", "x")),
            libc::EACCES
        );
    });
}

#[test]
fn a_secret_that_is_taken_away_is_gone_for_who_has_it_open_too() {
    use std::io::{Read, Seek};
    if !nix::unistd::geteuid().is_root() {
        let _ = writeln!(io::stderr(), "needs root: passed over");
        return;
    }
    let host = Host::probe(Depth::Run);
    let plan = compile(
        policy(ViewChoice::Private, Vec::new()),
        &host,
        &CompileOptions::default(),
    );
    let state = tempfile::tempdir_in("/run").unwrap();
    let options = PrepareOptions {
        state_dir: state.path(),
        run_dir: &state.path().join("run"),
        self_dir: None,
        secrets: &[("token", b"a secret"), ("other", b"stays")],
        inherited: rlimits::Inherited::now(),
    };
    let prepared = prepare(&plan.unwrap(), &host, &options).unwrap();
    let open = |name: &str| {
        use nix::fcntl::{OFlag, openat};
        let directory = prepared.view.secrets.as_ref().unwrap();
        openat(
            directory,
            name,
            OFlag::O_RDONLY,
            nix::sys::stat::Mode::empty(),
        )
        .map(fs::File::from)
    };
    let mut held = open("token").unwrap();
    let mut content = String::new();
    held.read_to_string(&mut content).unwrap();
    assert_eq!(content, "a secret");
    prepared.view.revoke_secret("token").unwrap();
    assert_eq!(open("token").unwrap_err(), nix::errno::Errno::ENOENT);
    held.rewind().unwrap();
    assert_eq!(held.read_to_string(&mut String::new()).unwrap(), 0);
    assert!(open("other").is_ok());
    let again = prepared.view.revoke_secret("token").unwrap_err();
    assert_eq!(again.raw_os_error(), Some(libc::ENOENT));
    prepared.release().unwrap();
}
