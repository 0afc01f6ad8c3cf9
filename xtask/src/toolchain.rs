// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which compiler builds the kernel side on this machine, and what is missing for it.
//!
//! Two ways work: a rustup nightly with `rust-src` (core is built on the spot), or a compiler of
//! the distribution that carries a prebuilt core for `bpfel-unknown-none` (Debian's `rustc-web`
//! with `libstd-rust-web-dev-bpf`). Both need `bpf-linker`. What the machine has is described by
//! a value, [`Environment`]; the decisions are pure functions of it. Nothing is installed here.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target of the kernel side. x86_64 and aarch64 are both little-endian.
pub const TARGET: &str = "bpfel-unknown-none";

/// The release of bpf-linker that setup builds from source.
pub const BPF_LINKER_VERSION: &str = "0.13.0";

/// LLVM majors that this bpf-linker release can be built with.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// The oldest Rust 1.N that `runner-common`, which both sides share, is built with.
const OLDEST_RUST: u32 = 95;

/// LLVM major of Debian's `rustc-web`.
const DEBIAN_LLVM: u32 = 22;

/// What a machine has, as far as the build of the kernel side asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Packages can be installed: the effective user is root.
    pub root: bool,
    /// `apt-get` exists and its lists know `rustc-web`, or could be made to.
    pub debian: bool,
    /// rustup's nightly, when there is one.
    pub nightly: Option<Nightly>,
    /// A compiler outside rustup with a prebuilt core for [`TARGET`].
    pub distribution: Option<PathBuf>,
    /// Where `bpf-linker` is.
    pub bpf_linker: Option<PathBuf>,
    /// Majors of LLVM whose development files are installed.
    pub llvm: Vec<u32>,
}

/// A nightly toolchain of rustup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nightly {
    /// Its name for `rustup run`.
    pub name: String,
    /// The standard library's sources are there, so that core can be built.
    pub sources: bool,
    /// The N of its Rust 1.N; an old one stays behind the distribution's.
    pub rust: u32,
    /// The major version of its LLVM; bpf-linker's must not be older.
    pub llvm: u32,
}

/// A compiler that can build the kernel side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// `rustup run NAME cargo build -Z build-std=core`.
    Nightly(String),
    /// `RUSTC=PATH cargo build`, with the prebuilt core.
    Distribution(PathBuf),
}

/// Compiler and linker: all that a build of the kernel side needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Who compiles.
    pub compiler: Compiler,
    /// Absolute path of `bpf-linker`.
    pub linker: PathBuf,
}

/// One thing that set-up does to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `apt-get install --no-install-recommends` of these packages.
    Packages(Vec<String>),
    /// `cargo install bpf-linker` against this LLVM major.
    Linker(u32),
}

/// Why set-up cannot go on alone; the text says what to install by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByHand(pub String);

/// The toolchain that this environment offers, if it is complete.
pub fn choose(environment: &Environment) -> Option<Toolchain> {
    Some(Toolchain {
        compiler: compiler(environment)?,
        linker: environment.bpf_linker.clone()?,
    })
}

/// What is to be installed so that [`choose`] finds a toolchain: nothing, some steps, or a
/// message for the user where this machine's packages are not ours to install.
pub fn missing(environment: &Environment) -> Result<Vec<Step>, ByHand> {
    if choose(environment).is_some() {
        return Ok(Vec::new());
    }
    if !environment.debian {
        return Err(by_hand("this machine has no apt-get"));
    }
    let mut packages = Vec::new();
    let oldest = match compiler(environment) {
        Some(Compiler::Nightly(_)) => environment.nightly.as_ref().map_or(DEBIAN_LLVM, |n| n.llvm),
        Some(Compiler::Distribution(_)) => DEBIAN_LLVM,
        None => {
            packages.push("rustc-web".to_owned());
            packages.push("libstd-rust-web-dev-bpf".to_owned());
            DEBIAN_LLVM
        }
    };
    let mut linker = None;
    if environment.bpf_linker.is_none() {
        let Some(llvm) = linker_llvm(environment, oldest) else {
            return Err(by_hand(&format!(
                "bpf-linker {BPF_LINKER_VERSION} knows no LLVM {oldest}"
            )));
        };
        if !environment.llvm.contains(&llvm) {
            packages.push(format!("llvm-{llvm}-dev"));
        }
        linker = Some(Step::Linker(llvm));
    }
    if !packages.is_empty() && !environment.root {
        let wanted = packages.join(" ");
        return Err(by_hand(&format!(
            "installing {wanted} with apt-get needs root"
        )));
    }
    let mut steps = Vec::new();
    if !packages.is_empty() {
        steps.push(Step::Packages(packages));
    }
    steps.extend(linker);
    Ok(steps)
}

/// The LLVM to build the linker with: any that is not older than the compiler's reads what it
/// wrote, so one that is installed goes before one that would have to be.
fn linker_llvm(environment: &Environment, oldest: u32) -> Option<u32> {
    let mut fit = LINKER_LLVM.filter(|major| *major >= oldest);
    let installed = fit.clone().find(|major| environment.llvm.contains(major));
    installed.or_else(|| fit.next())
}

/// Looks at this machine. `cargo_home` is where `cargo install` puts programs.
pub fn detect() -> Environment {
    Environment {
        root: effective_user_is_root(),
        debian: find_program("apt-get").is_some(),
        nightly: nightly(),
        distribution: distribution_compiler(Path::new("/usr")),
        bpf_linker: find_installed("bpf-linker"),
        llvm: LINKER_LLVM
            .filter(|major| llvm_prefix(*major).join("include/llvm-c").is_dir())
            .collect(),
    }
}

/// Where Debian's packages put LLVM.
pub fn llvm_prefix(major: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{major}"))
}

/// The first file called `name` on PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn compiler(environment: &Environment) -> Option<Compiler> {
    match (&environment.nightly, &environment.distribution) {
        (Some(nightly), _) if nightly.sources && nightly.rust >= OLDEST_RUST => {
            Some(Compiler::Nightly(nightly.name.clone()))
        }
        (_, Some(rustc)) => Some(Compiler::Distribution(rustc.clone())),
        _ => None,
    }
}

fn by_hand(reason: &str) -> ByHand {
    ByHand(format!(
        "the kernel side cannot be set up here by itself: {reason}.\n\
         Install by hand one of:\n  \
         rustup toolchain install nightly --component rust-src   (of Rust 1.{OLDEST_RUST} or \
         later)\n  \
         apt-get install rustc-web libstd-rust-web-dev-bpf llvm-{DEBIAN_LLVM}-dev   (Debian)\n\
         and, for either, bpf-linker {BPF_LINKER_VERSION}, whose LLVM is no older than the \
         compiler's:\n  \
         cargo binstall bpf-linker@{BPF_LINKER_VERSION}   (a binary of \
         https://github.com/aya-rs/bpf-linker)\n  \
         LLVM_PREFIX=/usr/lib/llvm-{DEBIAN_LLVM} cargo install bpf-linker --version \
         {BPF_LINKER_VERSION} --locked --no-default-features --features llvm-{DEBIAN_LLVM}"
    ))
}

fn effective_user_is_root() -> bool {
    output("id", &["-u"]).is_some_and(|uid| uid.trim() == "0")
}

/// The first file called `name` on PATH, or where `cargo install` puts programs.
pub fn find_installed(name: &str) -> Option<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    find_program(name).or_else(|| {
        cargo_home
            .map(|home| home.join("bin").join(name))
            .filter(|file| file.is_file())
    })
}

/// `prefix/bin/rustc`, if its library folder holds a core for the target. Read from the file
/// system, so that a build pays no process start for it.
fn distribution_compiler(prefix: &Path) -> Option<PathBuf> {
    let rustc = prefix.join("bin/rustc");
    let libraries = prefix.join("lib/rustlib").join(TARGET).join("lib");
    let has_core = libraries
        .read_dir()
        .ok()?
        .filter_map(Result::ok)
        .any(|entry| {
            entry.file_name().to_string_lossy().starts_with("libcore-")
                && entry.path().extension() == Some(OsStr::new("rlib"))
        });
    (has_core && rustc.is_file()).then_some(rustc)
}

fn nightly() -> Option<Nightly> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")))?;
    let name = home
        .join("toolchains")
        .read_dir()
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| is_plain_nightly(name))?;
    let folder = home.join("toolchains").join(&name);
    let sources = folder
        .join("lib/rustlib/src/rust/library/core/src/lib.rs")
        .is_file();
    // The version is asked for only where it matters: a nightly that can be used at all.
    let version = if sources {
        output(folder.join("bin/rustc"), &["-vV"])
    } else {
        None
    };
    let version = version.unwrap_or_default();
    Some(Nightly {
        name,
        sources,
        rust: rust_minor(&version).unwrap_or(0),
        llvm: llvm_major(&version).unwrap_or(DEBIAN_LLVM),
    })
}

/// `nightly-x86_64-unknown-linux-gnu`, but not `nightly-2024-01-01-x86_64-…`: a dated nightly
/// was pinned for something else and may be too old.
fn is_plain_nightly(name: &str) -> bool {
    name.strip_prefix("nightly-")
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The N in the line `release: 1.N.0-nightly` of `rustc -vV`.
fn rust_minor(text: &str) -> Option<u32> {
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("release: 1."))?;
    version.split('.').next()?.parse().ok()
}

/// The major number in the line `LLVM version: 22.1.4` of `rustc -vV`.
fn llvm_major(text: &str) -> Option<u32> {
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.trim().parse().ok()
}

fn output(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nightly_with(sources: bool, llvm: u32) -> Option<Nightly> {
        Some(Nightly {
            name: "nightly-x86_64-unknown-linux-gnu".to_owned(),
            sources,
            rust: 97,
            llvm,
        })
    }

    fn linker() -> Option<PathBuf> {
        Some(PathBuf::from("/home/u/.cargo/bin/bpf-linker"))
    }

    fn debian_root() -> Environment {
        Environment {
            root: true,
            debian: true,
            ..Environment::default()
        }
    }

    #[test]
    fn a_nightly_with_sources_comes_first() {
        let environment = Environment {
            nightly: nightly_with(true, 22),
            distribution: Some("/usr/bin/rustc".into()),
            bpf_linker: linker(),
            ..Environment::default()
        };
        let chosen = choose(&environment).expect("complete");
        assert_eq!(
            chosen.compiler,
            Compiler::Nightly("nightly-x86_64-unknown-linux-gnu".into())
        );
        assert_eq!(missing(&environment), Ok(vec![]));
    }

    #[test]
    fn a_nightly_without_sources_gives_way_to_the_distribution() {
        let environment = Environment {
            nightly: nightly_with(false, 22),
            distribution: Some("/usr/bin/rustc".into()),
            bpf_linker: linker(),
            ..Environment::default()
        };
        let chosen = choose(&environment).expect("complete");
        assert_eq!(
            chosen.compiler,
            Compiler::Distribution("/usr/bin/rustc".into())
        );
    }

    #[test]
    fn an_old_nightly_gives_way_too() {
        let mut environment = Environment {
            nightly: nightly_with(true, 21),
            distribution: Some("/usr/bin/rustc".into()),
            bpf_linker: linker(),
            ..Environment::default()
        };
        if let Some(nightly) = &mut environment.nightly {
            nightly.rust = OLDEST_RUST - 1;
        }
        let chosen = choose(&environment).expect("complete");
        assert_eq!(
            chosen.compiler,
            Compiler::Distribution("/usr/bin/rustc".into())
        );
        environment.distribution = None;
        let ByHand(text) = missing(&environment).expect_err("nothing builds it");
        assert!(text.contains("1.95 or later"), "{text}");
    }

    #[test]
    fn a_bare_debian_gets_compiler_llvm_and_linker() {
        let environment = Environment {
            nightly: nightly_with(false, 22),
            ..debian_root()
        };
        assert_eq!(choose(&environment), None);
        let packages = ["rustc-web", "libstd-rust-web-dev-bpf", "llvm-22-dev"];
        assert_eq!(
            missing(&environment),
            Ok(vec![
                Step::Packages(packages.map(str::to_owned).to_vec()),
                Step::Linker(22)
            ])
        );
    }

    #[test]
    fn a_linker_that_is_there_needs_no_llvm() {
        let environment = Environment {
            bpf_linker: linker(),
            ..debian_root()
        };
        let packages = ["rustc-web", "libstd-rust-web-dev-bpf"];
        assert_eq!(
            missing(&environment),
            Ok(vec![Step::Packages(packages.map(str::to_owned).to_vec())])
        );
    }

    #[test]
    fn the_linker_is_built_with_the_llvm_of_the_nightly() {
        let environment = Environment {
            nightly: nightly_with(true, 23),
            ..debian_root()
        };
        assert_eq!(
            missing(&environment),
            Ok(vec![
                Step::Packages(vec!["llvm-23-dev".to_owned()]),
                Step::Linker(23)
            ])
        );
        let unknown = Environment {
            nightly: nightly_with(true, 40),
            ..debian_root()
        };
        assert!(
            missing(&unknown)
                .expect_err("no such linker")
                .0
                .contains("LLVM 40")
        );
    }

    #[test]
    fn a_newer_llvm_that_is_installed_does_and_an_older_one_does_not() {
        let newer = Environment {
            nightly: nightly_with(true, 20),
            llvm: vec![22],
            ..debian_root()
        };
        assert_eq!(missing(&newer), Ok(vec![Step::Linker(22)]));
        let older = Environment {
            nightly: nightly_with(true, 23),
            llvm: vec![21, 22],
            ..debian_root()
        };
        assert_eq!(
            missing(&older),
            Ok(vec![
                Step::Packages(vec!["llvm-23-dev".to_owned()]),
                Step::Linker(23)
            ])
        );
    }

    #[test]
    fn without_root_packages_are_named_and_not_installed() {
        let environment = Environment {
            debian: true,
            ..Environment::default()
        };
        let ByHand(text) = missing(&environment).expect_err("needs root");
        assert!(
            text.contains("needs root") && text.contains("rustc-web"),
            "{text}"
        );
    }

    #[test]
    fn without_root_the_linker_alone_is_still_installed() {
        let environment = Environment {
            debian: true,
            distribution: Some("/usr/bin/rustc".into()),
            llvm: vec![22],
            ..Environment::default()
        };
        assert_eq!(missing(&environment), Ok(vec![Step::Linker(22)]));
    }

    #[test]
    fn another_distribution_gets_one_message() {
        let environment = Environment {
            root: true,
            ..Environment::default()
        };
        let ByHand(text) = missing(&environment).expect_err("not Debian");
        assert!(
            text.contains("rust-src") && text.contains("bpf-linker"),
            "{text}"
        );
    }

    #[test]
    fn a_dated_nightly_is_not_taken() {
        assert!(is_plain_nightly("nightly-x86_64-unknown-linux-gnu"));
        assert!(!is_plain_nightly(
            "nightly-2024-01-01-x86_64-unknown-linux-gnu"
        ));
        assert!(!is_plain_nightly("stable-x86_64-unknown-linux-gnu"));
    }

    #[test]
    fn the_versions_are_read_from_the_version_text() {
        assert_eq!(rust_minor("host: x\nrelease: 1.97.0-nightly\n"), Some(97));
        assert_eq!(rust_minor("rustc 1.97.0\n"), None);
        assert_eq!(
            llvm_major("host: x\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n"),
            Some(22)
        );
        assert_eq!(llvm_major("release: 1.97.0\n"), None);
        assert_eq!(llvm_major("LLVM version: x\n"), None);
    }
}
