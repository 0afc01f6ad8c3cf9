// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: what a confined run costs, as a ratio to the bare command in the same
//! run. Three arms, in turn within each round, so that a busy machine disturbs all alike:
//! *bare*; *floor*, the least that confines a program (Landlock with 20 rules and a short seccomp
//! filter, then exec); *lp-run*. Medians are printed. It measures; it decides nothing.

mod floor;
mod work;

use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use xtask::toolchain;

use crate::{package, process, setup};

/// The words by which this program calls itself.
pub const INSIDE: &str = "bench-inside";
pub const FLOOR: &str = "bench-floor";
pub const WORK: &str = "bench-work";

pub use floor::run as floor;
pub use work::run as work;

/// Starts of each arm, and rounds of each operation.
const STARTS: usize = 60;
const ROUNDS: usize = 9;

const POLICY: &str = r#"
version = 1
name = "bench"
[files]
read = ["${BASE}", "@FOLDER@"]
exec = ["${COMMAND}"]
[network]
allow = ["127.0.0.1:@PORT@"]
"#;

/// A row of the table: what is measured, how often a round, and the goal in words.
struct Operation {
    name: &'static str,
    times: u32,
    goal: &'static str,
}

const OPERATIONS: [Operation; 3] = [
    Operation {
        name: "open",
        times: 100_000,
        goal: "floor 1.4x",
    },
    Operation {
        name: "stat",
        times: 200_000,
        goal: "bare 1.0x",
    },
    Operation {
        name: "connect",
        times: 4_000,
        goal: "bare 1.1x",
    },
];

/// Builds the release program and measures it in a network namespace of its own.
pub fn run(root: &Path) -> Result<()> {
    if !toolchain::detect().root {
        bail!("the benchmark confines real programs, which needs root: run it with sudo");
    }
    setup::tests()?;
    let program = package::build(root, true)?;
    let mut inside = Command::new("unshare");
    inside
        .args(["--net", "--"])
        .arg(own_file()?)
        .arg(INSIDE)
        .arg(program);
    process::run(&mut inside)
}

/// Inside the namespace: all arms, all rows.
pub fn inside(program: &Path) -> Result<()> {
    process::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let arms = Arms::new(program)?;
    println!(
        "\n{:<10}{:>12}{:>20}{:>20}   goal",
        "", "bare", "floor", "lp-run"
    );
    arms.print_start()?;
    for operation in &OPERATIONS {
        arms.print_operation(operation)?;
    }
    println!("\n{STARTS} starts, {ROUNDS} rounds of each operation, medians; ratios to bare.");
    Ok(())
}

/// The three ways to start a command, and a folder with what they need.
struct Arms {
    program: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
}

impl Arms {
    fn new(program: &Path) -> Result<Self> {
        let folder = tempfile::TempDir::with_prefix("lp-run-bench-").context("make a folder")?;
        let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
        let port = listener.local_addr().context("read the port")?.port();
        thread::spawn(move || listener.incoming().for_each(drop));
        let text = POLICY
            .replace("@FOLDER@", &folder.path().to_string_lossy())
            .replace("@PORT@", &port.to_string());
        fs::write(folder.path().join("policy.toml"), text).context("write the policy")?;
        fs::write(folder.path().join("file"), "x").context("write the file to open")?;
        Ok(Self {
            program: program.to_owned(),
            folder,
            port,
        })
    }

    fn commands(&self, work: &[String]) -> Result<[Command; 3]> {
        let mut bare = Command::new(&work[0]);
        bare.args(&work[1..]);
        let mut floor = Command::new(own_file()?);
        floor.arg(FLOOR).arg(self.folder.path()).args(work);
        let mut lp_run = Command::new(&self.program);
        lp_run
            .arg("--policy")
            .arg(self.folder.path().join("policy.toml"));
        lp_run.args(["--summary", "never", "--"]).args(work);
        let mut commands = [bare, floor, lp_run];
        for command in &mut commands {
            command.current_dir(self.folder.path()).stdin(Stdio::null());
        }
        Ok(commands)
    }

    fn print_start(&self) -> Result<()> {
        let mut times = [const { Vec::new() }; 3];
        for round in 0..STARTS {
            for (arm, mut command) in self
                .commands(&["/bin/true".to_owned()])?
                .into_iter()
                .enumerate()
            {
                let start = Instant::now();
                let status = command.status().context("start /bin/true")?;
                if !status.success() {
                    bail!("an arm did not run /bin/true ({status})");
                }
                // The first round fills caches and loads what stays loaded.
                if round > 0 {
                    times[arm].push(start.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
        let [bare, floor, lp_run] = times.map(median);
        println!(
            "{:<10}{:>9.2} ms{:>9.2} ms +{:>5.2} ms{:>9.2} ms +{:>5.2} ms   floor +0.9 ms, lp-run within +3 ms (next)",
            "start",
            bare,
            floor,
            floor - bare,
            lp_run,
            lp_run - bare
        );
        Ok(())
    }

    fn print_operation(&self, operation: &Operation) -> Result<()> {
        let target = match operation.name {
            "connect" => format!("127.0.0.1:{}", self.port),
            _ => self
                .folder
                .path()
                .join("file")
                .to_string_lossy()
                .into_owned(),
        };
        let own = own_file()?.to_string_lossy().into_owned();
        let words = [
            own,
            WORK.into(),
            operation.name.into(),
            target,
            operation.times.to_string(),
        ];
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            for (arm, mut command) in self.commands(&words)?.into_iter().enumerate() {
                let text = process::output(&mut command)?;
                times[arm].push(text.trim().parse::<f64>().context("read a measurement")?);
            }
        }
        let [bare, floor, lp_run] = times.map(median);
        println!(
            "{:<10}{:>9.0} ns{:>9.0} ns {:>6.2}x{:>9.0} ns {:>6.2}x   {}",
            operation.name,
            bare,
            floor,
            floor / bare,
            lp_run,
            lp_run / bare,
            operation.goal
        );
        Ok(())
    }
}

fn own_file() -> Result<PathBuf> {
    env::current_exe().context("find this program's own file")
}

/// The middle value; of none, not a number.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_ignores_an_outlier() {
        assert_eq!(median(vec![3.0, 1.0, 900.0]), 3.0);
        assert!(median(vec![]).is_nan());
    }
}
