// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask`: the repository's own commands. Each is safe to repeat, says what it installs
//! before it installs it, and ends with a message where it may not install what is missing.

mod bench;
mod demo;
mod fuzz;
mod machines;
mod package;
mod process;
mod setup;
mod suite;
mod tidy;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask COMMAND

  demo                        set up, build, and watch a confined agent at work
  test [--host] [--kernel K]  set up, then every test; kernels 6.1, 6.12 and 6.12-without-bpf
                              in virtual machines, or only --kernel K, or none with --host
  attacks                     only the attacks, and only on this kernel
  boot K TEST...              only the tests with such a name, only on kernel K
  fuzz [TARGET] [--seconds N]  feed one or all fuzz targets with what libFuzzer invents, for
                              5 minutes each or N seconds
  build [--release]           leave the program at target/debug or target/release/lp-run
  bench                       what a run costs, as a ratio to the bare command
  tidy                        format, lints, layers, unsafe, licences, docs
  setup                       install what is missing to build the kernel side";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = root();
    match words.as_slice() {
        ["demo"] => demo::run(&root),
        ["test", options @ ..] => suite::run(&root, &suite::Options::parse(options)?),
        ["attacks"] => suite::attacks(&root),
        ["boot", kernel, filters @ ..] if !filters.is_empty() => {
            setup::kernel_side(&root)?;
            machines::set_up(&root)?;
            machines::boot(&root, suite::machine(kernel)?, filters)
        }
        ["fuzz", options @ ..] => fuzz::run(&root, &fuzz::Options::parse(options)?),
        ["build"] => package::build(&root, false).map(drop),
        ["build", "--release"] => package::build(&root, true).map(drop),
        ["bench"] => bench::run(&root),
        ["tidy"] => tidy::run(&root),
        ["setup"] => setup::kernel_side(&root),
        // What the commands start themselves as, inside namespaces of their own.
        [demo::INSIDE, program] => demo::inside(&root, Path::new(program)),
        [bench::INSIDE, program] => bench::inside(Path::new(program)),
        [bench::FLOOR, folder, command @ ..] => bench::floor(folder, command),
        [bench::WORK, name, target, times] => bench::work(name, target, times),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("no such command: {}\n\n{USAGE}", words.join(" ")),
    }
}

/// The repository's root: this package lies directly below it.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}
