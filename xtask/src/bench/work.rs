// SPDX-License-Identifier: MIT OR Apache-2.0
//! The work that is measured, and its clock: started by each arm, it repeats one operation and
//! prints nanoseconds for one.

use std::fs::File;
use std::hint::black_box;
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Repeats `name` on `target` and prints what one took.
pub fn run(name: &str, target: &str, times: &str) -> Result<()> {
    let times: u32 = times.parse().context("read how often")?;
    let start = Instant::now();
    for _ in 0..times {
        match name {
            "open" => drop(black_box(File::open(target).context("open")?)),
            "stat" => drop(black_box(std::fs::metadata(target).context("stat")?)),
            "connect" => drop(black_box(TcpStream::connect(target).context("connect")?)),
            _ => bail!("no such operation: {name}"),
        }
    }
    println!(
        "{:.1}",
        start.elapsed().as_nanos() as f64 / f64::from(times.max(1))
    );
    Ok(())
}
