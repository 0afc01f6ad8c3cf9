// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real children, as root, in real namespaces and cgroups, with a confinement that applies
//! nothing: what is tested is how a run comes to life and how it ends.

use std::cell::Cell;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sched::{CloneFlags, unshare};
use nix::sys::termios::{LocalFlags, tcgetattr};

use super::*;
use crate::enforce::canary::NetworkCanary;
use crate::enforce::cgroup::RunCgroup;
use crate::enforce::{Act, CanaryEvidence, StepError};
use crate::sys::attempt::Attempts;
use crate::sys::mount;
use crate::sys::process::{Ended, ExecArguments};

/// Applies nothing, or fails at one step.
#[derive(Default)]
struct Bare {
    fails_at: Option<Step>,
}

impl Bare {
    fn at(&self, step: Step) -> Result<(), StepError> {
        match self.fails_at == Some(step) {
            true => Err(StepError {
                act: Act::Mount,
                detail: 5,
                errno: libc::EBUSY,
            }),
            false => Ok(()),
        }
    }
}

impl Confinement for Bare {
    fn memfd(&self, _: BorrowedFd<'_>) -> Result<(), StepError> {
        self.at(Step::Memfd)
    }
    fn view(&self) -> Result<(), StepError> {
        self.at(Step::View)
    }
    fn limits(&self) -> Result<(), StepError> {
        self.at(Step::Limits)
    }
    fn identity(&self) -> Result<(), StepError> {
        self.at(Step::Identity)
    }
    fn landlock(&self, _: &mut CanaryEvidence) -> Result<(), StepError> {
        self.at(Step::Landlock)
    }
    fn open_network_canary(&self) -> Option<NetworkCanary> {
        None
    }
    fn open_lsm_canary(&self) -> Result<Option<Attempts>, StepError> {
        Ok(None)
    }
    fn try_lsm(&self, _: &Attempts, _: &mut CanaryEvidence) -> Result<(), StepError> {
        Ok(())
    }
    fn try_before_filter(&self, _: &mut CanaryEvidence) {}
    fn seccomp(&self, evidence: &mut CanaryEvidence) -> Result<(), StepError> {
        evidence.seccomp_after = 77;
        self.at(Step::Seccomp)
    }
    fn describe(&self, error: &StepError) -> String {
        format!("mount {}", error.detail)
    }
}

/// Opens every gate but one, and remembers the order.
#[derive(Default)]
struct Keeper {
    refuses: Option<Step>,
    seen: Vec<Step>,
}

impl Keeper {
    fn at(&mut self, step: Step) -> Result<(), GateError> {
        self.seen.push(step);
        if self.refuses == Some(step) {
            return Err(GateError::Unproven {
                protection: "network",
                detail: "a test".to_owned(),
            });
        }
        Ok(())
    }
}

impl GateKeeper for Keeper {
    fn attach(&mut self) -> Result<(), GateError> {
        self.at(Step::Attach)
    }
    fn count(&mut self) -> Result<(), GateError> {
        Ok(())
    }
    fn canary(&mut self) -> Result<(), GateError> {
        self.at(Step::StateCanary)
    }
    fn judge(
        &mut self,
        evidence: &CanaryEvidence,
        _agent: BorrowedFd<'_>,
        _keep: &[RawFd],
    ) -> Result<(), GateError> {
        assert_eq!(evidence.seccomp_after, 77, "the agent's evidence arrives");
        self.at(Step::Judge)
    }
}

/// One run under test: its cgroup goes with it.
struct Bench {
    cgroup: RunCgroup,
    confinement: Bare,
    keeper: Keeper,
    own_network: bool,
    terminal: bool,
    keep: Vec<RawFd>,
}

fn root() -> bool {
    nix::unistd::geteuid().is_root() && cgroup_base().is_some()
}

fn cgroup_base() -> Option<PathBuf> {
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    let mount = mounts
        .into_iter()
        .find(|path| path.join("cgroup.controllers").exists())?;
    Some(mount.join("lp-run-test"))
}

fn fresh_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "launch-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

impl Bench {
    fn new() -> Self {
        let base = cgroup_base().expect("cgroup v2");
        Self {
            cgroup: RunCgroup::create(&base, &fresh_name()).expect("cgroup"),
            confinement: Bare::default(),
            keeper: Keeper::default(),
            own_network: false,
            terminal: true,
            keep: Vec::new(),
        }
    }

    fn start(&mut self, argv: &[&str], given: [RawFd; 3]) -> Result<Launched, LaunchError> {
        let text = |text: &str| CString::new(text).expect("no NUL");
        let path = text(argv[0]);
        let argv = argv.iter().map(|argument| text(argument)).collect();
        let envp = vec![text("PATH=/usr/bin:/bin:/usr/sbin:/sbin")];
        let exec = ExecArguments::new(path, argv, envp);
        let options = StdioOptions {
            terminal: self.terminal,
            direct: false,
            owner: (65_534, 65_534),
            file_size: u64::MAX,
            keep: &self.keep,
            devpts: None,
        };
        let launch = Launch {
            confinement: &self.confinement,
            exec: &exec,
            workdir: c"/tmp".to_owned(),
            stdio: Stdio::prepare_from(given, &options).expect("stdio"),
            cgroups: Some(Cgroups {
                shim: self.cgroup.shim.as_fd(),
                agent: self.cgroup.agent.as_fd(),
            }),
            namespaces: true,
            own_network: self.own_network,
            loopback: self.own_network,
            held: Vec::new(),
        };
        start(launch, &mut self.keeper)
    }

    /// Runs to the end; gives the end and what was written to stdout.
    fn run(&mut self, argv: &[&str]) -> (End, String) {
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .expect("null");
        let (mut read, write) = std::io::pipe().expect("pipe");
        let given = [null.as_raw_fd(), write.as_raw_fd(), write.as_raw_fd()];
        let launched = self.start(argv, given).expect("start");
        drop(write);
        let (end, rest) = block_on(async move {
            let (mut running, _signals) = launched.supervise().expect("supervise");
            let end = running.ended().await;
            (end, running.finish().await)
        });
        assert_eq!(rest, Rest::default());
        let mut output = String::new();
        read.read_to_string(&mut output).expect("UTF-8");
        (end, output)
    }

    /// Removes the cgroup, which fails when anything of the run is left.
    fn done(self) {
        assert!(
            !self.cgroup.agent.populated().expect("agent"),
            "the agent's cgroup is empty"
        );
        let path = self.cgroup.path().to_owned();
        self.cgroup.remove(Duration::from_secs(1)).expect("remove");
        assert!(!path.exists());
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(future)
}

fn run(argv: &[&str]) -> (End, String) {
    let mut bench = Bench::new();
    let result = bench.run(argv);
    bench.done();
    result
}

fn sh(script: &str) -> (End, String) {
    run(&["/bin/sh", "-c", script])
}

fn exited(status: i32) -> End {
    End::Program(Ended::Exited(status))
}

#[test]
fn the_programs_own_end_is_what_comes_back() {
    if !root() {
        return;
    }
    assert_eq!(sh("exit 7").0, exited(7));
    assert_eq!(sh("exit 0").0, exited(0));
    assert_eq!(sh("kill -9 $$").0, End::Program(Ended::Signaled(9)));
}

#[test]
fn a_program_that_cannot_be_executed_has_the_shells_codes() {
    if !root() {
        return;
    }
    let code = |path: &str| {
        let mut bench = Bench::new();
        let error = bench.start(&[path], [0, 1, 2]).expect_err("cannot start");
        bench.done();
        (error.exit_code(), error.to_string())
    };
    assert_eq!(code("/no/such/program").0, 127);
    assert_eq!(
        code("/etc/passwd"),
        (126, "execute `/etc/passwd`".to_owned())
    );
    assert_eq!(code("/etc").0, 126);
}

#[test]
fn the_program_starts_clean() {
    if !root() {
        return;
    }
    let (end, output) = sh("echo pid $$; umask; cat /proc/self/oom_score_adj; pwd; \
         grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; env");
    assert_eq!(end, exited(0));
    assert!(output.starts_with("pid 2\n0022\n500\n/tmp\n"), "{output}");
    for mask in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"] {
        assert!(output.contains(mask), "{output}");
    }
}

#[test]
fn the_program_holds_three_descriptors_and_those_to_keep() {
    if !root() {
        return;
    }
    // A descriptor that a careless caller left open, and one to keep.
    let file = File::open("/etc/passwd").expect("open");
    let careless = nix::unistd::dup(&file).expect("dup");
    let keep = nix::unistd::dup(&file).expect("dup");
    let list_self = ["/bin/sh", "-c", "exec ls /proc/self/fd"];
    let (end, output) = run(&list_self);
    assert_eq!(
        (end, output.as_str()),
        (exited(0), "0\n1\n2\n3\n"),
        "3 is the directory listed"
    );
    let mut bench = Bench::new();
    bench.keep = vec![keep.as_raw_fd()];
    let (_, output) = bench.run(&list_self);
    bench.done();
    let mut numbers: Vec<&str> = output.lines().collect();
    numbers.retain(|number| *number == keep.as_raw_fd().to_string());
    assert_eq!(numbers.len(), 1, "{output}");
    let careless = format!("\n{}\n", careless.as_raw_fd());
    assert!(!output.contains(&careless), "{output}");
}

#[test]
fn what_the_program_leaves_behind_dies_with_it() {
    if !root() {
        return;
    }
    let begin = Instant::now();
    let tree =
        "for i in 1 2 3 4 5; do setsid sh -c 'trap \"\" TERM HUP; sleep 60 & wait' & done; exit 3";
    let mut bench = Bench::new();
    // Its output must not be waited for: the sleepers hold it open until they die.
    assert_eq!(bench.run(&["/bin/sh", "-c", tree]).0, exited(3));
    bench.done();
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn a_signal_reaches_the_program_and_only_it() {
    if !root() {
        return;
    }
    let mut bench = Bench::new();
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .expect("null");
    let fd = null.as_raw_fd();
    let launched = bench
        .start(&["/bin/sleep", "60"], [fd, fd, fd])
        .expect("start");
    assert!(
        launched.agent_pid().is_some_and(|pid| pid > 2),
        "the id on the host"
    );
    let end = block_on(async {
        let (mut running, _signals) = launched.supervise().expect("supervise");
        running.signal(libc::SIGTERM).expect("signal");
        let end = running.ended().await;
        running
            .signal(libc::SIGTERM)
            .expect("one that is gone is no error");
        assert_eq!(running.ended().await, end, "asked again, it answers again");
        running.finish().await;
        end
    });
    assert_eq!(end, End::Program(Ended::Signaled(libc::SIGTERM)));
    bench.done();
}

#[test]
fn an_own_network_has_lo_up_and_nothing_else() {
    if !root() {
        return;
    }
    let mut bench = Bench::new();
    bench.own_network = true;
    let (_, output) = bench.run(&[
        "/bin/sh",
        "-c",
        "cat /proc/self/net/dev | grep -c :; ip -o link show up",
    ]);
    bench.done();
    assert!(
        output.starts_with("1\n1: lo: <LOOPBACK,UP,LOWER_UP>"),
        "{output}"
    );
}

/// A program whose run would be seen.
fn footprint() -> (PathBuf, String) {
    let path = std::env::temp_dir().join(fresh_name());
    let script = format!("touch {}", path.display());
    (path, script)
}

fn start_fails(prepare: impl FnOnce(&mut Bench)) -> (LaunchError, Vec<Step>) {
    let (footprint, script) = footprint();
    let mut bench = Bench::new();
    prepare(&mut bench);
    let error = bench
        .start(&["/bin/sh", "-c", &script], [0, 1, 2])
        .expect_err("must not start");
    let seen = std::mem::take(&mut bench.keeper.seen);
    bench.done();
    assert!(
        !footprint.exists(),
        "not one instruction of the program has run"
    );
    (error, seen)
}

#[test]
fn a_gate_that_stays_shut_starts_nothing() {
    if !root() {
        return;
    }
    let order = [Step::Attach, Step::StateCanary, Step::Judge];
    for (count, step) in (1..).zip(order) {
        let (error, seen) = start_fails(|bench| bench.keeper.refuses = Some(step));
        assert_eq!(error.exit_code(), 123);
        assert_eq!(error.to_string(), step.words());
        assert_eq!(seen, order[..count], "the gates open in order");
    }
}

#[test]
fn a_mechanism_that_fails_starts_nothing_and_is_named() {
    if !root() {
        return;
    }
    for step in [
        Step::View,
        Step::Limits,
        Step::Identity,
        Step::Landlock,
        Step::Seccomp,
    ] {
        let (error, _) = start_fails(|bench| bench.confinement.fails_at = Some(step));
        assert_eq!(error.exit_code(), 125);
        assert_eq!(error.to_string(), format!("{step} (mount 5)"));
    }
}

#[test]
fn if_lp_run_dies_the_whole_tree_dies_within_a_second() {
    if !root() {
        return;
    }
    let mut bench = Bench::new();
    let (mut read, write) = std::io::pipe().expect("pipe");
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .expect("null");
    let tree = "for i in 1 2 3 4 5 6 7 8; do (setsid sh -c 'trap \"\" TERM HUP INT; (sleep 60 &); sleep 60' &) ; done; \
         sleep 0.2; echo up; exec sleep 60";
    let victim = crate::sys::fork::fork_child(|| {
        let given = [null.as_raw_fd(), write.as_raw_fd(), null.as_raw_fd()];
        let _launched = bench.start(&["/bin/sh", "-c", tree], given).expect("start");
        std::thread::sleep(Duration::from_secs(30));
        0
    });
    drop(write);
    let mut byte = [0; 3];
    read.read_exact(&mut byte).expect("the tree is up");
    // A slow machine needs longer than the tree's own pause to start it all.
    let list = bench.cgroup.agent.path().join("cgroup.procs");
    let patience = Instant::now() + Duration::from_secs(20);
    let mut processes = String::new();
    while processes.lines().count() < 17 && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(50));
        processes = fs::read_to_string(&list).expect("procs");
    }
    assert!(processes.lines().count() >= 17, "{processes}");
    let begin = Instant::now();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(victim),
        nix::sys::signal::SIGKILL,
    )
    .expect("kill");
    while bench.cgroup.agent.populated().expect("events") {
        assert!(
            begin.elapsed() < Duration::from_secs(1),
            "the tree outlives lp-run"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    crate::sys::process::wait_child(victim).expect("reap");
    bench.done();
}

#[test]
fn many_starts_leave_nothing() {
    if !root() {
        return;
    }
    // A table of descriptors of this thread's own: other tests of this process come and go.
    unshare(CloneFlags::CLONE_FILES).expect("a descriptor table of the test's own");
    let open = || fs::read_dir("/proc/thread-self/fd").expect("fds").count();
    // The first run opens what stays open for all of them.
    assert_eq!(run(&["/bin/true"]).0, exited(0));
    let open_before = open();
    for _ in 0..100 {
        assert_eq!(run(&["/bin/true"]).0, exited(0));
    }
    assert_eq!(open(), open_before);
}

#[test]
fn ten_runs_at_once_do_not_disturb_each_other() {
    if !root() {
        return;
    }
    std::thread::scope(|scope| {
        for number in 0..10 {
            scope.spawn(move || {
                let script = format!("sleep 0.1; echo {number}; exit {number}");
                assert_eq!(sh(&script), (exited(number), format!("{number}\n")));
            });
        }
    });
}

#[test]
fn sockets_are_relayed_with_both_ends() {
    if !root() {
        return;
    }
    let (input, mut to_program) = UnixStream::pair().expect("pair");
    let (output, mut from_program) = UnixStream::pair().expect("pair");
    let errors = File::options().write(true).open("/dev/null").expect("null");
    let mut bench = Bench::new();
    let script = "[ -S /dev/stdin ] && exit 1; cat; echo again > /dev/stdout";
    let given = [input.as_raw_fd(), output.as_raw_fd(), errors.as_raw_fd()];
    let launched = bench
        .start(&["/bin/sh", "-c", script], given)
        .expect("start");
    let bytes = vec![b'x'; 3 << 20];
    let received = std::thread::scope(|scope| {
        let bytes = &bytes;
        scope.spawn(move || {
            to_program.write_all(bytes).expect("write");
            to_program
                .shutdown(std::net::Shutdown::Write)
                .expect("the end of stdin");
        });
        let reader = scope.spawn(|| {
            let mut all = Vec::new();
            std::thread::sleep(Duration::from_millis(100));
            from_program.read_to_end(&mut all).map(|_| all)
        });
        let (end, rest) = block_on(async {
            let (mut running, _signals) = launched.supervise().expect("supervise");
            let end = running.ended().await;
            (end, running.finish().await)
        });
        assert_eq!((end, rest), (exited(0), Rest::default()));
        reader.join().expect("reader").expect("read")
    });
    bench.done();
    assert_eq!(received.len(), bytes.len() + "again\n".len());
    assert!(received.ends_with(b"again\n"));
}

/// The operator's terminal, played by a test.
struct Operator {
    master: File,
    slave: OwnedFd,
}

impl Operator {
    fn new() -> Self {
        let pty = openpty(None, None).expect("pty");
        Self {
            master: File::from(pty.master),
            slave: pty.slave,
        }
    }

    fn read_until(&mut self, text: &str) -> String {
        let mut all = String::new();
        let mut buffer = [0; 256];
        while !all.contains(text) {
            let count = self.master.read(&mut buffer).expect("read");
            all.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        all
    }
}

#[test]
fn a_terminal_is_replaced_by_one_of_the_runs_own() {
    if !root() {
        return;
    }
    let mut operator = Operator::new();
    let before = tcgetattr(&operator.slave).expect("settings");
    let fd = operator.slave.as_raw_fd();
    let operators = fs::read_link(format!("/proc/self/fd/{fd}")).expect("name");
    let mut bench = Bench::new();
    let script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && tty; echo to-tty > /dev/tty; \
         trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.05; done";
    let launched = bench
        .start(&["/bin/sh", "-c", script], [fd, fd, fd])
        .expect("start");
    let seen = Cell::new(String::new());
    let end = std::thread::scope(|scope| {
        let typist = scope.spawn(|| {
            let seen = operator.read_until("ready");
            operator.master.write_all(&[3]).expect("type ^C");
            seen + &operator.read_until("interrupted")
        });
        let end = block_on(async {
            let (mut running, _signals) = launched.supervise().expect("supervise");
            let end = running.ended().await;
            running.finish().await;
            end
        });
        seen.set(typist.join().expect("typist"));
        end
    });
    bench.done();
    let seen = seen.into_inner();
    assert_eq!(end, exited(5));
    assert!(seen.starts_with("/dev/pts/"), "{seen}");
    assert!(
        !seen.contains(operators.to_str().expect("UTF-8")),
        "another terminal: {seen}"
    );
    assert!(seen.contains("to-tty"), "{seen}");
    let after = tcgetattr(&operator.slave).expect("settings");
    assert!(before.local_flags.contains(LocalFlags::ICANON));
    assert_eq!(before, after, "the terminal is as it was");
}

#[test]
fn a_panic_restores_the_terminal_but_never_over_the_settings_of_another() {
    let operator = Operator::new();
    let before = tcgetattr(&operator.slave).expect("settings");
    let enter = || terminal::RawMode::enter(operator.slave.as_fd(), true).expect("raw mode");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _raw = enter();
        assert_ne!(tcgetattr(&operator.slave).expect("settings"), before);
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(tcgetattr(&operator.slave).expect("settings"), before);
    let raw = enter();
    let mut others = before.clone();
    others.local_flags.remove(LocalFlags::ECHO);
    let now = nix::sys::termios::SetArg::TCSANOW;
    nix::sys::termios::tcsetattr(&operator.slave, now, &others).expect("set");
    drop(raw);
    assert_eq!(tcgetattr(&operator.slave).expect("settings"), others);
}

#[test]
fn the_agents_pipes_can_be_opened_again_by_their_name() {
    if !root() {
        return;
    }
    let (end, output) = sh("echo one > /dev/stdout; echo two > /proc/self/fd/1");
    assert_eq!((end, output.as_str()), (exited(0), "one\ntwo\n"));
    assert!(Path::new("/dev/stdout").exists());
}

#[test]
fn a_pty_of_the_runs_own_devpts_has_a_name_there() {
    if !root() {
        return;
    }
    let context = mount::open_filesystem(c"devpts").expect("fsopen");
    mount::set_option(&context, c"ptmxmode", c"0666").expect("ptmxmode");
    let devpts = mount::mount_filesystem(&context, 0).expect("fsmount");
    let operator = Operator::new();
    let options = StdioOptions {
        terminal: true,
        direct: false,
        owner: (12_345, 12_345),
        file_size: u64::MAX,
        keep: &[],
        devpts: Some(devpts.as_fd()),
    };
    let stdio = Stdio::prepare_from([operator.slave.as_raw_fd(); 3], &options).expect("stdio");
    let slave = stdio.slave().expect("a terminal");
    let stat = nix::sys::stat::fstat(slave).expect("fstat");
    let name = nix::sys::stat::fstatat(&devpts, "0", nix::fcntl::AtFlags::empty()).expect("0");
    assert_eq!((stat.st_dev, stat.st_ino), (name.st_dev, name.st_ino));
    assert_eq!(
        (stat.st_uid, stat.st_mode & 0o777),
        (12_345, 0o620),
        "it is the agent's"
    );
}

#[test]
fn without_a_terminal_of_its_own_the_program_gets_pipes() {
    if !root() {
        return;
    }
    let mut operator = Operator::new();
    let mut bench = Bench::new();
    bench.terminal = false;
    let fd = operator.slave.as_raw_fd();
    let script = "[ -t 1 ] && exit 1; [ -p /dev/stdout ] || exit 2; read line; echo got $line";
    let launched = bench
        .start(&["/bin/sh", "-c", script], [fd, fd, fd])
        .expect("start");
    let (end, seen) = std::thread::scope(|scope| {
        let typist = scope.spawn(|| {
            operator.master.write_all(b"words\n").expect("type");
            operator.read_until("got words")
        });
        let end = block_on(async {
            let (mut running, _signals) = launched.supervise().expect("supervise");
            let end = running.ended().await;
            running.finish().await;
            end
        });
        (end, typist.join().expect("typist"))
    });
    bench.done();
    assert_eq!(end, exited(0), "{seen}");
}

#[test]
fn a_signal_to_lp_run_is_handed_on_also_when_it_came_early() {
    if !root() {
        return;
    }
    let mut bench = Bench::new();
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .expect("null");
    let launched = bench
        .start(&["/bin/sleep", "60"], [null.as_raw_fd(); 3])
        .expect("start");
    // Blocked in this thread since the start, and so not lost and not deadly.
    nix::sys::signal::raise(nix::sys::signal::SIGUSR1).expect("raise");
    let end = block_on(async {
        let (mut running, mut signals) = launched.supervise().expect("supervise");
        let signal = signals.next().await;
        assert_eq!(signal, libc::SIGUSR1);
        running.signal(signal).expect("forward");
        let end = running.ended().await;
        running.finish().await;
        end
    });
    assert_eq!(end, End::Program(Ended::Signaled(libc::SIGUSR1)));
    bench.done();
}
