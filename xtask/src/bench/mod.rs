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

/// Starts of each arm, first starts, and rounds of each operation.
const STARTS: usize = 60;
const COLD: usize = 9;
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

/// What `POLICY` has besides where files are not counted.
const UNCOUNTED: &str = "[audit]\ncount_files = \"off\"\n";

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
        .args(["--net", "--mount", "--"])
        .arg(own_file()?)
        .arg(INSIDE)
        .arg(program);
    process::run(&mut inside)
}

/// Inside the namespace: all arms, all rows.
pub fn inside(program: &Path) -> Result<()> {
    process::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    // With a `/run` of its own, the first start is one, whatever else runs on the machine.
    process::run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=0755", "none", "/run"]))?;
    let arms = Arms::new(program)?;
    println!(
        "\n{:<10}{:>12}{:>20}{:>20}   goal",
        "", "bare", "floor", "lp-run"
    );
    arms.print_cold()?;
    arms.print_start(
        "start",
        "counted.toml",
        "floor +0.9 ms, lp-run within +3 ms",
    )?;
    arms.print_start("uncounted", "uncounted.toml", "the same")?;
    for operation in &OPERATIONS {
        arms.print_operation(operation)?;
    }
    println!(
        "\n{COLD} first starts, {STARTS} starts, {ROUNDS} rounds of each operation, medians; ratios \
         to bare."
    );
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
        let uncounted = text.clone() + UNCOUNTED;
        for (name, text) in [("counted.toml", text), ("uncounted.toml", uncounted)] {
            fs::write(folder.path().join(name), text).context("write a policy")?;
        }
        fs::write(folder.path().join("file"), "x").context("write the file to open")?;
        Ok(Self {
            program: program.to_owned(),
            folder,
            port,
        })
    }

    fn commands(&self, policy: &str, work: &[String]) -> Result<[Command; 3]> {
        let mut bare = Command::new(&work[0]);
        bare.args(&work[1..]);
        let mut floor = Command::new(own_file()?);
        floor.arg(FLOOR).arg(self.folder.path()).args(work);
        let mut lp_run = Command::new(&self.program);
        lp_run.arg("--policy").arg(self.folder.path().join(policy));
        lp_run.args(["--summary", "never", "--"]).args(work);
        let mut commands = [bare, floor, lp_run];
        for command in &mut commands {
            command.current_dir(self.folder.path()).stdin(Stdio::null());
        }
        Ok(commands)
    }

    /// The first start after the shared object was removed.
    fn print_cold(&self) -> Result<()> {
        let mut times = [const { Vec::new() }; 2];
        for _ in 0..COLD {
            process::output(Command::new(&self.program).args(["gc", "--all"]))?;
            let [mut bare, _, mut lp_run] = self.commands("counted.toml", &truth())?;
            times[0].push(milliseconds(&mut bare)?);
            times[1].push(milliseconds(&mut lp_run)?);
        }
        let [bare, lp_run] = times.map(median);
        println!(
            "{:<10}{:>9.2} ms{:>23}{:>6.2} ms +{:>5.2} ms   within +100 ms",
            "first",
            bare,
            "",
            lp_run,
            lp_run - bare
        );
        Ok(())
    }

    fn print_start(&self, name: &str, policy: &str, goal: &str) -> Result<()> {
        let mut times = [const { Vec::new() }; 3];
        for round in 0..STARTS {
            let commands = self.commands(policy, &truth())?;
            for (arm, mut command) in commands.into_iter().enumerate() {
                let time = milliseconds(&mut command)?;
                // The first round fills caches and loads what stays loaded.
                if round > 0 {
                    times[arm].push(time);
                }
            }
        }
        let [bare, floor, lp_run] = times.map(median);
        println!(
            "{:<10}{:>9.2} ms{:>9.2} ms +{:>5.2} ms{:>9.2} ms +{:>5.2} ms   {goal}",
            name,
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
            for (arm, mut command) in self
                .commands("counted.toml", &words)?
                .into_iter()
                .enumerate()
            {
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

/// The program whose start is measured.
fn truth() -> [String; 1] {
    ["/bin/true".to_owned()]
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
