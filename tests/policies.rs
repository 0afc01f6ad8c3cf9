// SPDX-License-Identifier: MIT OR Apache-2.0
//! The policies that lp-run ships, tested as code with the programs that they are for: each one
//! says what it allows, does its work, is refused beyond it, and counts both.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::needs;
use crate::support::{Jail, Outcome, lp_run, root};

/// An owner that no test runs as.
pub const OWNER: u32 = 1000;

/// A work directory, and beside it a shipped policy: no policy may lie where its agent writes.
pub struct Bench {
    jail: Jail,
    policy: String,
    report: String,
    /// Where its commands run.
    pub work: PathBuf,
}

impl Bench {
    /// An empty work directory for `policies/POLICY.toml`.
    pub fn new(policy: &str) -> Self {
        Self::edited(policy, |text| text)
    }

    /// The same for a policy that somebody has changed.
    pub fn edited(policy: &str, edit: impl FnOnce(String) -> String) -> Self {
        let jail = Jail::new();
        let name = format!("{policy}.toml");
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../policies")
            .join(&name);
        let text = fs::read_to_string(&shipped).expect("read a shipped policy");
        let policy = jail.file(&format!("policies/{name}"), edit(text));
        let report = jail.path().join("report.json");
        Self {
            policy: policy.to_string_lossy().into_owned(),
            report: report.to_string_lossy().into_owned(),
            work: jail.folder("work"),
            jail,
        }
    }

    /// Runs `command` in the work directory, with options of lp-run before it.
    fn run(&self, options: &[&str], command: &[&str]) -> Outcome {
        let fixed = ["--policy", &self.policy, "--report", &self.report];
        let words = [&fixed[..], options, &["--"], command].concat();
        let mut outcome = lp_run(&self.work, &words);
        outcome.report = fs::read(&self.report)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        outcome
    }

    /// Runs a bash script; each of its lines is tried, whatever came of the one before.
    pub fn bash(&self, options: &[&str], script: &str) -> Outcome {
        self.run(options, &["bash", "-c", script])
    }

    /// What `--plan` says, with every run of spaces and line breaks as one space.
    fn plan(&self, options: &[&str]) -> String {
        let options = [&["--plan"], options].concat();
        let outcome = self.run(&options, &["bash"]);
        assert_eq!(outcome.code(), 0, "{outcome:#?}");
        let words: Vec<&str> = outcome.stdout.split_whitespace().collect();
        words.join(" ")
    }

    fn work(&self) -> String {
        self.work.to_string_lossy().into_owned()
    }
}

/// Starts a program of the test's own preparation, without a sandbox.
pub fn prepare(folder: &Path, script: &str) {
    let status = Command::new("sh")
        .args(["-ec", script])
        .current_dir(folder)
        .status();
    assert!(status.expect("start sh").success(), "{script}");
}

/// Whether the system has a program.
pub fn exists(program: &str) -> bool {
    Path::new("/usr/bin").join(program).exists()
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
}

/// The sum of the counts of the denials of a target.
fn denied(outcome: &Outcome, target: &str) -> u64 {
    let rows = outcome.denials(target);
    rows.iter().filter_map(|row| row["count"].as_u64()).sum()
}

/// One refusal of a target, counted once.
pub fn assert_refused(outcome: &Outcome, target: &str, errno: &str) {
    let rows = outcome.denials(target);
    assert_eq!(rows.len(), 1, "{target}: {outcome:#?}");
    assert_eq!(rows[0]["errno"], errno, "{target}: {outcome:#?}");
    assert_eq!(rows[0]["count"], 1, "{target}: {outcome:#?}");
}

/// A repository with one commit that belongs to somebody who is neither root nor the agent.
fn repository(folder: &Path) {
    fs::write(folder.join("note"), "first\n").expect("write a file");
    prepare(
        folder,
        "git init -q . && git config user.name n && git config user.email n@example.com
         git add note && git commit -q -m first",
    );
    prepare(folder, &format!("chown -R {OWNER}:{OWNER} ."));
}

#[test]
fn the_plans_say_what_the_policies_allow() {
    needs!(root(), "root");
    for (policy, grant) in [
        ("read-only", "read"),
        ("offline", "write"),
        ("coding-agent", "write+exec"),
        ("ci-integration", "write+exec"),
    ] {
        let bench = Bench::new(policy);
        let plan = bench.plan(&[]);
        let rule = format!(" {grant} {} files.", bench.work());
        assert_says(&plan, &[&rule, "a uid of its own", "private: only what"]);
        assert_says(&plan, &["nothing else", "network network-namespace"]);
        let writes = plan.matches(" write ").count() + plan.matches(" write+exec ").count();
        let expected = usize::from(grant != "read");
        assert_eq!(writes, expected, "{policy}: {plan}");
        let reaches = plan.contains(" connect ");
        assert_eq!(reaches, policy == "ci-integration", "{policy}: {plan}");
    }
}

#[test]
fn read_only_reads_the_work_directory_and_changes_nothing() {
    needs!(root() && exists("bash"), "root and bash");
    let bench = Bench::new("read-only");
    repository(&bench.work);
    let outcome = bench.bash(
        &[],
        "cat note | tr a-z A-Z; git log --format=%s; git status --short
         echo more > note; echo new > new; mv note moved; cat /etc/shadow
         exec 3<>/dev/tcp/127.0.0.1/9",
    );
    assert_eq!(outcome.stdout, "FIRST\nfirst\n", "{outcome:#?}");
    assert_says(
        &outcome.stderr,
        &[
            "note: Read-only file system",
            "/etc/shadow: No such file or directory",
            "/dev/tcp/127.0.0.1/9: Operation not permitted",
        ],
    );
    assert_refused(&outcome, "/work/note", "EROFS");
    assert_refused(&outcome, "/work/new", "EROFS");
    assert_refused(&outcome, "/etc/shadow", "ENOENT");
    assert_refused(&outcome, "127.0.0.1:9", "EPERM");
    let names = fs::read_dir(&bench.work).expect("list").count();
    assert_eq!(names, 2, "`note` and `.git` alone");
    let note = fs::read_to_string(bench.work.join("note")).expect("read");
    assert_eq!(note, "first\n");
}

#[test]
fn a_program_outside_the_path_is_named_with_what_to_do() {
    needs!(root(), "root");
    let outcome = Bench::new("read-only").run(&[], &["no-such-program"]);
    assert_eq!(outcome.code(), 127, "{outcome:#?}");
    let words: Vec<&str> = outcome.stderr.split_whitespace().collect();
    let said = words.join(" ").replace(" lp-run:", "");
    assert_says(&said, &["\"no-such-program\" is not found", "full path"]);
}

#[test]
fn offline_edits_the_work_directory_and_reaches_nothing() {
    needs!(root() && exists("bash"), "root and bash");
    let bench = Bench::new("offline");
    fs::write(bench.work.join("list"), "b\na\n").expect("write a file");
    prepare(&bench.work, &format!("chown -R {OWNER}:{OWNER} ."));
    let outcome = bench.bash(
        &[],
        "sort list > sorted; cat sorted; sed -i s/a/c/ list; tar cf all.tar list sorted
         printf '#!/bin/sh\\necho ran\\n' > script; chmod +x script; ./script
         exec 3<>/dev/tcp/127.0.0.1/9",
    );
    assert_eq!(outcome.stdout, "a\nb\n", "{outcome:#?}");
    assert_says(
        &outcome.stderr,
        &["./script: Permission denied", "Operation not permitted"],
    );
    assert_refused(&outcome, "127.0.0.1:9", "EPERM");
    let row = outcome.rule("files.write[0]");
    assert!(row["allowed"].as_u64() >= Some(4), "{outcome:#?}");
    for name in ["list", "sorted", "all.tar", "script"] {
        let file = fs::metadata(bench.work.join(name)).expect("it was made");
        assert_eq!(file.uid(), OWNER, "{name}");
    }
}

#[test]
fn a_coding_agent_builds_and_commits_in_another_users_repository() {
    let tools = ["git", "gcc", "make", "python3"].map(exists);
    needs!(
        root() && tools == [true; 4],
        "root, git, gcc, make, python3"
    );
    let bench = Bench::new("coding-agent");
    repository(&bench.work);
    fs::write(
        bench.work.join("hello.c"),
        "#include <stdio.h>\nint main(void) { puts(\"built\"); return 0; }\n",
    )
    .expect("write a file");
    fs::write(bench.work.join("Makefile"), "hello: hello.c\n").expect("write a file");
    prepare(&bench.work, &format!("chown -R {OWNER}:{OWNER} ."));
    let outcome = bench.bash(
        &[],
        "make -s hello && ./hello
         git add -A && git commit -q -m second && git log --format=%s
         python3 -c 'import json; print(json.dumps({}))'
         cat /etc/shadow; exec 3<>/dev/tcp/127.0.0.1/9",
    );
    assert_eq!(outcome.stdout, "built\nsecond\nfirst\n{}\n", "{outcome:#?}");
    assert_says(
        &outcome.stderr,
        &["/etc/shadow: No such file", "Operation not permitted"],
    );
    assert_refused(&outcome, "127.0.0.1:9", "EPERM");
    let found = Command::new("find")
        .args([".", "!", "-uid", &OWNER.to_string()])
        .current_dir(&bench.work)
        .output()
        .expect("start find");
    let strangers = String::from_utf8_lossy(&found.stdout);
    assert_eq!(strangers, "", "everything stays its owner's");
}

#[test]
fn a_coding_agent_works_beside_what_is_denied_and_protected() {
    needs!(root() && exists("git"), "root, git");
    let bench = Bench::new("coding-agent");
    fs::write(bench.work.join(".gitignore"), ".env\n").expect("write a file");
    repository(&bench.work);
    fs::create_dir(bench.work.join("app")).expect("make a folder");
    fs::write(bench.work.join("app/.env"), "TOKEN=secret\n").expect("write a file");
    prepare(
        &bench.work,
        &format!("chown -R {OWNER}:{OWNER} . && chmod 666 app/.env"),
    );
    let outcome = bench.bash(
        &[],
        "git status --short; echo second >> note; git commit -q -a -m second && git log --format=%s
         cat app/.env; cp app/.env copy; mv app/.env app/env; ln app/.env hard
         mv app elsewhere && cat elsewhere/.env; echo TOKEN= > .env
         echo 'touch owned' > .git/hooks/pre-commit; mv .git/hooks .git/old; ls -a elsewhere",
    );
    assert_eq!(
        outcome.stdout, "?? .gitignore\nsecond\nfirst\n.\n..\n.env\n",
        "{outcome:#?}"
    );
    // By LSM programs, or by masks alone: then what exists is held all the same.
    let whole = !outcome.stderr.contains("DEGRADED file-deny-pattern");
    assert!(whole || std::env::var_os("LP_RUN_TEST_LSM").is_none());
    let refusals: &[(&str, usize)] = match whole {
        true => &[("Permission denied", 8)],
        false => &[
            ("Permission denied", 3),
            ("Device or resource busy", 2),
            ("Invalid cross-device link", 1),
            ("Read-only file system", 1),
        ],
    };
    for (said, times) in refusals {
        assert_eq!(
            outcome.stderr.matches(said).count(),
            *times,
            "{said}: {outcome:#?}"
        );
    }
    let secret = fs::read_to_string(bench.work.join("elsewhere/.env")).expect("read");
    assert_eq!(secret, "TOKEN=secret\n");
    assert!(!bench.work.join(".git/hooks/pre-commit").exists());
    // An open is also a row of its own, with its rule.
    let rows = outcome.denials("/app/.env");
    assert!(rows.iter().any(|row| row["rule"] == "env"), "{outcome:#?}");
    let count = |id: &str| outcome.rule(id)["denied"].as_u64().unwrap_or(0);
    let least = if whole { (6, 2) } else { (2, 1) };
    assert!(
        count("env") >= least.0 && count("@git/files.protect[0]") >= least.1,
        "{outcome:#?}"
    );
}

#[test]
fn programs_that_talk_to_their_own_children_work_without_unix_sockets() {
    needs!(root() && exists("python3"), "root and python3");
    let bench = Bench::new("coding-agent");
    fs::write(
        bench.work.join("many.py"),
        "import ctypes, errno, getpass, multiprocessing as mp, os, socket\n\
         def square(x): return x * x\n\
         if __name__ == '__main__':\n    \
             one, other = mp.Pipe(); one.send('pipe'); print(other.recv())\n    \
             with mp.get_context('fork').Pool(2) as pool: print(pool.map(square, [1, 2, 3]))\n    \
             with mp.get_context('spawn').Pool(1) as pool: print(pool.map(square, [4]))\n    \
             print(ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(square)(5), getpass.getuser())\n    \
             try: os.write(os.memfd_create('x'), b'data')\n    \
             except OSError as error: assert error.errno == errno.ENOSYS\n    \
             try: socket.socket(socket.AF_UNIX)\n    \
             except PermissionError: print('no socket')\n",
    )
    .expect("write a file");
    prepare(&bench.work, &format!("chown -R {OWNER}:{OWNER} ."));
    let outcome = bench.bash(
        &[],
        "python3 many.py
         cat <(echo substituted); logger nobody hears; getent passwd agent | cut -d: -f1",
    );
    assert_eq!(
        outcome.stdout, "pipe\n[1, 4, 9]\n[16]\n25 agent\nno socket\nsubstituted\nagent\n",
        "{outcome:#?}"
    );
    // Neither the lookup of a user nor a log line nobody hears is a denial.
    let denials = outcome.denials("nscd").len() + outcome.denials("/dev/log").len();
    assert_eq!(denials, 0, "{outcome:#?}");
}

#[test]
fn node_talks_to_its_children_without_unix_sockets() {
    needs!(
        root() && Path::new("/usr/bin/node").exists(),
        "root and node in /usr/bin"
    );
    let bench = Bench::new("coding-agent");
    fs::write(
        bench.work.join("fork.js"),
        "if (process.argv[2] === 'child') { process.send('from the child'); process.disconnect(); }\n\
         else require('child_process').fork(__filename, ['child']).on('message', m => console.log(m));\n",
    )
    .expect("write a file");
    let outcome = bench.run(&[], &["/usr/bin/node", "fork.js"]);
    assert_eq!(outcome.stdout, "from the child\n", "{outcome:#?}");
}

#[test]
fn a_linked_work_tree_commits_into_its_main_repository() {
    needs!(root() && exists("git"), "root and git");
    let bench = Bench::new("coding-agent");
    let main = bench.jail.folder("main");
    repository(&main);
    prepare(
        &main,
        "chown -R 0:0 . && git worktree add -q ../work/side -b side",
    );
    prepare(&bench.work, &format!("chown -R {OWNER}:{OWNER} . ../main"));
    let side = bench.work.join("side").to_string_lossy().into_owned();
    let outcome = bench.bash(
        &["--workdir", &side],
        "echo more >> note && git commit -qam second && git log --format=%s; ls ../../main",
    );
    assert_says(&outcome.stdout, &["second\nfirst\n"]);
    assert!(!outcome.stdout.contains("note"), "{outcome:#?}");
    let objects = fs::metadata(main.join(".git/objects")).expect("it is there");
    assert_eq!(objects.uid(), OWNER);
}

#[test]
fn ticket_summary_reads_its_ticket_and_asks_its_service() {
    needs!(root() && exists("curl"), "root and curl");
    let bench = Bench::new("ticket-summary");
    ticket_store();
    serve("127.0.0.1:8080", "advice");
    serve("127.0.0.1:9090", "customers");
    let ticket = ["--set", "ticket=4711"];
    let plan = bench.plan(&ticket);
    assert_says(
        &plan,
        &[
            "read /srv/tickets/4711 ",
            "connect 127.0.0.1:8080 ",
            "file-deny mask",
        ],
    );
    let outcome = bench.bash(
        &ticket,
        "cat /srv/tickets/4711/ticket.md; curl -sS --noproxy '*' http://127.0.0.1:8080/kb
         echo summary > out/summary.md; cat out/summary.md
         cat /srv/tickets/4711/payment.json; cat /srv/tickets/4712/ticket.md
         curl -sS --noproxy '*' http://127.0.0.1:9090/",
    );
    assert_eq!(outcome.stdout, "blank labels\nadvice\nsummary\n");
    assert_eq!(outcome.code(), 7, "what curl says of a refused connect");
    assert_eq!(outcome.rule("ticket")["allowed"], 1, "{outcome:#?}");
    assert_eq!(outcome.rule("out")["allowed"], 2, "{outcome:#?}");
    assert_eq!(outcome.rule("files.deny[0]")["denied"], 1, "{outcome:#?}");
    let service = outcome.rule("knowledge-base");
    assert_eq!(
        (&service["allowed"], &service["denied"]),
        (&1.into(), &0.into())
    );
    assert!(service["bytes_in"].as_u64() > Some(0), "{outcome:#?}");
    assert_refused(&outcome, "payment.json", "EACCES");
    assert_refused(&outcome, "4712/ticket.md", "ENOENT");
    assert_refused(&outcome, "127.0.0.1:9090", "EPERM");
}

#[test]
fn ticket_summary_is_refused_without_its_ticket() {
    needs!(root(), "root");
    let bench = Bench::new("ticket-summary");
    ticket_store();
    for (options, says) in [
        (&[][..], "--set ticket=VALUE"),
        (&["--set", "ticket=../4711"], "can never be a value"),
        (
            &["--set", "ticket=99"],
            "\"/srv/tickets/99\" does not exist",
        ),
    ] {
        let outcome = bench.bash(options, "echo started");
        assert_eq!(outcome.code(), 122, "{outcome:#?}");
        assert_eq!(outcome.stdout, "");
        let words: Vec<&str> = outcome.stderr.split_whitespace().collect();
        assert_says(&words.join(" ").replace(" lp-run:", ""), &[says]);
    }
}

#[test]
fn integration_tests_reach_their_own_server_and_not_the_hosts() {
    needs!(root() && exists("python3"), "root and python3");
    let bench = Bench::new("ci-integration");
    let host = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = host.local_addr().expect("address").port();
    fs::write(bench.work.join("suite.py"), SUITE).expect("write a file");
    let outcome = bench.run(&[], &["/usr/bin/python3", "suite.py", &port.to_string()]);
    assert_eq!(outcome.stdout, "ECONNREFUSED\n200\nEPERM\n", "{outcome:#?}");
    // The try before the server listened is a connect to the run's own loopback as well.
    assert_eq!(outcome.rule("network.allow[0]")["denied"], 0);
    let allowed = outcome.rule("network.allow[0]")["allowed"].as_u64();
    assert!(allowed >= Some(2), "{outcome:#?}");
    assert_eq!(denied(&outcome, "192.0.2.1:80"), 1, "{outcome:#?}");
    host.set_nonblocking(true).expect("set non-blocking");
    let nobody = host.accept().expect_err("nobody came");
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
}

/// Tries the port, serves on it, asks itself, and tries an address outside.
const SUITE: &str = r#"
import errno, http.server, socket, sys, threading, urllib.request
port = int(sys.argv[1])
def connect(*address):
    try:
        socket.create_connection(address, 5).close()
        print("reached")
    except OSError as error:
        print(errno.errorcode[error.errno])
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
connect("127.0.0.1", port)
server = http.server.HTTPServer(("127.0.0.1", port), Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen("http://127.0.0.1:%d/" % port, timeout=5).status)
connect("192.0.2.1", 80)
"#;

/// Puts tickets into a `/srv` that only this thread, and what it starts, can see.
fn ticket_store() {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace of the test's own");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).expect("make mounts private");
    let mode = Some("mode=755");
    mount(none, "/srv", Some("tmpfs"), MsFlags::empty(), mode).expect("mount a tmpfs");
    for (file, text) in [
        ("4711/ticket.md", "blank labels\n"),
        ("4711/payment.json", "{}\n"),
        ("4712/ticket.md", "another's\n"),
    ] {
        let path = Path::new("/srv/tickets").join(file);
        fs::create_dir_all(path.parent().expect("a parent")).expect("make a folder");
        fs::write(path, text).expect("write a ticket");
    }
}

/// Answers every request with one line, in the network of the test.
fn serve(address: &str, answer: &'static str) {
    let listener = TcpListener::bind(address).expect("listen");
    thread::spawn(move || {
        for peer in listener.incoming().flatten() {
            // A peer that goes away early is the peer's business.
            let _ = reply(&peer, answer);
        }
    });
}

fn reply(peer: &TcpStream, answer: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(peer).lines();
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let mut peer = peer;
    let length = answer.len() + 1;
    write!(
        peer,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}\n"
    )
}
