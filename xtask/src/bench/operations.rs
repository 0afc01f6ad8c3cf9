// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a program's own acts cost while it runs, and what other programs of the host pay.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::arms::{Arms, COUNTED, FEW_RULES, MANY_RULES, RULES, START, UNCOUNTED, measured, work};
use super::start::{end, settled, sleep, spawn};
use super::table::{Figure, Goal, Row, Sample};
use super::work::BLOCK;

/// Rounds of each row.
const ROUNDS: usize = 9;
/// Blocks of a stream, and its bytes.
const BLOCKS: u32 = 8192;
const STREAM: usize = BLOCKS as usize * BLOCK;
/// System calls by which the rest of the host is measured.
const CALLS: u32 = 2_000_000;

/// A row: an operation, how often a round, and the arm that it is held against.
struct Operation {
    what: &'static str,
    name: &'static str,
    policy: &'static str,
    times: u32,
    against: usize,
    /// The most that the ratio may be; `None` where it is for information.
    most: Option<f64>,
}

const BARE: usize = 0;
const FLOOR: usize = 1;

const fn operation(
    what: &'static str,
    name: &'static str,
    policy: &'static str,
    times: u32,
    (against, most): (usize, Option<f64>),
) -> Operation {
    Operation {
        what,
        name,
        policy,
        times,
        against,
        most,
    }
}

const OPERATIONS: [Operation; 10] = [
    operation(
        "open, no counts",
        "open",
        UNCOUNTED,
        50_000,
        (FLOOR, Some(1.15)),
    ),
    operation("open", "open", COUNTED, 50_000, (FLOOR, Some(1.35))),
    operation(
        "create and remove, no counts",
        "create",
        UNCOUNTED,
        30_000,
        (FLOOR, Some(1.15)),
    ),
    operation(
        "create and remove",
        "create",
        COUNTED,
        30_000,
        (FLOOR, Some(1.35)),
    ),
    operation(
        "stat, no counts",
        "stat",
        UNCOUNTED,
        100_000,
        (BARE, Some(1.05)),
    ),
    operation(
        "connect, no counts",
        "connect",
        UNCOUNTED,
        2_000,
        (BARE, Some(1.05)),
    ),
    operation(
        "UDP send, no counts",
        "udp",
        UNCOUNTED,
        50_000,
        (BARE, Some(1.05)),
    ),
    operation(
        "fork and exec, no counts",
        "exec",
        UNCOUNTED,
        100,
        (BARE, Some(1.05)),
    ),
    operation(
        "C compile, no counts",
        "compile",
        UNCOUNTED,
        1,
        (BARE, Some(1.05)),
    ),
    operation("C compile", "compile", COUNTED, 1, (BARE, None)),
];

/// All rows about acts.
pub(super) fn print(arms: &Arms) -> Result<()> {
    for operation in &OPERATIONS {
        act(arms, operation)?;
    }
    rules(arms)?;
    socket(arms)?;
    stdout(arms)?;
    host(arms)
}

fn act(arms: &Arms, operation: &Operation) -> Result<()> {
    let target = match operation.name {
        "connect" => arms.tcp(),
        "udp" => arms.udp()?,
        "exec" => "/bin/true".to_owned(),
        "compile" => arms.path("source.c"),
        "create" => arms.path("own/file"),
        _ => arms.path("file"),
    };
    let words = work(operation.name, &target, operation.times)?;
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let commands = arms.commands(operation.policy, &words)?;
        for (arm, mut command) in commands.into_iter().enumerate() {
            // Compilers write in /tmp, and the floor does not.
            if arm == FLOOR && operation.name == "compile" {
                continue;
            }
            times[arm].push(measured(&mut command)?);
        }
    }
    let samples = times.map(Sample::of);
    ratio(
        operation.what,
        samples,
        operation.against,
        operation.most.map_or(Goal::None, Goal::AtMost),
    );
    Ok(())
}

/// The ratio of lp-run to the arm that counts.
fn ratio(what: &str, samples: [Sample; 3], against: usize, goal: Goal) {
    let [lp_run, other] = [samples[2], samples[against]];
    let time = |sample: Sample| match sample.median {
        none if none.is_nan() => None,
        long if long >= 1e6 => Some(format!("{:.2} ms", long / 1e6)),
        short => Some(format!("{short:.0} ns")),
    };
    Row {
        what,
        arms: samples.map(time),
        figure: Figure::Ratio(lp_run.median / other.median),
        best: Some(lp_run.least / other.least),
        goal,
    }
    .print();
}

/// A connection under many rules against one under few.
fn rules(arms: &Arms) -> Result<()> {
    let words = work("connect", &arms.tcp(), 2_000)?;
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..2 * ROUNDS {
        for (times, policy) in times.iter_mut().zip([MANY_RULES, FEW_RULES]) {
            times.push(measured(&mut arms.confined(policy, &words))?);
        }
    }
    let [many, few] = times.map(Sample::of);
    let more = |many: f64, few: f64| (many / few - 1.0) * 100.0;
    Row {
        what: &format!("connect, {} rules to {}", RULES[0], RULES[1]),
        arms: [None, None, Some(format!("{:.0} ns", many.median))],
        figure: Figure::Percent(more(many.median, few.median)),
        best: Some(more(many.least, few.least)),
        goal: Goal::AtMost(1.0),
    }
    .print();
    Ok(())
}

/// A stream through a socket of the program's own.
fn socket(arms: &Arms) -> Result<()> {
    let words = work("socket", &arms.tcp(), BLOCKS)?;
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        let [mut bare, _, mut lp_run] = arms.commands(START, &words)?;
        times[0].push(measured(&mut bare)?);
        times[1].push(measured(&mut lp_run)?);
    }
    throughput("socket throughput", times.map(Sample::of));
    Ok(())
}

/// A stream through stdout: a pipe is handed to the program, a socket is relayed.
fn stdout(arms: &Arms) -> Result<()> {
    let words = work("stdout", "-", BLOCKS)?;
    for what in ["stdout throughput, pipe", "stdout throughput, relayed"] {
        let mut times = [const { Vec::new() }; 2];
        for _ in 0..ROUNDS {
            let [bare, _, lp_run] = arms.commands(START, &words)?;
            for (times, command) in times.iter_mut().zip([bare, lp_run]) {
                times.push(stream(command, what.ends_with("pipe"))?);
            }
        }
        throughput(what, times.map(Sample::of));
    }
    Ok(())
}

/// Nanoseconds for each block that the command writes. From the first byte on: what a start costs
/// is another row.
fn stream(mut command: Command, pipe: bool) -> Result<f64> {
    let (ours, theirs): (OwnedFd, OwnedFd) = match pipe {
        true => {
            let (read, write) = io::pipe().context("make a pipe")?;
            (read.into(), write.into())
        }
        false => {
            let (read, write) = UnixStream::pair().context("make a socket pair")?;
            (read.into(), write.into())
        }
    };
    let mut child = command.stdout(theirs).spawn().context("start a stream")?;
    // Its copy of the other end would keep the stream open.
    drop(command);
    let mut ours = File::from(ours);
    let mut buffer = vec![0; BLOCK];
    ours.read_exact(&mut buffer).context("read a block")?;
    let start = Instant::now();
    let mut rest = 0;
    loop {
        match ours.read(&mut buffer).context("read a stream")? {
            0 => break,
            count => rest += count,
        }
    }
    let time = start.elapsed().as_nanos() as f64 / f64::from(BLOCKS);
    if !child.wait().context("wait for a stream")?.success() || rest != STREAM - BLOCK {
        bail!("a stream lost bytes");
    }
    Ok(time)
}

/// Bytes a second, from nanoseconds for each block.
fn throughput(what: &str, [bare, lp_run]: [Sample; 2]) {
    let speed = |sample: Sample| format!("{:.2} GB/s", BLOCK as f64 / sample.median);
    Row {
        what,
        arms: [Some(speed(bare)), None, Some(speed(lp_run))],
        figure: Figure::Ratio(bare.median / lp_run.median),
        best: Some(bare.least / lp_run.least),
        goal: Goal::AtLeast(0.98),
    }
    .print();
}

/// What each system call of any other process pays while a run counts.
fn host(arms: &Arms) -> Result<()> {
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        times[0].push(call());
        let mut run = spawn(arms, 1, &sleep())?.remove(0);
        let ready = settled(&arms.program, 2);
        times[1].push(call());
        end(&mut run)?;
        ready?;
    }
    let [alone, beside] = times.map(Sample::of);
    Row {
        what: "other processes, each system call",
        arms: [
            Some(format!("{:.0} ns", alone.median)),
            None,
            Some(format!("{:.0} ns", beside.median)),
        ],
        figure: Figure::Plain(beside.median - alone.median, "ns"),
        best: Some(beside.least - alone.least),
        goal: Goal::None,
    }
    .print();
    Ok(())
}

/// Nanoseconds of a system call that does nothing.
fn call() -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(std::os::unix::process::parent_id());
    }
    start.elapsed().as_nanos() as f64 / f64::from(CALLS)
}
