// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every integration test starts from: [`Jail`], a temporary folder with a policy and a
//! network namespace with nothing but `lo`, in which `lp-run` or a bare program is run.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than any run of a test takes, also under software emulation.
const DEADLINE: Duration = Duration::from_secs(180);

/// What all runs of the machine share. Each run of a test holds it; a test that leaves out what is
/// there once for all of them holds it alone, and starts its runs with [`Jail::bare_as`].
pub static SHARED: RwLock<()> = RwLock::new(());

/// Ends a test that cannot run here, loudly. With `LP_RUN_TEST_STRICT=1` it fails instead, so
/// that a skip never hides in a green run.
#[macro_export]
macro_rules! needs {
    ($condition:expr, $what:literal) => {
        if !$condition {
            let strict = std::env::var_os("LP_RUN_TEST_STRICT").is_some();
            assert!(!strict, "this test needs {}", $what);
            eprintln!("SKIPPED: this test needs {}", $what);
            return;
        }
    };
}

/// Whether this process may set up a sandbox.
pub fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether this root may raise a hard limit (CAP_SYS_RESOURCE).
pub fn raises_limits() -> bool {
    let mut raise = Command::new("prlimit");
    raise.args([
        "--cpu=100:100",
        "prlimit",
        "--cpu=unlimited:unlimited",
        "true",
    ]);
    let raised = raise.stderr(Stdio::null()).status();
    raised.expect("start prlimit(1)").success()
}

/// A temporary folder, and the calling thread in a network namespace of its own, where servers
/// that the test starts and programs that it runs meet on `lo`. Needs root.
pub struct Jail {
    folder: TempDir,
}

/// What came of a program.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it, and lp-run, wrote to stderr.
    pub stderr: String,
    /// The run report, when lp-run wrote one.
    pub report: Option<Value>,
}

impl Jail {
    /// A fresh folder that every user may enter, and a fresh network namespace.
    pub fn new() -> Self {
        isolate_network();
        let folder = TempDir::with_prefix("lp-run-test-").expect("make a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("open it");
        Self { folder }
    }

    /// The same with the folder in a place that no run has one of its own of, as it has of `/tmp`.
    pub fn shared() -> Self {
        isolate_network();
        let folder = TempDir::with_prefix_in("lp-run-test-", "/srv").expect("make a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("open it");
        Self { folder }
    }

    /// The folder; policies may be written with `@DIR@` for it.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file below the folder, with the folders above it.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        let parent = path.parent().expect("a file has a parent");
        fs::create_dir_all(parent).expect("make the parent folders");
        fs::write(&path, content).expect("write a file");
        path
    }

    /// Makes a folder below the folder.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(&path).expect("make a folder");
        path
    }

    /// Runs `command` under `lp-run` with this policy text. The working directory is the folder.
    pub fn run<S: AsRef<OsStr>>(&self, policy: &str, command: &[S]) -> Outcome {
        self.run_with(policy, &[], command)
    }

    /// The same with more options of `lp-run`.
    pub fn run_with<S: AsRef<OsStr>>(
        &self,
        policy: &str,
        options: &[&str],
        command: &[S],
    ) -> Outcome {
        let lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
        self.run_as(lp_run, policy, options, command)
    }

    /// The same with `lp_run` started by something else: a shell with open descriptors, an
    /// environment, a kernel that lacks a call.
    pub fn run_as<S: AsRef<OsStr>>(
        &self,
        lp_run: Command,
        policy: &str,
        options: &[&str],
        command: &[S],
    ) -> Outcome {
        let policy = self.file(
            "policy.toml",
            policy.replace("@DIR@", &self.path().to_string_lossy()),
        );
        self.run_named(lp_run, policy, options, command)
    }

    /// The same with a policy that is there: a path, or the name of one.
    pub fn run_named<S: AsRef<OsStr>>(
        &self,
        lp_run: Command,
        policy: impl AsRef<OsStr>,
        options: &[&str],
        command: &[S],
    ) -> Outcome {
        let report = self.path().join("report.json");
        self.run_reported(lp_run, policy, &report, options, command)
    }

    /// The same with a place for the report: where lp-run's own user may write.
    pub fn run_reported<S: AsRef<OsStr>>(
        &self,
        mut lp_run: Command,
        policy: impl AsRef<OsStr>,
        report: &Path,
        options: &[&str],
        command: &[S],
    ) -> Outcome {
        let _ = fs::remove_file(report);
        lp_run
            .arg("--policy")
            .arg(policy)
            .arg("--report")
            .arg(report)
            .args(options);
        lp_run.arg("--").args(command).current_dir(self.path());
        let shared = SHARED.read().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = finish(lp_run);
        drop(shared);
        outcome.report = fs::read(report)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        outcome
    }

    /// Runs a script of a shell with `/run` of its own, so that nothing is loaded yet; and with a
    /// part of the cgroups of its own, since lp-run takes nobody's for left over. `$1` is lp-run, and
    /// `words` follow.
    pub fn cold(&self, script: &str, words: &[String]) -> Outcome {
        let script = format!(
            "cg=$(awk '$3 == \"cgroup2\" {{ print $2; exit }}' /proc/mounts); own=$cg/cold-$$; \
             mkdir $own; mkdir $own/lp-run; mount --bind $own $cg; \
             mount -t tmpfs -o mode=0755 none /run; {script}; \
             umount $cg; rmdir $own/lp-run $own"
        );
        let mut command: Vec<String> = ["unshare", "--mount", "sh", "-ec", &script, "sh"]
            .map(str::to_owned)
            .to_vec();
        command.push(env!("CARGO_BIN_EXE_lp-run").to_owned());
        command.extend_from_slice(words);
        let outcome = self.bare(&command);
        assert_eq!(outcome.code(), 0, "{outcome:?}");
        outcome
    }

    /// Runs a command without a sandbox: the arm that shows that an act works at all.
    pub fn bare<S: AsRef<OsStr>>(&self, command: &[S]) -> Outcome {
        let mut bare = Command::new(&command[0]);
        bare.args(&command[1..]);
        self.bare_as(bare)
    }

    /// The same with a command that somebody else starts.
    pub fn bare_as(&self, mut bare: Command) -> Outcome {
        bare.current_dir(self.path());
        finish(bare)
    }
}

impl Outcome {
    /// The exit status; a signal shows as 128 plus its number, as a shell does.
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// The probe's answer: `ok`, or the errno's name.
    pub fn answer(&self) -> &str {
        self.stdout.trim_end()
    }

    /// What lp-run said, with its lines joined again where it broke them.
    pub fn said(&self) -> String {
        let joined = self.stderr.split("\nlp-run:   ").collect::<Vec<_>>();
        joined
            .iter()
            .map(|part| part.trim_start())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The report's row of a rule, by its place or id.
    pub fn rule(&self, id: &str) -> &Value {
        self.rows("rules")
            .find(|row| row["id"] == id)
            .unwrap_or_else(|| panic!("no rule `{id}` in {:?}\n{}", self.report, self.stderr))
    }

    /// The report's denials whose target contains `target`.
    pub fn denials<'a>(&'a self, target: &'a str) -> Vec<&'a Value> {
        let named = move |row: &&Value| row["target"].as_str().is_some_and(|t| t.contains(target));
        self.rows("denials").filter(named).collect()
    }

    fn rows(&self, table: &str) -> impl Iterator<Item = &Value> {
        let report = self
            .report
            .as_ref()
            .unwrap_or_else(|| panic!("no report\n{}", self.stderr));
        report[table].as_array().into_iter().flatten()
    }
}

/// The text of a file of these tests, or of one below `runner/` or `docs/`.
pub fn text(file: &str) -> String {
    let top = ["runner/", "docs/"].iter().any(|top| file.starts_with(top));
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(if top { ".." } else { "../tests" })
        .join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `FILE TEST`: the file has that test.
pub fn is_there(test: &str) -> bool {
    let (file, name) = test.split_once(' ').expect("a file and a test");
    let text = text(file);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let function = format!("fn {name}() {{");
    lines.windows(2).any(|pair| pair == ["#[test]", &function])
}

/// Runs `lp-run` with these words in a folder.
pub fn lp_run(folder: &Path, words: &[&str]) -> Outcome {
    let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
    lp_run.args(words).current_dir(folder);
    finish(lp_run)
}

/// The command line of the probe for one act: `probe(["open-read", "/etc/shadow"])`.
pub fn probe<const N: usize>(act: [&str; N]) -> Vec<String> {
    static PROGRAM: LazyLock<String> = LazyLock::new(probe_program);
    std::iter::once(PROGRAM.clone())
        .chain(act.iter().map(|part| (*part).to_owned()))
        .collect()
}

/// Where the probe is. `cargo test` builds it, `cargo test --test integration` alone does not: then
/// it is built here.
fn probe_program() -> String {
    let lp_run = Path::new(env!("CARGO_BIN_EXE_lp-run"));
    let program = lp_run.with_file_name("examples").join("probe");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/probe.rs");
    let modified = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    // Where the tests run without cargo, on another machine, there is neither source nor cargo.
    let stale = modified(&program) < modified(&source);
    if let (true, Some(cargo)) = (stale, std::env::var_os("CARGO")) {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--locked", "--example", "probe"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(
            status.expect("start cargo").success(),
            "the probe cannot be built"
        );
    }
    assert!(
        program.is_file(),
        "the probe is not built: cargo build --example probe"
    );
    program.to_string_lossy().into_owned()
}

/// The folder of a process's cgroup of version 2.
pub fn cgroup(pid: u32) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("read a cgroup");
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    let path = path.expect("a cgroup of version 2");
    let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let places = mounts
        .into_iter()
        .map(|root| PathBuf::from(format!("{root}{path}")));
    let mut there = places.filter(|place| place.is_dir());
    there.next().expect("the cgroup's folder")
}

/// Moves the calling thread, and what it starts from now on, into a fresh network namespace with
/// `lo` up. A test never has a way to a real address, also when the program under test fails.
fn isolate_network() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of the test's own needs root");
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.expect("start ip(8)").success(), "lo cannot be set up");
    let interfaces = fs::read_to_string("/proc/thread-self/net/dev").expect("list interfaces");
    let names: Vec<&str> = interfaces
        .lines()
        .skip(2)
        .filter_map(|l| l.split(':').next())
        .collect();
    assert!(
        names.iter().all(|name| name.trim() == "lo"),
        "not isolated: {names:?}"
    );
}

/// Runs a command to its end, with both outputs read while it runs, and kills it at the deadline.
fn finish(mut command: Command) -> Outcome {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    let status = wait(&mut child).unwrap_or_else(|| panic!("{command:?} did not end"));
    let text = |reader: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().expect("a reader ends")).into_owned()
    };
    Outcome {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
        report: None,
    }
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        if let Some(status) = child.try_wait().expect("wait for a child") {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
