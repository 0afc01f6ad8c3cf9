// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a start costs: the first, a later one, a hundred at once, and the memory.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::arms::{Arms, COUNTED, START, UNCOUNTED};
use super::table::{Figure, Goal, Row, Sample};

/// Later starts of each arm, first starts, and hundreds.
const STARTS: usize = 60;
const COLD: usize = 9;
const CROWDS: usize = 5;
const CROWD: usize = 100;
/// How long a crowd may take until each program runs.
const PATIENCE: Duration = Duration::from_secs(20);

/// All rows about starts.
pub(super) fn print(arms: &Arms) -> Result<()> {
    first(arms)?;
    later(arms, "start", START)?;
    later(arms, "start, policy with a kit", COUNTED)?;
    later(arms, "start, kit, no counts", UNCOUNTED)?;
    crowd(arms)?;
    memory(arms)
}

/// The first start after the shared object was removed.
fn first(arms: &Arms) -> Result<()> {
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..COLD {
        arms.forget()?;
        let [mut bare, _, mut lp_run] = arms.commands(START, &truth())?;
        times[0].push(milliseconds(&mut bare)?);
        times[1].push(milliseconds(&mut lp_run)?);
    }
    let [bare, lp_run] = times.map(Sample::of);
    added("first start", [Some(bare), None, Some(lp_run)], 100.0);
    Ok(())
}

fn later(arms: &Arms, what: &str, policy: &str) -> Result<()> {
    let mut times = [const { Vec::new() }; 3];
    for round in 0..STARTS {
        let commands = arms.commands(policy, &truth())?;
        for (arm, mut command) in commands.into_iter().enumerate() {
            let time = milliseconds(&mut command)?;
            // The first round fills caches and loads what stays loaded.
            if round > 0 {
                times[arm].push(time);
            }
        }
    }
    added(what, times.map(|times| Some(Sample::of(times))), 3.0);
    Ok(())
}

fn added(what: &str, arms: [Option<Sample>; 3], most: f64) {
    let [bare, _, lp_run] = arms.map(|arm| arm.unwrap_or(Sample::of(Vec::new())));
    Row {
        what,
        arms: arms.map(|arm| arm.map(|arm| format!("{:.2} ms", arm.median))),
        figure: Figure::Added(lp_run.median - bare.median),
        best: Some(lp_run.least - bare.least),
        goal: Goal::AtMost(most),
    }
    .print();
}

/// A hundred runs at once: until all are over, and what they hold while all live.
fn crowd(arms: &Arms) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..CROWDS {
        let start = Instant::now();
        let runs = spawn(arms, CROWD, &truth())?;
        for mut run in runs {
            if !run.wait().context("wait for a run")?.success() {
                bail!("one of a hundred runs failed");
            }
        }
        times.push(start.elapsed().as_secs_f64());
    }
    let times = Sample::of(times);
    Row {
        what: "100 starts at once",
        arms: [None, None, None],
        figure: Figure::Plain(times.median, "s"),
        best: Some(times.least),
        goal: Goal::AtMost(0.6),
    }
    .print();
    let mut runs = spawn(arms, CROWD, &sleep())?;
    let held = settled(&arms.program, 2 * CROWD);
    for run in &mut runs {
        end(run)?;
    }
    Row {
        what: "100 runs at once, memory",
        arms: [None, None, None],
        figure: Figure::Plain(held? as f64 / 1024.0, "MiB"),
        best: None,
        goal: Goal::AtMost(120.0),
    }
    .print();
    Ok(())
}

/// The most that lp-run itself held in a later run.
fn memory(arms: &Arms) -> Result<()> {
    let mut run = spawn(arms, 1, &sleep())?.remove(0);
    let held = settled(&arms.program, 2);
    let status = fs::read_to_string(format!("/proc/{}/status", run.id()));
    end(&mut run)?;
    held?;
    let peak = kilobytes(&status.context("read what lp-run held")?, "VmHWM:");
    Row {
        what: "lp-run's peak memory",
        arms: [None, None, None],
        figure: Figure::Plain(peak as f64 / 1024.0, "MiB"),
        best: None,
        goal: Goal::AtMost(8.0),
    }
    .print();
    Ok(())
}

/// Starts as many runs of `work`.
pub(super) fn spawn(arms: &Arms, runs: usize, work: &[String]) -> Result<Vec<Child>> {
    (0..runs)
        .map(|_| {
            let mut run = arms.confined(START, work);
            run.spawn().context("start a run")
        })
        .collect()
}

/// Ends a run by the signal that an operator would send.
pub(super) fn end(run: &mut Child) -> Result<()> {
    // The child is not waited for yet, so that the id is its own.
    let mut kill = Command::new("kill");
    kill.args(["-TERM", &run.id().to_string()]);
    kill.status().context("start kill(1)")?;
    run.wait().context("wait for a run").map(drop)
}

/// Waits until `count` processes of the program are left, which is lp-run and the first process
/// of each run: then each agent is the program that it was to become. Gives the kilobytes of
/// memory that they hold, shared memory by its share.
pub(super) fn settled(program: &Path, count: usize) -> Result<u64> {
    let patience = Instant::now() + PATIENCE;
    let mut calm = 0;
    loop {
        let processes = processes_of(program);
        // Before the agents are there the count is met for a moment, too.
        calm = if processes.len() == count {
            calm + 1
        } else {
            0
        };
        if calm == 5 {
            let held = processes
                .iter()
                .filter_map(|process| fs::read_to_string(process.join("smaps_rollup")).ok());
            return Ok(held.map(|text| kilobytes(&text, "Pss:")).sum());
        }
        if Instant::now() > patience {
            bail!("{} processes of lp-run, not {count}", processes.len());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn processes_of(program: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|process| fs::read_link(process.join("exe")).is_ok_and(|exe| exe == program))
        .collect()
}

/// The number after `name` in a file of `/proc`.
fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// The program whose start is measured.
fn truth() -> [String; 1] {
    ["/bin/true".to_owned()]
}

/// A program that stays.
pub(super) fn sleep() -> [String; 2] {
    ["/bin/sleep", "60"].map(str::to_owned)
}

/// Runs the command and gives how long it took.
fn milliseconds(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    let status = command.status().context("start /bin/true")?;
    if !status.success() {
        bail!("an arm did not run /bin/true ({status})");
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
