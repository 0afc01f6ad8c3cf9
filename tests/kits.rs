// SPDX-License-Identifier: MIT OR Apache-2.0
//! Language kits, tested with the programs that they are for, under the policy for coding agents
//! and in a work directory that belongs to neither root nor the agent.

use std::fs;
use std::path::Path;

use crate::needs;
use crate::policies::{Bench, OWNER, assert_refused, exists, prepare};
use crate::support::{Jail, root};

fn bench(files: &[(&str, &str)]) -> Bench {
    let bench = Bench::new("coding-agent");
    for (name, text) in files {
        let path = bench.work.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        fs::write(path, text).expect("write a file");
    }
    prepare(&bench.work, &format!("chown -R {OWNER}:{OWNER} ."));
    bench
}

fn cargo() -> bool {
    let own = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo/bin/cargo"));
    exists("cargo") || own.is_some_and(|cargo| cargo.exists())
}

#[test]
fn a_coding_agent_builds_and_tests_a_crate_with_a_vendored_dependency() {
    needs!(root() && cargo() && exists("cc"), "root, cargo and cc");
    let bench = bench(&[
        (
            "Cargo.toml",
            "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
             [dependencies]\nanswer = \"1\"\n",
        ),
        (
            "src/main.rs",
            "fn main() { println!(\"built {}\", answer::answer()); }\n\
             #[test]\nfn holds() { assert_eq!(answer::answer(), 42); }\n",
        ),
        // A build script runs what was just built.
        ("build.rs", "fn main() { println!(\"cargo::warning=\"); }\n"),
        (
            ".cargo/config.toml",
            "[source.crates-io]\nreplace-with = \"vendored\"\n\
             [source.vendored]\ndirectory = \"vendor\"\n",
        ),
        (
            "vendor/answer/Cargo.toml",
            "[package]\nname = \"answer\"\nversion = \"1.0.0\"\nedition = \"2021\"\n",
        ),
        (
            "vendor/answer/src/lib.rs",
            "pub fn answer() -> u32 { 42 }\n",
        ),
        ("vendor/answer/.cargo-checksum.json", "{\"files\":{}}"),
        (
            "plain/Cargo.toml",
            "[package]\nname = \"plain\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n",
        ),
        ("plain/src/main.rs", "fn main() { println!(\"plain\"); }\n"),
    ]);
    let outcome = bench.bash(
        &[],
        "(cd plain && cargo run -q)
         cargo build -q && ./target/debug/app
         cargo test -q 2>&1 | grep -c 'test result: ok. 1 passed'
         touch \"$CARGO_HOME/credentials.toml\" 2>/dev/null || echo closed
         ls \"$CARGO_HOME\" | grep -vx -e bin -e git -e registry
         exec 3<>/dev/tcp/127.0.0.1/9",
    );
    assert_eq!(
        outcome.stdout, "plain\nbuilt 42\n1\nclosed\n",
        "{outcome:#?}"
    );
    assert_refused(&outcome, "127.0.0.1:9", "EPERM");
}

#[test]
fn an_ordinary_build_is_refused_nothing() {
    needs!(root() && cargo() && exists("cc"), "root, cargo and cc");
    let bench = bench(&[
        (
            "Cargo.toml",
            "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
        ),
        ("src/main.rs", "fn main() { println!(\"built\"); }\n"),
    ]);
    let outcome = bench.bash(&["--fail-on-denied"], "cargo run -q");
    assert_eq!(outcome.stdout, "built\n", "{outcome:#?}");
    assert_eq!(outcome.code(), 0, "{outcome:#?}");
}

#[test]
fn python_alone_asks_what_the_system_is() {
    needs!(root() && exists("python3"), "root and python3");
    let policy = "version = 1\nname = \"p\"\nextends = [\"@python\"]\n[files]\n\
                  exec = [\"${COMMAND}\"]\n";
    let script = "import subprocess\n\
                  for words in ['lsb_release', '-a'], ['uname', '-rs']:\n \
                  try: subprocess.run(words, capture_output=True)\n \
                  except OSError: pass";
    let command = ["/usr/bin/python3", "-c", script];
    let outcome = Jail::new().run_with(policy, &["--fail-on-denied"], &command);
    assert_eq!(outcome.code(), 0, "{outcome:#?}");
}

#[test]
fn git_reads_a_repository_of_another_owner() {
    needs!(root() && exists("git"), "root and git");
    let jail = Jail::new();
    let repository = jail.folder("repository");
    prepare(
        &repository,
        &format!(
            "git init -q . && git config user.name n && git config user.email n@example.com
             git commit -q --allow-empty -m first && chown -R {OWNER}:{OWNER} ."
        ),
    );
    let policy = "version = 1\nname = \"g\"\nextends = [\"@shell\", \"@git\"]\n[files]\n\
                  read = [\"@DIR@/repository\"]\n";
    let path = repository.to_string_lossy().into_owned();
    let outcome = jail.run(policy, &["git", "-C", &path, "log", "--format=%s"]);
    assert_eq!(outcome.stdout, "first\n", "{outcome:#?}");
}

/// Threads, pipes, sockets of its own, who and where it is: each of these has failed somewhere.
const NODE: &str = "
const os = require('os'), { spawn, fork } = require('child_process');
const { Worker, isMainThread, parentPort } = require('worker_threads');
if (process.argv[2] === 'child') {
  process.send(process.argv[3]);
} else if (!isMainThread) {
  parentPort.postMessage('worker');
} else {
  (async () => {
    const user = os.userInfo();
    console.log(user.username, user.homedir === os.homedir(), os.homedir() === process.env.HOME);
    await new Promise(done => new Worker(__filename).once('message', m => { console.log(m); done(); }));
    await new Promise(done => {
      const cat = spawn('cat', { stdio: 'pipe' });
      cat.stdout.on('data', data => console.log(String(data)));
      cat.on('close', done);
      cat.stdin.end('pipes');
    });
    await new Promise(done => fork(__filename, ['child', 'fork']).once('message', m => { console.log(m); done(); }));
    const refused = await new Promise(done => require('net').connect(9, '127.0.0.1').on('error', done));
    console.log(refused.code);
  })();
}
";

#[test]
fn a_coding_agent_runs_node_and_its_own_tests() {
    let tools = ["node", "npm"].map(exists);
    needs!(root() && tools == [true; 2], "root, node and npm");
    let bench = bench(&[
        ("all.js", NODE),
        (
            "package.json",
            "{\"name\":\"app\",\"version\":\"1.0.0\",\"scripts\":{\"test\":\"node --test\"}}",
        ),
        (
            "sum.test.js",
            "require('node:test')('sum', () => require('assert').equal(1 + 1, 2));\n",
        ),
    ]);
    let outcome = bench.bash(&[], "node all.js\nnpm test 2>&1 | grep -c '^# pass 1'");
    assert_eq!(
        outcome.stdout, "agent true true\nworker\npipes\nfork\nEPERM\n1\n",
        "{outcome:#?}"
    );
    assert_refused(&outcome, "127.0.0.1:9", "EPERM");
}

#[test]
fn a_coding_agent_leaves_what_others_run_later_as_it_is() {
    needs!(root() && exists("git"), "root and git");
    let bench = bench(&[
        (".vscode/settings.json", "{}\n"),
        (".claude/settings.json", "{}\n"),
        (".envrc", "export A=1\n"),
        (".npmrc", "fund=false\n"),
        ("web/.env.local", "TOKEN=secret\n"),
    ]);
    let git = "chown -R 0:0 . && git init -q . && git config user.name n && git config user.email n@example.com";
    prepare(&bench.work, &format!("{git} && chown -R {OWNER}:{OWNER} ."));
    // Each line says what came of it; reading goes on, and so does everything else.
    let outcome = bench.bash(
        &[],
        "for file in .vscode/settings.json .claude/new .envrc .npmrc .git/hooks/pre-commit .git/config; do
           (echo owned >> $file) 2>/dev/null && echo changed $file
         done
         rm -rf .vscode .claude .envrc .npmrc .git/config 2>/dev/null
         for file in .vscode .claude .envrc .npmrc; do
           mv $file moved 2>/dev/null && echo moved $file
         done
         git config user.name other 2>/dev/null && echo configured
         cat .vscode/settings.json .envrc .npmrc
         cat web/.env.local 2>/dev/null && echo leaked
         touch work && git add work && git commit -qm one && git log --format='%an %s'
         echo '{}' > package.json && mv package.json web/ && ls web",
    );
    assert_eq!(
        outcome.stdout, "{}\nexport A=1\nfund=false\nn one\npackage.json\n",
        "{outcome:#?}"
    );
    for (name, text) in [
        (".vscode/settings.json", "{}\n"),
        (".claude/settings.json", "{}\n"),
        (".envrc", "export A=1\n"),
        ("web/.env.local", "TOKEN=secret\n"),
    ] {
        let found = fs::read_to_string(bench.work.join(name)).expect("it is there");
        assert_eq!(found, text, "{name}");
    }
}

#[test]
fn an_editor_and_pip_work_beside_what_is_protected() {
    needs!(
        root() && exists("vim") && exists("python3"),
        "root, vim and python3"
    );
    let bench = bench(&[("note", "first\n"), (".envrc", "export A=1\n")]);
    let outcome = bench.bash(
        &[],
        "vim -Nu NONE -es -c 's/first/second/' -c wq note < /dev/null; cat note
         vim -Nu NONE -es -c 's/A/B/' -c 'wq!' .envrc < /dev/null; cat .envrc
         python3 -m venv --without-pip .venv && .venv/bin/python -c 'print(\"venv\")'",
    );
    assert_eq!(outcome.stdout, "second\nexport A=1\nvenv\n", "{outcome:#?}");
}
