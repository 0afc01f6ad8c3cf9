// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file programs on the running kernel: real processes in a cgroup of the test's own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use aya::maps::{Array, MapData, PerCpuArray};
use lp_run_common::counters::{CounterRow, MAX_DENIED_PER_RUN, Tally};
use lp_run_common::files::MAX_MISSING_PER_RUN;
use lp_run_common::run::{FLAG_COUNT_FILES, NO_ROW, RunRow, STATE_LIVE, STATE_SETUP};

use super::*;
use crate::plan::{Anchor, Rights};
use crate::record::event::{Denial, Op};
use crate::sys::bpf_ring::Ring;
use crate::watch::testing::{Base, unified};

const READ: u32 = 0;
const WRITE: u32 = 1;
const EXEC: u32 = 2;
const ROWS: u32 = 16;

/// One at a time: the tracepoints are the machine's, and figures of speed would be each other's.
static TURN: Mutex<()> = Mutex::new(());

/// A run of the test's own: the programs, a cgroup, a directory.
struct Bench {
    files: Files,
    objects: Objects,
    tallies: Array<MapData, Tally>,
    events: Ring,
    runs: Array<MapData, RunRow>,
    counters: PerCpuArray<MapData, CounterRow>,
    cgroup: PathBuf,
    directory: tempfile::TempDir,
    held: Vec<OwnedFd>,
    anchors: Vec<Anchor>,
    /// Of the tests' own: other runs of the machine do not notice what happens to it.
    _base: Arc<Base>,
    _turn: MutexGuard<'static, ()>,
}

impl Bench {
    /// `None`, said aloud, where the machine cannot: no root, no cgroup v2, no BTF.
    fn new() -> Option<Self> {
        let base = Base::shared();
        let turn = TURN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let Some(unified) = unified() else {
            eprintln!("skipped: cgroup v2 is not mounted");
            return None;
        };
        let objects = Objects::acquire(base.path(), ROWS as usize).unwrap();
        let files = objects.files().unwrap_or_else(|error| panic!("{error:?}"));
        let loaded = &objects.loaded;
        let events = objects.ring().unwrap();
        let runs = loaded.map("RUNS").unwrap();
        let tallies = loaded.map("TALLIES").unwrap();
        let counters = loaded.map("COUNTERS").unwrap();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = unified.join(format!("lp-run-files-{}-{number}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut bench = Self {
            files,
            objects,
            tallies,
            events,
            runs,
            counters,
            cgroup,
            directory,
            held: Vec::new(),
            anchors: Vec::new(),
            _base: base,
            _turn: turn,
        };
        bench.state(STATE_LIVE);
        let cgroup = File::open(&bench.cgroup).unwrap();
        bench.enter(&cgroup);
        bench.files.links.make().unwrap();
        Some(bench)
    }

    fn enter(&mut self, cgroup: &File) {
        let files = &mut self.files;
        let entered = files.members.enter(&files.inspect, cgroup.as_fd());
        entered.unwrap();
    }

    fn state(&mut self, state: u32) {
        let row = RunRow {
            state,
            flags: FLAG_COUNT_FILES,
            self_row: NO_ROW,
            ..self.objects.lease.row()
        };
        self.runs.set(self.objects.lease.slot, row, 0).unwrap();
    }

    /// A directory `kb` with `deep/er/page` in it, granted with `rights`.
    fn store(&mut self, rights: &str) -> PathBuf {
        let kb = self.path("kb");
        fs::create_dir_all(kb.join("deep/er")).unwrap();
        fs::write(kb.join("deep/er/page"), "x").unwrap();
        self.grant(&kb, rights, 0);
        kb
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes `name` an anchor with the rights of `text`, each owned by its row plus `offset`.
    fn grant(&mut self, path: &Path, text: &str, offset: u32) {
        let object = File::options()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(path)
            .unwrap();
        let own = |right: char, row: u32| text.contains(right).then_some(row + offset);
        let owners = Owners {
            read: own('r', READ),
            write: own('w', WRITE),
            exec: own('x', EXEC),
        };
        self.files.add(object.as_fd(), owners).unwrap();
        self.anchors.push(Anchor {
            object: None,
            path: path.to_owned(),
            directory: path.is_dir(),
            rights: Rights {
                read: owners.read.is_some(),
                write: owners.write.is_some(),
                exec: owners.exec.is_some(),
            },
            owners,
        });
        self.held.push(object.into());
    }

    /// How often the rule in `row` allowed.
    fn allowed(&self, row: u32) -> u64 {
        self.counters
            .get(&row, 0)
            .unwrap()
            .iter()
            .map(|cpu| cpu.allowed)
            .sum()
    }

    fn denials(&mut self) -> Vec<Denial> {
        let clock = Clock::now();
        let tree = Tree::for_tests(&self.anchors);
        let failures = &mut self.files.failures;
        let more = self.events.drain(usize::MAX, |event| {
            let news = failures::decode(event).unwrap();
            failures.note(news, &tree, &HostAndView::of(0), &clock);
        });
        assert!(!more.unwrap());
        self.files.denials(&clock, false).unwrap()
    }

    /// A Python interpreter in the run's cgroup, with mounts of its own.
    fn worker(&self) -> Worker {
        let worker = self.outsider();
        self.take_in(&worker, &self.cgroup);
        worker
    }

    fn take_in(&self, worker: &Worker, cgroup: &Path) {
        fs::write(cgroup.join("cgroup.procs"), worker.child.id().to_string()).unwrap();
    }

    /// The same, in the test's own cgroup.
    fn outsider(&self) -> Worker {
        let script = "import os,sys,ctypes,subprocess\nc=ctypes.CDLL(None,use_errno=True)\n\
            def no(f,*a,**k):\n try: f(*a,**k)\n except OSError as e: return e.errno\n return 0\n\
            print('ready',flush=True)\n\
            for l in sys.stdin:\n exec(l.replace(chr(1),chr(10)),globals()); print('done',flush=True)";
        let mut child = Command::new("unshare")
            .args(["-m", "python3", "-S", "-E", "-c", script])
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut worker = Worker {
            child,
            input,
            output,
        };
        worker.expect("ready");
        worker
    }

    /// Runs lines of Python inside.
    fn inside(&self, code: &str) {
        self.worker().run(code);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        gone(&self.cgroup);
    }
}

/// Removes a cgroup, whose last process may still be on its way out.
fn gone(cgroup: &Path) {
    for _ in 0..100 {
        if fs::remove_dir(cgroup).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn run(&mut self, code: &str) {
        writeln!(self.input, "{}", code.trim_end().replace('\n', "\u{1}")).unwrap();
        self.expect("done");
    }

    fn expect(&mut self, word: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), word);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything that one denial says, but time and process.
fn said(denials: &[Denial]) -> Vec<(Op, String, &'static str, u64, bool)> {
    let one = |denial: &Denial| {
        let target = String::from_utf8_lossy(&denial.target).into_owned();
        assert_eq!(denial.comm, b"python3");
        assert!(denial.as_typed && denial.pid != 0 && denial.first <= denial.last);
        (denial.op, target, denial.errno, denial.count, denial.hidden)
    };
    denials.iter().map(one).collect()
}

#[test]
fn ten_thousand_opens_of_four_processes_are_ten_thousand() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.store("r");
    let mut workers: Vec<Worker> = (0..4).map(|_| bench.worker()).collect();
    for worker in &mut workers {
        let code = "for i in range(2500): os.close(os.open('kb/deep/er/page',0))";
        writeln!(worker.input, "{code}").unwrap();
    }
    workers.iter_mut().for_each(|worker| worker.expect("done"));
    assert_eq!(bench.allowed(READ), 10_000);
    let totals = bench.files.sums().unwrap();
    assert_eq!(
        (totals.opens, totals.elsewhere, totals.unfinished),
        (10_000, 0, 0)
    );
}

#[test]
fn an_open_counts_for_the_right_that_it_used() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.store("rwx");
    bench.inside(
        "os.open('kb/deep/er/page', os.O_RDONLY)\n\
         os.open('kb', os.O_RDONLY|os.O_DIRECTORY)\n\
         os.open('kb/deep/er/page', os.O_WRONLY)\n\
         os.open('kb/deep/er/page', os.O_RDWR|os.O_APPEND)\n\
         os.open('kb/new', os.O_RDONLY|os.O_CREAT)\n\
         os.open('kb/new', os.O_RDONLY|os.O_TRUNC)\n\
         os.open('kb/new', os.O_RDONLY|os.O_CREAT)\n\
         os.open('kb/deep/er/page', os.O_PATH)\n\
         os.open('kb', os.O_TMPFILE|os.O_RDWR)",
    );
    assert_eq!(
        (
            bench.allowed(READ),
            bench.allowed(WRITE),
            bench.allowed(EXEC)
        ),
        (3, 5, 0)
    );
    assert_eq!(bench.files.sums().unwrap().opens, 8);
}

#[test]
fn every_call_that_opens_is_seen() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.store("rw");
    bench.inside(
        "how=(ctypes.c_uint64*3)(0,0,0)\n\
         assert c.syscall(2, b'kb/deep/er/page', 0, 0) >= 0\n\
         assert c.syscall(85, b'kb/made', 0o644) >= 0\n\
         assert c.syscall(257, -100, b'kb/deep/er/page', 0, 0) >= 0\n\
         assert c.syscall(437, -100, b'kb/deep/er/page', how, 24) >= 0",
    );
    assert_eq!((bench.allowed(READ), bench.allowed(WRITE)), (3, 1));
}

#[test]
fn the_nearest_anchor_counts() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let kb = bench.store("r");
    bench.grant(&kb.join("deep"), "r", 4);
    bench.grant(&kb.join("deep/er/page"), "r", 8);
    fs::write(kb.join("top"), "x").unwrap();
    fs::write(kb.join("deep/middle"), "x").unwrap();
    fs::write(bench.path("beside"), "x").unwrap();
    bench.inside("for f in ('kb/top','kb/deep/middle','kb/deep/er/page','beside'): os.open(f,0)");
    let counts = [0, 4, 8].map(|row| bench.allowed(row));
    assert_eq!(counts, [1, 1, 1]);
    assert_eq!(bench.files.sums().unwrap().elsewhere, 1);
}

#[test]
fn links_and_descriptors_lead_to_the_object() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let kb = bench.store("r");
    fs::create_dir(bench.path("kb2")).unwrap();
    std::os::unix::fs::symlink("../kb/deep/er/page", bench.path("kb2/in")).unwrap();
    std::os::unix::fs::symlink("kb/deep", bench.path("way")).unwrap();
    std::os::unix::fs::symlink("../beside", kb.join("out")).unwrap();
    fs::write(bench.path("beside"), "x").unwrap();
    bench.inside(
        "os.open('way/er/page',0); os.open('kb2/in',0); os.open('kb/out',0)\n\
         d=os.open('kb/deep',os.O_PATH)\n\
         os.open('er/page',0,dir_fd=d); os.open('../deep/er',0,dir_fd=d)\n\
         os.chdir('kb'); os.open('deep/er/page',0); os.open('../beside',0)\n\
         os.open('/proc/self/fd/%d/er/page' % d, 0)",
    );
    assert_eq!(bench.allowed(READ), 6);
    assert_eq!(bench.files.sums().unwrap().elsewhere, 2);
}

#[test]
fn mounts_are_crossed() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.store("rw");
    fs::create_dir(bench.path("elsewhere")).unwrap();
    fs::create_dir(bench.path("lone")).unwrap();
    bench.inside(
        "assert c.mount(b'tmpfs', b'kb/deep', b'tmpfs', 0, None) == 0\n\
         os.mkdir('kb/deep/a'); os.mkdir('kb/deep/a/b')\n\
         assert c.mount(b'tmpfs', b'kb/deep/a/b', b'tmpfs', 0, None) == 0\n\
         os.open('kb/deep/a/b/x', os.O_CREAT|os.O_WRONLY)\n\
         assert c.mount(b'kb', b'elsewhere', None, 4096|16384, None) == 0\n\
         os.open('elsewhere/deep/a/b/x', 0)\n\
         assert c.mount(b'kb/deep/a', b'lone', None, 4096, None) == 0\n\
         os.open('lone', 0)",
    );
    assert_eq!((bench.allowed(READ), bench.allowed(WRITE)), (1, 1));
    // A part of the tree that is mounted outside of it is no longer below the anchor.
    assert_eq!(bench.files.sums().unwrap().elsewhere, 1);
}

#[test]
fn overlays_are_counted_by_their_own_objects() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    // The layers must lie on a file system that can carry an overlay.
    let mut worker = bench.worker();
    worker.run(
        "os.mkdir('s'); assert c.mount(b'tmpfs', b's', b'tmpfs', 0, None) == 0\n\
         for d in ('s/low','s/up','s/work','s/all','s/low/sub'): os.mkdir(d)\n\
         open('s/low/sub/page','w').close()\n\
         o=b'lowerdir=s/low,upperdir=s/up,workdir=s/work'\n\
         assert c.mount(b'overlay', b's/all', b'overlay', 0, o) == 0",
    );
    let seen = format!("/proc/{}/root", worker.child.id());
    let inside = PathBuf::from(format!(
        "{seen}{}/s/all/sub",
        bench.directory.path().display()
    ));
    bench.grant(&inside, "rw", 0);
    worker.run(
        "os.open('s/all/sub/page', 0); os.open('s/low/sub/page', 0)\n\
         os.open('s/all/sub/page', os.O_WRONLY); os.open('s/all/sub/page', 0)",
    );
    assert_eq!((bench.allowed(READ), bench.allowed(WRITE)), (2, 1));
}

#[test]
fn an_object_keeps_its_address_while_it_is_held() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let kb = bench.store("r");
    let object = |path: &Path| {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(path)
            .unwrap();
        (bench.files.inspect.object(file.as_fd()).unwrap(), file)
    };
    let (first, _held) = object(&kb);
    for name in 0..200 {
        fs::write(kb.join(name.to_string()), "").unwrap();
    }
    fs::rename(&kb, bench.path("renamed")).unwrap();
    assert_eq!(object(&bench.path("renamed")).0, first);
    assert_ne!(object(&bench.path("renamed/deep")).0, first);
}

#[test]
fn programs_count_for_exec_and_scripts_for_read() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let kb = bench.store("rx");
    fs::copy("/bin/true", kb.join("tool")).unwrap();
    fs::copy("/bin/sh", kb.join("shell")).unwrap();
    let script = format!("#!{}\nexit 0\n", kb.join("shell").display());
    fs::write(kb.join("script"), script).unwrap();
    fs::set_permissions(kb.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut worker = bench.worker();
    worker.run("for i in range(3): subprocess.run(['kb/tool'],close_fds=False)");
    assert_eq!((bench.allowed(EXEC), bench.allowed(READ)), (3, 0));
    worker.run("subprocess.run(['kb/script'])");
    assert_eq!((bench.allowed(EXEC), bench.allowed(READ)), (4, 1));
    assert_eq!(bench.files.sums().unwrap().execs, 4);
}

#[test]
fn nobody_else_is_counted() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.store("r");
    let mut outsider = bench.outsider();
    outsider.run("os.open('kb/deep/er/page',0)\nassert no(os.open,'kb/none',0) == 2");
    let nested = bench.cgroup.join("nested");
    fs::create_dir(&nested).unwrap();
    let mut worker = bench.outsider();
    bench.take_in(&worker, &nested);
    worker.run("os.open('kb/deep/er/page',0)");
    drop(worker);
    assert_eq!(bench.allowed(READ), 1);
    assert_eq!(bench.files.sums().unwrap().opens, 1);
    gone(&nested);
}

#[test]
fn nothing_counts_before_the_run_is_live_or_after_it() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.store("r");
    let code = "os.open('kb/deep/er/page',0); no(os.open,'none',0)";
    let mut worker = bench.worker();
    bench.state(STATE_SETUP);
    worker.run(code);
    assert_eq!(bench.files.sums().unwrap(), FileTotals::default());
    bench.state(STATE_LIVE);
    worker.run(code);
    assert_eq!(bench.allowed(READ), 1);
    bench.files.leave().unwrap();
    worker.run(code);
    assert_eq!(bench.allowed(READ), 1);
    assert_eq!(bench.files.sums().unwrap().opens, 1);
}

#[test]
fn a_detached_program_is_noticed() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.store("r");
    bench.files.check_attached().unwrap();
    unlink(&bench.objects.place.pins).unwrap();
    // The kernel takes the program off in its own time.
    let mut worker = bench.worker();
    let off = (0..100).any(|_| {
        let before = bench.allowed(READ);
        worker.run("os.open('kb/deep/er/page',0)");
        std::thread::sleep(std::time::Duration::from_millis(50));
        bench.allowed(READ) == before
    });
    assert!(off, "it still counts");
    assert!(matches!(
        bench.files.check_attached(),
        Err(FilesError::Detached(_))
    ));
}

#[test]
fn a_program_that_is_just_being_taken_off_is_attached_again() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.store("r");
    for _ in 0..100 {
        unlink(&bench.objects.place.pins).unwrap();
        let cgroup = File::open(&bench.cgroup).unwrap();
        bench.enter(&cgroup);
        bench.files.links.make().unwrap();
        bench.files.check_attached().unwrap();
    }
    let mut worker = bench.worker();
    worker.run("os.open('kb/deep/er/page',0)");
    assert_eq!(bench.allowed(READ), 1);
    // Also when the kernel has taken off all that it still had to.
    std::thread::sleep(std::time::Duration::from_millis(500));
    worker.run("os.open('kb/deep/er/page',0)");
    assert_eq!(bench.allowed(READ), 2);
}

#[test]
fn refusals_are_counted_by_what_was_typed() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let kb = bench.store("r");
    fs::set_permissions(&kb, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(kb.join("program"), "").unwrap();
    fs::write(bench.path("secret"), "").unwrap();
    fs::set_permissions(bench.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let secret = bench.path("secret").display().to_string();
    bench.inside(&format!(
        "os.setuid(65534)\n\
         for i in range(5): assert no(os.open,'{secret}',0) == 13\n\
         assert no(os.open,'{secret}',os.O_RDWR) == 13\n\
         os.chdir('kb/deep')\n\
         for i in range(2): assert no(os.open,'../../secret',0) == 13\n\
         d=os.open('er',0)\n\
         assert no(os.open,'../../../secret',0,dir_fd=d) == 13\n\
         assert no(os.open,'../deep/new',os.O_CREAT|os.O_WRONLY) == 13\n\
         assert no(os.execv,'../program',['p']) == 13\n\
         assert no(os.execv,'{secret}',['p']) == 13"
    ));
    let root = bench.directory.path().display().to_string();
    let denials = bench.denials();
    assert_eq!(
        said(&denials),
        [
            (Op::Open, secret.clone(), "EACCES", 5, false),
            (Op::Write, secret.clone(), "EACCES", 1, false),
            (
                Op::Open,
                format!("{root}/kb/deep/../../secret"),
                "EACCES",
                2,
                false
            ),
            (
                Op::Open,
                format!("{root}/kb/deep/er/../../../secret"),
                "EACCES",
                1,
                false
            ),
            (
                Op::Write,
                format!("{root}/kb/deep/../deep/new"),
                "EACCES",
                1,
                false
            ),
            (
                Op::Exec,
                format!("{root}/kb/deep/../program"),
                "EACCES",
                1,
                false
            ),
            (Op::Exec, secret, "EACCES", 1, false),
        ]
    );
}

#[test]
fn a_refusal_is_told_when_its_name_is_here_and_not_before() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    fs::write(bench.path("secret"), "x").unwrap();
    fs::set_permissions(bench.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let refused = "os.setuid(65534); assert no(os.open,'secret',0) == 13";
    bench.inside(refused);
    // Its event lies in the ring, and nobody has looked.
    let clock = Clock::now();
    assert_eq!(bench.files.denials(&clock, true).unwrap(), []);
    let last = bench.files.denials(&clock, false).unwrap();
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].target, failures::UNKNOWN);
    bench.denials();
    let told = bench.files.denials(&clock, true).unwrap();
    assert!(told[0].target.ends_with(b"/secret"), "{told:?}");
}

#[test]
fn what_the_view_hides_is_told_from_what_is_not_there() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.store("r");
    fs::create_dir(bench.path("hidden")).unwrap();
    fs::write(bench.path("hidden/key"), "").unwrap();
    let root = bench.directory.path().display().to_string();
    bench.inside(&format!(
        "assert c.mount(b'tmpfs', b'hidden', b'tmpfs', 0, None) == 0\n\
         for i in range(7): assert no(os.open,'{root}/hidden/key',0) == 2\n\
         for i in range(7): assert no(os.open,'{root}/hidden/none',0) == 2\n\
         for i in range(7): assert no(os.open,'kb/none',0) == 2\n\
         assert no(os.execv,'hidden/key',['k']) == 2"
    ));
    let key = format!("{root}/hidden/key");
    assert_eq!(
        said(&bench.denials()),
        [
            (Op::Open, key.clone(), "ENOENT", 7, true),
            (Op::Exec, key, "ENOENT", 1, true)
        ]
    );
}

#[test]
fn names_that_are_long_strange_or_unreadable_are_counted() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let long = "n".repeat(250);
    bench.inside(&format!(
        "for i in range(12): os.mkdir('{long}'); os.chdir('{long}')\n\
         os.mkdir('shut'); os.chmod('shut', 0); os.setuid(65534)\n\
         assert no(os.open,'shut/x',0) == 13\n\
         assert no(os.open,b'shut/\\xff\\x1b[31m',0) == 13\n\
         assert no(os.open,'shut/../'+'./'*1900+'shut/y',0) == 13"
    ));
    let denials = bench.denials();
    let targets: Vec<&[u8]> = denials
        .iter()
        .map(|denial| denial.target.as_slice())
        .collect();
    assert_eq!(targets.len(), 3);
    assert!(targets[0].ends_with(b"/shut/x"));
    assert!(targets[1].ends_with(b"/shut/\xff\x1b[31m"));
    assert!(targets[2].ends_with(b"shut/y") && targets[2].len() > 3800);
    assert!(denials.iter().all(|denial| denial.count == 1));
}

#[test]
fn a_flood_is_summed_and_never_miscounted() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let secret = bench.path("shut");
    fs::create_dir(&secret).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).unwrap();
    bench.inside(
        "for i in range(9000): no(os.open,'none%d' % i,0)\n\
         os.setuid(65534)\n\
         for i in range(1500): assert no(os.open,'shut/%d' % i,0) == 13\n\
         assert no(os.open,'shut/0',0) == 13",
    );
    let denials = bench.denials();
    let tally = bench.tallies.get(&bench.objects.lease.slot, 0).unwrap();
    // Nobody looked while they came: each is judged, or counted as not judged.
    assert_eq!(tally.missing, MAX_MISSING_PER_RUN);
    assert_eq!(tally.missing + tally.other_missing, 9000);
    assert_eq!(bench.files.unjudged().unwrap(), tally.lost);
    assert_eq!(tally.paths, MAX_DENIED_PER_RUN);
    assert_eq!(tally.sent + tally.lost, tally.missing + tally.paths);
    let named: u64 = denials.iter().map(|denial| denial.count).sum();
    assert_eq!(named + tally.other_paths, 1501);
}

#[test]
fn a_hidden_name_behind_twenty_thousand_missing_ones_is_found() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    fs::create_dir(bench.path("hidden")).unwrap();
    fs::write(bench.path("hidden/key"), "").unwrap();
    let mut worker = bench.worker();
    worker.run("assert c.mount(b'tmpfs', b'hidden', b'tmpfs', 0, None) == 0");
    for part in 0..20 {
        worker.run(&format!(
            "for i in range({part}000,{part}000+1000): assert no(os.open,'none%d' % i,0) == 2"
        ));
        assert!(bench.denials().is_empty());
    }
    worker.run("for i in range(3): assert no(os.open,'hidden/key',0) == 2");
    let denials = bench.denials();
    assert_eq!(denials.len(), 1);
    assert_eq!((denials[0].count, denials[0].hidden), (3, true));
    let tally = bench.tallies.get(&bench.objects.lease.slot, 0).unwrap();
    assert_eq!((tally.missing, tally.other_missing), (20_001, 0));
    assert_eq!(bench.files.unjudged().unwrap(), 0);
}

#[test]
fn a_full_ring_loses_events_and_no_count() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    fs::create_dir(bench.path("hidden")).unwrap();
    fs::write(bench.path("hidden/key"), "").unwrap();
    let mut worker = bench.worker();
    worker.run("assert c.mount(b'tmpfs', b'hidden', b'tmpfs', 0, None) == 0");
    // Each event carries a kilobyte of name: a thousand of them fill the ring.
    worker.run(
        "for i in range(1500): assert no(os.open,'./'*500+'none%d' % i,0) == 2\n\
         for i in range(5): assert no(os.open,'./'*500+'hidden/key',0) == 2",
    );
    let tally = bench.tallies.get(&bench.objects.lease.slot, 0).unwrap();
    assert!(tally.lost > 0, "the ring is larger than this test thinks");
    // The attempts on the hidden name all came too late, and each tried to be told.
    assert_eq!(tally.sent + tally.lost, 1505);
    assert!(bench.denials().is_empty());
    assert_eq!(bench.files.unjudged().unwrap(), tally.lost);
    // With room in the ring the next attempt tells of all of them.
    worker.run("assert no(os.open,'./'*500+'hidden/key',0) == 2");
    let denials = bench.denials();
    assert_eq!(denials.len(), 1);
    assert_eq!((denials[0].count, denials[0].hidden), (6, true));
    assert_eq!(bench.files.unjudged().unwrap(), tally.lost - 5);
}

#[test]
fn hidden_names_are_bounded() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    fs::create_dir(bench.path("hidden")).unwrap();
    fs::write(bench.path("hidden/key"), "").unwrap();
    let mut worker = bench.worker();
    worker.run("assert c.mount(b'tmpfs', b'hidden', b'tmpfs', 0, None) == 0");
    for start in [0, 550] {
        // In two parts: the events of all together would not fit into the ring.
        worker.run(&format!(
            "for i in range({start},{start}+550): assert no(os.open,'./'*i+'hidden/key',0) == 2"
        ));
        bench.denials();
    }
    assert_eq!(bench.denials().len() as u64, MAX_DENIED_PER_RUN);
    assert_eq!(
        bench.files.failures.others().unwrap(),
        1100 - MAX_DENIED_PER_RUN
    );
}

/// The way that lp-run itself takes: object, run, plan, ring.
#[test]
fn a_run_is_counted_by_its_plan() {
    let Some(bench) = Bench::new() else {
        return;
    };
    let cgroup = bench.cgroup.with_extension("run");
    fs::create_dir(&cgroup).unwrap();
    let kb = bench.path("kb");
    fs::create_dir(&kb).unwrap();
    fs::write(kb.join("page"), "x").unwrap();
    fs::create_dir(bench.path("hidden")).unwrap();
    fs::write(bench.path("hidden/key"), "x").unwrap();
    let mut plan = crate::record::samples::plan();
    plan.count_files = true;
    // The test's files lie below /tmp, which is the run's own place in a real view.
    plan.view.mounts.clear();
    let facts = crate::policy::facts::SystemFacts::default();
    let object = crate::policy::facts::Facts::open(&facts, &kb, &[0]).unwrap();
    plan.anchors = vec![Anchor {
        object: Some(object),
        path: kb.clone(),
        directory: true,
        rights: Rights {
            read: true,
            ..Rights::default()
        },
        owners: Owners {
            read: Some(0),
            ..Owners::default()
        },
    }];
    let rules = crate::watch::Rules::from(&plan);
    let objects = Objects::acquire(bench._base.path(), rules.counted.len()).unwrap();
    let mut files = objects.files().unwrap();
    let directory = crate::watch::open_cgroup(&cgroup).unwrap();
    let mut run = objects.start(rules, directory, 2).unwrap();
    files.start(&plan, &mut run).unwrap();
    run.set_state(crate::watch::State::Live).unwrap();
    let mut worker = bench.outsider();
    bench.take_in(&worker, &cgroup);
    worker.run(
        "assert c.mount(b'tmpfs', b'hidden', b'tmpfs', 0, None) == 0\n\
         for i in range(3): os.open('kb/page',0); no(os.open,'hidden/key',0)",
    );
    drop(worker);
    let (tree, clock) = (Tree::of(&plan), run.clock());
    let mut news = Vec::new();
    while run.drain(64, |event| news.push(event)) {}
    for event in news {
        if let crate::watch::Decoded::File(event) = event {
            let denial = files
                .failures
                .note(event, &tree, &HostAndView::of(0), &clock);
            assert_eq!(
                denial.map(|denial| (denial.count, denial.hidden)),
                Some((1, true))
            );
        }
    }
    assert_eq!(run.usage().unwrap()[0].allowed, Some(3));
    let denials = files.denials(&clock, false).unwrap();
    assert_eq!(denials.len(), 1);
    assert_eq!((denials[0].count, denials[0].hidden), (3, true));
    assert!(denials[0].target.ends_with(b"/hidden/key"));
    run.forget_files();
    assert_eq!(run.usage().unwrap()[0].allowed, None);
    drop((files, run));
    gone(&cgroup);
}

#[test]
fn refusals_are_added_to_the_rule_that_refused() {
    let at = |second: i64| jiff::Timestamp::from_second(second).unwrap();
    let denial = |row, count, second| Denial {
        op: Op::Open,
        target: b"/srv/secret".to_vec(),
        row,
        errno: "EACCES",
        count,
        pid: 1,
        comm: b"cat".to_vec(),
        first: at(second),
        last: at(second + 1),
        hidden: false,
        as_typed: true,
        reason: "",
    };
    let mut usages = [Usage::default(); 2];
    let denials = [
        denial(Some(1), 3, 10),
        denial(Some(1), 2, 5),
        denial(None, 9, 1),
        denial(Some(7), 1, 1),
    ];
    add_denied(&mut usages, &denials);
    assert_eq!(usages[0], Usage::default());
    assert_eq!((usages[1].denied, usages[1].allowed), (Some(5), None));
    assert_eq!(
        (usages[1].first, usages[1].last),
        (Some(at(5)), Some(at(11)))
    );
}
