// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file programs on the running kernel: real processes in a cgroup of the test's own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use aya::maps::{Array, PerCpuArray, RingBuf};
use aya::{Ebpf, EbpfLoader};
use lp_run_common::counters::CounterRow;
use lp_run_common::run::{FLAG_COUNT_FILES, NO_ROW, RunRow, STATE_LIVE, STATE_SETUP};

use super::*;
use crate::plan::{Anchor, Rights};
use crate::record::event::{Denial, Op};

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lp-run.bpf.o"));

const SLOT: u32 = 0;
const GENERATION: u32 = 1;
const READ: u32 = 0;
const WRITE: u32 = 1;
const EXEC: u32 = 2;
const ROWS: u32 = 16;

/// One at a time: the tracepoints are the machine's, and figures of speed would be each other's.
static TURN: Mutex<()> = Mutex::new(());

/// A run of the test's own: the programs, a cgroup, a directory.
struct Bench {
    files: Files,
    ebpf: Ebpf,
    events: RingBuf<aya::maps::MapData>,
    runs: Array<aya::maps::MapData, RunRow>,
    counters: PerCpuArray<aya::maps::MapData, CounterRow>,
    cgroup: PathBuf,
    directory: tempfile::TempDir,
    held: Vec<OwnedFd>,
    anchors: Vec<Anchor>,
    _turn: MutexGuard<'static, ()>,
}

impl Bench {
    /// `None`, said aloud, where the machine cannot: no root, no cgroup v2, no BTF.
    fn new() -> Option<Self> {
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
        let globals = Globals::of_running_kernel().unwrap();
        let mut ebpf = EbpfLoader::new()
            .override_global("FILE_LAYOUT", &globals.layout, true)
            .override_global("FILE_HASH_KEY", &globals.hash_key, true)
            .load(OBJECT)
            .unwrap();
        let files = Files::take(&mut ebpf).unwrap_or_else(|error| panic!("{error:?}"));
        let events = RingBuf::try_from(ebpf.take_map("EVENTS").unwrap()).unwrap();
        let runs = Array::try_from(ebpf.take_map("RUNS").unwrap()).unwrap();
        let counters = PerCpuArray::try_from(ebpf.take_map("COUNTERS").unwrap()).unwrap();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = unified.join(format!("lp-run-files-{}-{number}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        let mut bench = Self {
            files,
            ebpf,
            events,
            runs,
            counters,
            cgroup,
            directory: tempfile::tempdir().unwrap(),
            held: Vec::new(),
            anchors: Vec::new(),
            _turn: turn,
        };
        bench.state(STATE_LIVE);
        let cgroup = File::open(&bench.cgroup).unwrap();
        bench.files.enter(cgroup.as_fd(), SLOT).unwrap();
        bench.files.attach().unwrap();
        Some(bench)
    }

    fn state(&mut self, state: u32) {
        let row = RunRow {
            state,
            generation: GENERATION,
            flags: FLAG_COUNT_FILES,
            first_row: 0,
            rows: ROWS,
            self_row: NO_ROW,
            ..RunRow::default()
        };
        self.runs.set(SLOT, row, 0).unwrap();
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
        self.files
            .anchor(GENERATION, object.as_fd(), owners)
            .unwrap();
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
        let tree = Tree::for_tests(&self.anchors);
        while let Some(event) = self.events.next() {
            assert!(self.files.failures.note(&event, &tree, exists_on_host));
        }
        let clock = |_| jiff::Timestamp::UNIX_EPOCH;
        self.files.failures.denials(SLOT, clock).unwrap()
    }

    /// A Python interpreter in the run's cgroup, or outside of it.
    fn worker(&self, inside: bool) -> Worker {
        let script = "import os,sys,ctypes,time\nc=ctypes.CDLL(None,use_errno=True)\n\
            print('ready',flush=True)\n\
            for l in sys.stdin:\n exec(l.replace(chr(1),chr(10)),globals()); print('done',flush=True)";
        let mut child = Command::new("python3")
            .args(["-S", "-E", "-c", script])
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
        if inside {
            fs::write(
                self.cgroup.join("cgroup.procs"),
                worker.child.id().to_string(),
            )
            .unwrap();
        }
        worker
    }

    /// Runs lines of Python inside.
    fn inside(&self, code: &str) {
        self.worker(true).run(code);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The last process may still be on its way out.
        for _ in 0..100 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
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

/// Where cgroup v2 is mounted.
fn unified() -> Option<PathBuf> {
    let mut text = String::new();
    File::open("/proc/self/mountinfo")
        .ok()?
        .read_to_string(&mut text)
        .ok()?;
    let line = text.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

#[test]
fn ten_thousand_opens_of_four_processes_are_ten_thousand() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let kb = bench.path("kb");
    fs::create_dir_all(kb.join("deep/er")).unwrap();
    fs::write(kb.join("deep/er/page"), "x").unwrap();
    bench.grant(&kb, "r", 0);
    let mut workers: Vec<Worker> = (0..4).map(|_| bench.worker(true)).collect();
    for worker in &mut workers {
        let code = "for i in range(2500): os.close(os.open('kb/deep/er/page',0))";
        writeln!(worker.input, "{code}").unwrap();
    }
    workers.iter_mut().for_each(|worker| worker.expect("done"));
    assert_eq!(bench.allowed(READ), 10_000);
    let totals = bench.files.totals(SLOT).unwrap();
    assert_eq!((totals.opens, totals.unfinished), (10_000, 0));
}
