// SPDX-License-Identifier: MIT OR Apache-2.0
//! The work that is measured, and its clock: started by each arm, it repeats one operation and
//! prints nanoseconds for one.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

/// What is written at once to a pipe or a socket.
pub(super) const BLOCK: usize = 64 << 10;

/// Repeats `name` on `target` and prints what one took.
pub fn run(name: &str, target: &str, times: &str) -> Result<()> {
    let times: u32 = times.parse().context("read how often")?;
    if name == "stdout" {
        return (0..times).try_for_each(|_| {
            io::stdout()
                .write_all(&[0; BLOCK])
                .context("write to stdout")
        });
    }
    let start = Instant::now();
    match name {
        "open" => repeat(times, || File::open(target).map(drop)),
        "create" => repeat(times, || {
            File::create_new(target).and_then(|_| fs::remove_file(target))
        }),
        "stat" => repeat(times, || fs::metadata(target).map(drop)),
        "connect" => repeat(times, || TcpStream::connect(target).map(drop)),
        "udp" => send(target, times),
        "exec" => repeat(times, || succeed(&mut Command::new(target))),
        "compile" => compile(target, times),
        "socket" => stream(target, times),
        _ => bail!("no such operation: {name}"),
    }
    .with_context(|| format!("{name} {target}"))?;
    println!(
        "{:.1}",
        start.elapsed().as_nanos() as f64 / f64::from(times.max(1))
    );
    Ok(())
}

fn repeat(times: u32, mut act: impl FnMut() -> io::Result<()>) -> Result<()> {
    for _ in 0..times {
        black_box(act()?);
    }
    Ok(())
}

fn succeed(command: &mut Command) -> io::Result<()> {
    let status = command.status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("it failed ({status})"))),
    }
}

fn send(target: &str, times: u32) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    repeat(times, || socket.send_to(b"x", target).map(drop))
}

/// Compiles `source`, which stands beside a folder to write in.
fn compile(source: &str, times: u32) -> Result<()> {
    let object = source.replace("source.c", "own/object.o");
    ensure!(object != source, "the source is called {source}");
    repeat(times, || {
        succeed(Command::new("/usr/bin/cc").args(["-O2", "-c", "-o", &object, source]))
    })
}

/// Sends `times` blocks and waits until the other side has read all.
fn stream(target: &str, times: u32) -> Result<()> {
    let mut socket = TcpStream::connect(target)?;
    repeat(times, || socket.write_all(&[0; BLOCK]))?;
    socket.shutdown(Shutdown::Write)?;
    // The service closes when it has read to the end.
    socket.read(&mut [0]).map(drop)?;
    Ok(())
}
