// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole policies, from text to meaning, on a machine that is a table.

use super::facts::fake::FakeFacts;
use super::model::{Endpoint, FileRule, Target, UserChoice, Verb};
use super::*;

/// Where the tests' policy stands.
const FILE: &str = "/etc/lp-run/policies/p.toml";

fn request(command: &[&str]) -> LoadRequest {
    LoadRequest {
        policy: FILE.to_owned(),
        directory: PathBuf::from("/home/anna/work"),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        needs_command: !command.is_empty(),
        ..LoadRequest::default()
    }
}

fn with(facts: &FakeFacts, text: &str, command: &[&str]) -> Result<Policy, PolicyErrors> {
    let mut facts = facts.clone();
    facts.file(FILE, 0, &format!("version = 1\nname = \"p\"\n{text}\n"));
    load(&request(command), &facts)
}

fn loads(text: &str) -> Policy {
    let mut facts = FakeFacts::usual();
    facts.called_by(1000);
    with(&facts, text, &[]).unwrap_or_else(|errors| panic!("{errors}"))
}

fn refused(text: &str) -> String {
    let mut facts = FakeFacts::usual();
    facts.called_by(1000);
    with(&facts, text, &[])
        .expect_err("should be refused")
        .to_string()
}

fn paths(rule: &FileRule) -> Vec<String> {
    let path = |target: &Target| match target {
        Target::Object(object) => object.path.display().to_string(),
        Target::Create { path, .. } => format!("create {}", path.display()),
        Target::Missing(path) => format!("missing {}", path.display()),
        Target::Pattern(pattern) => pattern.clone(),
        Target::Private(path) => format!("private {}", path.display()),
    };
    rule.targets.iter().map(path).collect()
}

#[test]
fn the_shortest_policy_has_every_default() {
    let policy = loads("");
    assert_eq!(policy.identity.user, UserChoice::Dynamic);
    assert_eq!(policy.home, PathBuf::from("/home/agent"));
    assert_eq!(
        policy.limits.tmp,
        crate::policy::model::Store::Tmpfs(512 << 20)
    );
    let defaults: Vec<_> = policy
        .defaults
        .iter()
        .map(|(key, _)| key.as_str())
        .collect();
    assert!(defaults.contains(&"identity.user") && defaults.contains(&"limits.tmp"));
    let warnings: Vec<_> = policy
        .warnings
        .iter()
        .map(|(_, what)| what.as_str())
        .collect();
    assert_eq!(warnings.len(), 4, "{warnings:?}");
}

#[test]
fn kits_come_first_and_rules_keep_their_origin() {
    let policy = loads("extends = [\"@shell\"]\n[files]\nread = [\"/srv/kb\"]");
    let keys: Vec<_> = policy
        .files
        .iter()
        .map(|rule| rule.info.key.as_str())
        .collect();
    assert_eq!(keys[0], "@shell/files.read[0]");
    assert_eq!(keys[1], "@shell/files.read[0].loader");
    assert_eq!(*keys.last().unwrap(), "files.read[0]");
    assert_eq!(
        paths(&policy.files[1]),
        ["/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"]
    );
}

#[test]
fn the_base_keeps_every_name_of_the_loader() {
    let policy = loads("[files]\nread = [\"${BASE}\"]");
    let Target::Object(loader) = &policy.files[1].targets[0] else {
        panic!()
    };
    assert!(
        loader.links.iter().any(|(link, _)| link.ends_with("lib64")),
        "{:?}",
        loader.links
    );
    assert!(paths(&policy.files[0]).contains(&"/usr/share/zoneinfo".to_owned()));
    assert!(!paths(&policy.files[0]).contains(&"/usr/bin".to_owned()));
}

#[test]
fn a_program_that_is_called_like_a_loader_is_none() {
    let mut facts = FakeFacts::usual();
    facts.file(
        "/usr/lib/x86_64-linux-gnu/ld-linux-other.so.2",
        0,
        "\x7fELF",
    );
    facts.file("/usr/lib/ld-musl-x86_64.so.1", 0, "\x7fELF");
    let policy = with(&facts, "[files]\nread = [\"${BASE}\"]", &[]).unwrap();
    assert_eq!(
        paths(&policy.files[1]),
        [
            "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            "/usr/lib/ld-musl-x86_64.so.1"
        ]
    );
}

#[test]
fn paths_become_objects_places_and_directories_to_make() {
    let policy = loads(
        "[files]\nread = [\"/bin/bash\", \"${TMPDIR}/x\", \"/proc/cpuinfo\", { path = \"/none\", optional = true }]\n\
         write = [{ path = \"${WORKDIR}/out\", create = \"dir\" }, \"${STATE}/db\"]\n\
         deny = [\"**/.env\", \"/srv/kb/later\", \"/srv/kb\"]",
    );
    let found: Vec<_> = policy.files.iter().flat_map(paths).collect();
    assert_eq!(
        found,
        [
            "/usr/bin/bash",
            "private /tmp/x",
            "private /proc/cpuinfo",
            "missing /none",
            "create /home/anna/work/out",
            "create /var/lib/lp-run/state/p/db",
            "**/.env",
            "missing /srv/kb/later",
            "/srv/kb",
        ]
    );
}

#[test]
fn a_private_view_needs_room_for_its_own_places() {
    for (grant, expected) in [
        ("/", "is the whole machine; grant the directories"),
        (
            "/home",
            "leaves no room for the agent's own home \"/home/agent\"",
        ),
    ] {
        let files = format!("[files]\nread = [\"{grant}\"]");
        let errors = refused(&files);
        assert!(errors.contains(expected), "{grant}: {errors}");
        loads(&format!("[identity]\nview = \"host\"\n{files}"));
    }
    loads("[files]\nread = [\"/home/anna\"]");
}

#[test]
fn grants_that_hand_over_the_machine_are_refused() {
    for (grant, expected) in [
        ("/", "is everything"),
        ("/home/anna", "covers the home"),
        ("/home", "covers the home"),
        ("/root", "covers the home"),
        ("${CALLER_HOME}", "covers the home"),
        ("/etc", "lp-run's own state"),
        ("/etc/ssl", "belongs to the system"),
        ("/usr/bin", "holds lp-run itself"),
        ("/usr/include", "belongs to the system"),
        ("/var", "lp-run's own state"),
        ("/proc", "set up by lp-run"),
        ("/sys", "sysfs"),
        ("/run/docker.sock", "network.unix"),
        ("/none", "does not exist"),
        ("~/kb", "${CALLER_HOME}/kb"),
        ("out", "${WORKDIR}/out"),
        ("", "empty"),
    ] {
        let found = refused(&format!("[files]\nwrite = [\"{grant}\"]"));
        assert!(found.contains(expected), "{grant}: {found}");
    }
}

#[test]
fn what_decides_over_root_or_a_login_needs_a_reason() {
    for place in [
        "/boot/grub",
        "/etc/ssl",
        "/usr/lib/modules",
        "/usr/local/bin",
        "/usr/local/lib",
        "/usr/local/sbin",
        "/usr/share",
        "/var/spool/cron",
        "/var/spool/cron/crontabs",
        "/var/lib/containerd",
        "/var/lib/docker/volumes",
        "/var/lib/dpkg",
        "/var/lib/kubelet",
        "/var/lib/rpm",
        "/var/lib/systemd",
        "/run/systemd/system",
        "/root/.ssh",
        "/home/anna/.ssh",
        "/home/anna/.config",
        "/home/other/.ssh",
        "/srv/svc/.ssh",
    ] {
        let mut facts = FakeFacts::usual();
        facts.called_by(1000).dir(place, 0);
        if place.starts_with("/srv/svc") {
            facts.own(place, 900);
        }
        let bare = format!("[files]\nwrite = [\"{place}\"]");
        let found = with(&facts, &bare, &[]).expect_err(place).to_string();
        assert!(found.contains("add dangerous"), "{place}: {found}");
        let reason = format!("[files]\nwrite = [{{ path = \"{place}\", dangerous = \"x\" }}]");
        assert!(with(&facts, &reason, &[]).is_ok(), "{place}");
    }
}

#[test]
fn a_bind_mount_gives_no_second_name_to_what_root_trusts() {
    let mut facts = FakeFacts::usual();
    facts
        .called_by(1000)
        .dir("/srv/bound", 0)
        .dir("/srv/holds/inside", 0)
        .put("/srv/sock", facts::Kind::Socket, 0, 0o666, b"")
        .mount("8:0", "/etc/ssl", "/srv/bound")
        .mount("8:0", "/run/docker.sock", "/srv/sock")
        .mount("8:0", "/srv/holds/inside", "/etc/cron.d")
        .mount("8:1", "/etc/ssl", "/srv/kb");
    for grant in ["/srv/bound", "/srv/holds"] {
        let text = format!("[files]\nwrite = [\"{grant}\"]");
        let found = with(&facts, &text, &[]).expect_err(grant).to_string();
        assert!(found.contains("belongs to the system (/etc)"), "{found}");
    }
    let found = with(&facts, "[network]\nunix = [\"/srv/sock\"]", &[]).unwrap_err();
    assert!(found.to_string().contains("root in disguise"), "{found}");
    // The same directory of another file system is another one.
    assert!(with(&facts, "[files]\nwrite = [\"/srv/kb\"]", &[]).is_ok());
}

#[test]
fn roots_rules_are_held_to_the_caller_only_where_he_chose_the_place() {
    let mut facts = FakeFacts::usual();
    facts.called_by(1000);
    let from = |directory: &str, rule: &str| {
        let mut facts = facts.clone();
        let text = format!("version = 1\nname = \"p\"\n[files]\n{rule}\n");
        facts.file(FILE, 0, &text);
        let request = LoadRequest {
            directory: PathBuf::from(directory),
            ..request(&[])
        };
        load(&request, &facts).map_err(|errors| errors.to_string())
    };
    assert!(from("/srv", "write = [\"/srv/kb\"]").is_ok());
    let chosen = from("/srv", "write = [\"${WORKDIR}/kb\"]").unwrap_err();
    assert!(chosen.contains("does not belong to anna"), "{chosen}");
    // A service starts in `/`, where the distribution's links are.
    from("/", "read = [\"${BASE}\", \"/bin\"]").unwrap();
}

#[test]
fn a_reason_opens_the_system_and_nothing_else() {
    assert_eq!(
        loads("[files]\nwrite = [{ path = \"/etc/ssl\", dangerous = \"certs\" }]")
            .files
            .len(),
        1
    );
    let home = refused("[files]\nwrite = [{ path = \"/home/anna\", dangerous = \"x\" }]");
    assert!(home.contains("covers the home"), "{home}");
    let reason = refused("[files]\nwrite = [{ path = \"/etc/ssl\", dangerous = \" \" }]");
    assert!(reason.contains("no reason"), "{reason}");
}

#[test]
fn sockets_of_root_need_a_reason() {
    let found = refused("[network]\nunix = [\"/run/docker.sock\"]");
    assert!(found.contains("root in disguise"), "{found}");
    let policy = loads(
        "[network]\nunix = [\"/run/postgresql.sock\", { path = \"/run/docker.sock\", dangerous = \"ci\" }]",
    );
    assert_eq!(policy.unix.len(), 2);
    assert!(policy.unix.iter().all(|rule| rule.socket.is_some()));
    assert!(
        loads("[network]\nunix = [\"self\"]").unix[0]
            .socket
            .is_none()
    );
    assert!(refused("[network]\nunix = [\"/srv/kb\"]").contains("is no socket"));
    assert!(refused("[network]\nunix = [\"ssh-agent\"]").contains("not in this version"));
}

#[test]
fn the_policy_itself_is_never_written_by_its_agent() {
    let mut facts = FakeFacts::usual();
    facts.called_by(1000).file(
        "/home/anna/work/p.toml",
        1000,
        "version = 1\nname = \"p\"\n[files]\nwrite = [\"${WORKDIR}\"]",
    );
    let request = LoadRequest {
        policy: "p.toml".to_owned(),
        ..request(&[])
    };
    let found = load(&request, &facts).unwrap_err().to_string();
    assert!(
        found.contains("p.toml:4:10: files.write[0]: \"/home/anna/work\" holds the policy"),
        "{found}"
    );
}

#[test]
fn a_callers_own_policy_gives_nothing_that_he_has_not() {
    let mut facts = FakeFacts::usual();
    facts
        .called_by(1000)
        .put("/srv/secret", facts::Kind::File, 0, 0o600, b"");
    facts.dir("/srv/shared", 900).mode("/srv/shared", 0o777);
    facts.file(
        "/home/anna/p.toml",
        1000,
        "version = 1\nname = \"p\"\n[identity]\nuser = \"svc\"\n[files]\nread = [\"/srv/secret\"]\n\
         write = [\"/srv/shared\", { path = \"/etc/ssl\", dangerous = \"x\" }, \"${WORKDIR}\"]",
    );
    let request = LoadRequest {
        policy: "/home/anna/p.toml".to_owned(),
        ..request(&[])
    };
    let found = load(&request, &facts).unwrap_err().to_string();
    let lines: Vec<_> = found.lines().collect();
    assert_eq!(lines.len(), 4, "{found}");
    assert!(lines[0].contains("may not start programs as \"svc\""));
    assert!(lines[1].contains("may not use \"/srv/secret\""));
    assert!(lines[2].contains("does not belong to anna"));
    assert!(lines[3].contains("only a policy of root may say dangerous"));
}

#[test]
fn agents_are_never_root() {
    assert!(refused("[identity]\nuser = \"root\"").contains("never root"));
    let root = with(&FakeFacts::usual(), "[identity]\nuser = \"caller\"", &[]).unwrap_err();
    assert!(root.to_string().contains("the caller is root"));
    assert_eq!(
        loads("[identity]\nuser = \"caller\"").identity.user,
        UserChoice::Caller
    );
    assert!(refused("[identity]\nuser = \"nobody-here\"").contains("no user of this machine"));
}

#[test]
fn a_user_whose_group_leads_to_root_is_no_agent() {
    let mut facts = FakeFacts::usual();
    let named = "[identity]\nuser = \"svc\"";
    facts.member("svc", "games");
    assert!(with(&facts, named, &[]).is_ok());
    facts.member("svc", "docker");
    let found = with(&facts, named, &[]).unwrap_err().to_string();
    assert!(found.contains("\"svc\" is in the group \"docker\", which leads to root"));
    // Himself he may name, as with `caller`.
    facts.called_by(900);
    assert!(with(&facts, named, &[]).is_ok());
}

fn exit(text: &str, command: &[&str]) -> (u8, String) {
    let mut facts = FakeFacts::usual();
    facts.called_by(1000);
    facts.put(
        "/usr/bin/script",
        facts::Kind::File,
        0,
        0o755,
        b"#!/usr/bin/env -S python3 -u\n",
    );
    facts.put(
        "/usr/bin/loop",
        facts::Kind::File,
        0,
        0o755,
        b"#!/usr/bin/loop\n",
    );
    facts.put("/usr/bin/data", facts::Kind::File, 0, 0o644, b"");
    match with(&facts, text, command) {
        Ok(policy) => {
            let command = policy.command.expect("a command");
            let interpreters = command
                .interpreters
                .iter()
                .map(|object| object.path.display().to_string());
            (
                0,
                format!(
                    "{} {}",
                    command.path.display(),
                    interpreters.collect::<Vec<_>>().join(" ")
                ),
            )
        }
        Err(errors) => (errors.exit_code(), errors.to_string()),
    }
}

#[test]
fn the_program_is_found_granted_or_told() {
    let granted = "[files]\nexec = [\"${COMMAND}\"]";
    assert_eq!(
        exit(granted, &["bash", "-c", "true"]),
        (0, "/usr/bin/bash ".to_owned())
    );
    assert_eq!(
        exit(granted, &["python3"]),
        (0, "/usr/bin/python3 ".to_owned())
    );
    let script = exit(granted, &["script"]);
    assert_eq!(
        script,
        (
            0,
            "/usr/bin/script /usr/bin/env /usr/bin/python3.11".to_owned()
        )
    );
    assert_eq!(exit(granted, &["nothing"]).0, 127);
    assert_eq!(exit(granted, &["/usr/bin/nothing"]).0, 127);
    assert_eq!(exit(granted, &["/usr/bin/data"]).0, 126);
    assert_eq!(exit(granted, &["loop"]).0, 126);
    let closed = exit("", &["bash"]);
    assert_eq!(closed.0, 126);
    assert!(
        closed.1.contains("add exec = [\"${COMMAND}\"] to [files]"),
        "{}",
        closed.1
    );
    assert_eq!(exit("nonsense = 1", &["nothing"]).0, 122);
}

#[test]
fn only_the_command_of_the_policy_may_be_run() {
    let text = "[command]\nrun = [\"bash\", \"-x\"]\n[files]\nexec = [\"${COMMAND}\"]";
    assert_eq!(exit(text, &["bash", "-x"]).0, 0);
    assert_eq!(exit(text, &["bash"]).0, 122);
    assert_eq!(exit(text, &["bash", "-x", "y"]).0, 122);
    let append = text.replace("-x\"]", "-x\"]\nargs = \"append\"");
    assert_eq!(exit(&append, &["bash", "-x", "y"]).0, 0);
    assert_eq!(exit(&append, &["curl", "-x"]).0, 122);
}

#[test]
fn the_work_directory_is_the_callers_choice_also_under_roots_policy() {
    let mut facts = FakeFacts::usual();
    facts.called_by(1000);
    let text = "[files]\nwrite = [\"${WORKDIR}/out\"]";
    facts.dir("/home/anna/work/out", 0);
    let error = with(&facts, text, &[]).unwrap_err().to_string();
    assert!(error.contains("does not belong to anna"), "{error}");
    facts.own("/home/anna/work/out", 1000);
    assert!(with(&facts, text, &[]).is_ok());
}

#[test]
fn git_dirs_are_believed_when_they_point_back() {
    let mut facts = FakeFacts::usual();
    facts.called_by(1000);
    let git = |facts: &mut FakeFacts, dir: &str| {
        facts.dir(dir, 1000);
        facts
            .file(&format!("{dir}/HEAD"), 1000, "ref")
            .dir(&format!("{dir}/objects"), 1000);
        facts.dir(&format!("{dir}/refs"), 1000);
    };
    let text = "[files]\nwrite = [\"${GIT_DIR}\"]";
    assert!(
        with(&facts, text, &[])
            .unwrap_err()
            .to_string()
            .contains("in no git repository")
    );
    let mut plain = facts.clone();
    git(&mut plain, "/home/anna/work/.git");
    assert_eq!(
        paths(&with(&plain, text, &[]).unwrap().files[0]),
        ["/home/anna/work/.git"]
    );
    git(&mut facts, "/home/anna/main/.git");
    facts
        .own("/home/anna/main/.git", 1000)
        .dir("/home/anna/main/.git/worktrees/work", 1000)
        .file(
            "/home/anna/work/.git",
            1000,
            "gitdir: /home/anna/main/.git/worktrees/work\n",
        )
        .file(
            "/home/anna/main/.git/worktrees/work/gitdir",
            1000,
            "/home/anna/work/.git\n",
        )
        .file(
            "/home/anna/main/.git/worktrees/work/commondir",
            1000,
            "../..\n",
        );
    // Root's repository is not lent to whoever has a work tree of it.
    let mut roots = facts.clone();
    roots.own("/home/anna/main/.git", 0);
    let found = with(&roots, text, &[]).unwrap_err().to_string();
    assert!(found.contains("does not belong to anna"), "{found}");
    let linked = with(&facts, text, &[]).unwrap();
    assert_eq!(
        paths(&linked.files[0]),
        [
            "/home/anna/main/.git/worktrees/work",
            "/home/anna/main/.git"
        ]
    );
    facts.file(
        "/home/anna/main/.git/worktrees/work/gitdir",
        1000,
        "/home/anna/other/.git\n",
    );
    assert!(
        with(&facts, text, &[])
            .unwrap_err()
            .to_string()
            .contains("does not point back")
    );
}

#[test]
fn a_link_that_an_agent_could_have_placed_is_not_followed() {
    let mut facts = FakeFacts::usual();
    facts
        .called_by(1000)
        .link("/home/anna/work/data", "/home/anna/kb", 1000);
    facts.file(
        "/home/anna/p.toml",
        1000,
        "version = 1\nname = \"p\"\n[files]\nread = [\"${WORKDIR}/data\"]\n",
    );
    let request = LoadRequest {
        policy: "/home/anna/p.toml".to_owned(),
        ..request(&[])
    };
    let found = load(&request, &facts).unwrap_err().to_string();
    assert!(
        found.contains("is a symbolic link in the work directory"),
        "{found}"
    );
    facts.file(
        "/home/anna/p.toml",
        1000,
        "version = 1\nname = \"p\"\n[files]\nread = [\"${WORKDIR}/data\"]\nwrite = [\"${WORKDIR}\"]\n",
    );
    let found = load(&request, &facts).unwrap_err().to_string();
    assert!(
        found.contains("is a symbolic link where files.write[0] writes"),
        "{found}"
    );
}

#[test]
fn a_work_directory_is_named_without_links() {
    let mut facts = FakeFacts::usual();
    facts
        .called_by(1000)
        .link("/home/anna/way", "/home/anna/work", 1000)
        .file(
            "/etc/lp-run/policies/p.toml",
            0,
            "version = 1\nname = \"p\"",
        );
    let at = |place: &str| LoadRequest {
        workdir: Some(PathBuf::from(place)),
        ..request(&[])
    };
    assert!(load(&at("/home/anna/work"), &facts).is_ok());
    let error = load(&at("/home/anna/way"), &facts).unwrap_err().to_string();
    assert!(error.contains("write /home/anna/work"), "{error}");
}

#[test]
fn a_name_that_may_appear_is_taken_away_where_links_lead() {
    let mut facts = FakeFacts::usual();
    facts
        .link("/srv/way", "/srv/kb", 0)
        .link("/srv/nowhere", "/srv/kb/later", 0);
    let text = |path: &str| format!("[files]\nread = [\"/srv/kb\"]\ndeny = [\"{path}\"]");
    let policy = with(&facts, &text("/srv/way/future/key"), &[]).unwrap();
    assert_eq!(paths(&policy.files[1]), ["missing /srv/kb/future/key"]);
    let error = with(&facts, &text("/srv/nowhere"), &[]).unwrap_err();
    assert!(error.to_string().contains("leads to nothing"), "{error}");
}

#[test]
fn libraries_that_an_agent_linked_in_are_not_granted() {
    let mut facts = FakeFacts::usual();
    facts
        .called_by(0)
        .own("/home/anna/work", 0)
        .own("/home/anna", 0)
        .file("/home/anna/work/e/bin/python3", 0, "ELF")
        .mode("/home/anna/work/e/bin/python3", 0o755)
        .dir("/srv/secret", 0)
        .link("/home/anna/work/e/lib", "/srv/secret", 0);
    let text = |write: &str| {
        format!(
            "[env]\npath = [\"/home/anna/work/e/bin\"]\n[files]\nexec = [\"${{PYTHON}}\"]\n\
             read = [\"${{PYTHON_LIB}}\"]\n{write}"
        )
    };
    let libraries = |text: &str| {
        let policy = with(&facts, text, &[]).unwrap_or_else(|errors| panic!("{errors}"));
        let mut rules = policy.files.iter();
        let rule = rules
            .find(|rule| rule.info.text == "${PYTHON_LIB}")
            .unwrap();
        paths(rule)
    };
    let secret = "/srv/secret".to_owned();
    assert!(
        libraries(&text("")).contains(&secret),
        "the link is no library"
    );
    let written = libraries(&text("write = [\"${WORKDIR}\"]"));
    assert!(!written.contains(&secret), "{written:?}");
}

#[test]
fn scalars_of_the_policy_win_and_the_loser_is_told() {
    let mut facts = FakeFacts::usual();
    facts.file(
        "/etc/lp-run/policies/team.toml",
        0,
        "[limits]\nwall_time = \"1h\"\n[task]\nowner = \"x\"",
    );
    let policy = with(
        &facts,
        "extends = [\"team.toml\"]\n[limits]\nwall_time = \"5m\"",
        &[],
    )
    .unwrap();
    assert_eq!(
        policy.limits.wall_time,
        Some(std::time::Duration::from_secs(300))
    );
    assert_eq!(policy.overridden[0].lost, "\"1h\"");
    assert_eq!(policy.task.owner, None);
}

#[test]
fn network_entries_keep_key_and_meaning() {
    let policy = loads(
        "params = { port = { pattern = \"[0-9]+\", default = \"8080\" } }\n[network]\n\
         allow = [\"127.0.0.1:${port}\", { to = \"10.0.0.0/8:*\", private = true, id = \"inner\" }, \"self\"]\n\
         deny = [\"10.9.0.0/16\"]\nlisten = [\"127.0.0.1:*\"]",
    );
    assert_eq!(policy.network.len(), 4);
    assert_eq!(policy.network[0].info.text, "127.0.0.1:8080");
    assert_eq!(policy.network[1].info.id.as_deref(), Some("inner"));
    assert_eq!(policy.network[2].to, Endpoint::Itself);
    assert!(policy.network[3].takes_away);
    assert_eq!(policy.listen[0].ports, (1, 65535));
    assert!(refused("[network]\nlisten = [\"localhost:80\"]").contains("two addresses"));
}

#[test]
fn ids_are_unique() {
    let text =
        "[files]\nread = [{ path = \"/srv/kb\", id = \"a\" }, { path = \"/srv/kb\", id = \"a\" }]";
    assert!(refused(text).contains("the id \"a\" is files.read[0]'s already"));
}

#[test]
fn a_python_and_its_libraries_are_found() {
    let policy = loads("extends = [\"@python\"]");
    let found: Vec<_> = policy.files.iter().flat_map(paths).collect();
    assert!(
        found.contains(&"/usr/bin/python3.11".to_owned()),
        "{found:?}"
    );
    assert!(
        found.contains(&"/usr/lib/python3.11".to_owned()),
        "{found:?}"
    );
}

#[test]
fn verbs_are_told_apart() {
    let policy = loads("[files]\nwrite = [{ path = \"${WORKDIR}\", exec = true }]");
    assert_eq!(policy.files[0].verb, Verb::Write);
    assert!(policy.files[0].exec);
}

#[test]
fn what_a_users_policy_keeps_is_apart_and_its_log_is_his() {
    let mut facts = FakeFacts::usual();
    let text = "version = 1\nname = \"p\"\n[identity]\nhome = \"state\"\n[files]\nwrite = [\"${CACHE}/pip\"]\n";
    facts.called_by(1000).file("/home/anna/p.toml", 1000, text);
    let request = LoadRequest {
        policy: "/home/anna/p.toml".to_owned(),
        ..request(&[])
    };
    let policy = load(&request, &facts).unwrap();
    assert_eq!(
        policy.files.iter().flat_map(paths).collect::<Vec<_>>(),
        [
            "create /var/cache/lp-run/@1000/p/pip",
            "create /var/lib/lp-run/state/@1000/p/home"
        ]
    );
    for (log, fine) in [
        ("/home/anna/kb/audit.jsonl", true),
        ("/var/log/audit.jsonl", false),
        ("/none/audit.jsonl", false),
    ] {
        let text = format!("version = 1\nname = \"p\"\n[audit]\nlog = \"{log}\"\n");
        facts.file("/home/anna/p.toml", 1000, &text);
        assert_eq!(load(&request, &facts).is_ok(), fine, "{log}");
    }
}

#[test]
fn a_program_without_its_loader_is_told_with_the_line_to_write() {
    let mut facts = FakeFacts::usual();
    let loader = "/usr/lib/ld-test.so";
    facts.file(loader, 0, "").mode(loader, 0o755);
    let program = resolve::loader::tests::program(loader);
    facts.file("/usr/bin/dynamic", 0, &program);
    facts.mode("/usr/bin/dynamic", 0o755);
    let told = |files: &str| {
        let policy = with(&facts, files, &[]).unwrap_or_else(|errors| panic!("{errors}"));
        let mut warnings = policy.warnings.into_iter();
        warnings.find(|(_, text)| text.contains("cannot start without"))
    };
    let (place, text) = told("[files]\nexec = [\"/usr/bin/dynamic\"]").unwrap();
    assert_eq!(place.line, 4);
    assert!(text.contains("`/usr/bin/dynamic`") && text.contains(loader));
    assert!(text.contains("read = [\"${BASE}\"]"));
    for granted in ["read = [\"/usr/lib\"]", "read = [\"/usr/lib/ld-test.so\"]"] {
        let files = format!("[files]\nexec = [\"/usr/bin/dynamic\"]\n{granted}");
        assert_eq!(told(&files), None, "{granted}");
    }
}

/// What keeps anna, or whoever `change` makes the caller, from starting a policy.
fn refusals(text: &str, change: impl FnOnce(&mut FakeFacts) -> &mut FakeFacts) -> Vec<String> {
    let mut facts = FakeFacts::usual();
    facts.called_by(1000);
    change(&mut facts);
    let policy = with(&facts, text, &[]).unwrap_or_else(|errors| panic!("{errors}"));
    policy.refusals.iter().map(ToString::to_string).collect()
}

#[test]
fn only_who_is_named_may_start_a_policy() {
    let none: [String; 0] = [];
    for (text, admitted) in [
        ("", true),
        ("[invoke]\nusers = [\"anna\"]", true),
        ("[invoke]\nusers = [\"svc\", \"anna\"]", true),
        ("[invoke]\nusers = [\"svc\"]", false),
        ("[invoke]\nusers = []", false),
        ("[invoke]\ngroups = [\"support\"]", true),
        ("[invoke]\ngroups = [\"others\"]", false),
        ("[invoke]\nusers = [\"svc\"]\ngroups = [\"support\"]", true),
        (
            "[invoke]\nusers = [\"no-such-user\"]\ngroups = [\"no-such-group\"]",
            false,
        ),
    ] {
        let found = refusals(text, |facts| {
            facts.member("anna", "support").member("svc", "others")
        });
        assert_eq!(found.is_empty(), admitted, "{text} {found:?}");
    }
    // Root is nobody else.
    let by_root = |text: &str| refusals(text, |facts| facts.called_by(0));
    assert_eq!(by_root("[invoke]\nusers = [\"root\"]"), none);
    assert_eq!(
        by_root("[task]\nowner = \"a@b\"\n[invoke]\nusers = [\"anna\"]"),
        [format!(
            "{FILE}:5:1: invoke: root (uid 0) may not start this policy; ask \"a@b\""
        )]
    );
}

#[test]
fn who_became_root_by_su_is_who_logged_in() {
    let text = "[invoke]\nusers = [\"anna\"]";
    let su = |login: u32| refusals(text, |facts| facts.called_by(0).logged_in(login));
    assert!(su(1000).is_empty());
    assert!(su(900)[0].contains("svc (uid 900)"));
    assert!(su(4711)[0].contains("4711 (uid 4711)"));
    assert!(su(0)[0].contains("root (uid 0)"));
    // Where sudo has said who it was, or lp-run is not root's, the login is not asked.
    let named = refusals(text, |facts| facts.called_by(900).logged_in(1000));
    assert!(named[0].contains("svc (uid 900)"));
}

#[test]
fn an_overdue_review_warns_and_a_strict_one_refuses() {
    let task = "purpose = \"x\"\nowner = \"y\"\n";
    for (today, overdue) in [
        ("2027-03-01T23:59:59Z", false),
        ("2027-03-02T00:00:00Z", true),
    ] {
        for (strict, refused) in [("", false), ("strict = true", overdue)] {
            let text = format!("[task]\n{task}review_by = 2027-03-01\n{strict}");
            let mut facts = FakeFacts::usual();
            facts.at(today);
            let policy = with(&facts, &text, &[]).unwrap();
            assert_eq!(policy.task.overdue, overdue, "{text} {today}");
            assert_eq!(
                policy.refusals.len(),
                usize::from(refused),
                "{text} {today}"
            );
            let warned = policy
                .warnings
                .iter()
                .any(|(_, what)| what.contains("due on"));
            assert_eq!(warned, overdue && !refused, "{text} {today}");
        }
    }
}

#[test]
fn who_may_start_a_policy_is_its_own_word() {
    let mut facts = FakeFacts::usual();
    let team = "version = 1\n[invoke]\nusers = [\"anna\"]\n";
    facts.file("/etc/lp-run/policies/team.toml", 0, team);
    let found = with(&facts, "extends = [\"team.toml\"]", &[]).unwrap_err();
    assert_eq!(
        found.to_string(),
        "team.toml:2:1: invoke: holds only in the policy itself; write it there"
    );
}

#[test]
fn a_policy_holds_in_its_window_and_in_the_zone_that_it_names() {
    let text = "[valid]\nnot_after = 2026-12-31\nhours = \"Mon-Fri 08:00-18:00\"";
    let berlin = format!("{text}\ntz = \"Europe/Berlin\"");
    for (policy, now, refused) in [
        // 07:30 UTC is 08:30 in Berlin; the machine itself has no zone and takes UTC.
        (&berlin, "2026-11-24T07:30:00Z", None),
        (
            &text.to_owned(),
            "2026-11-24T07:30:00Z",
            Some("valid.hours"),
        ),
        (&text.to_owned(), "2026-11-24T08:00:00Z", None),
        (&berlin, "2026-11-24T17:00:00Z", Some("valid.hours")),
        (&berlin, "2026-12-31T16:00:00Z", None),
        (&berlin, "2027-01-01T12:00:00Z", Some("valid.not_after")),
    ] {
        let found = refusals(policy, |facts| facts.at(now));
        match refused {
            None => assert!(found.is_empty(), "{now} {found:?}"),
            Some(key) => assert!(found[0].contains(key), "{now} {found:?}"),
        }
    }
}
