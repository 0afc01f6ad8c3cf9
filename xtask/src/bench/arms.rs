// SPDX-License-Identifier: MIT OR Apache-2.0
//! The three ways to start a command, and a folder with what they need.

use std::env;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result};

use super::{FLOOR, WORK};
use crate::process;

/// The policy of a start.
pub(super) const START: &str = "start.toml";
/// The policy of the operations, and the same where files are not counted.
pub(super) const COUNTED: &str = "counted.toml";
pub(super) const UNCOUNTED: &str = "uncounted.toml";
/// As many rules for addresses as a run may have, and ten.
pub(super) const MANY_RULES: &str = "many.toml";
pub(super) const FEW_RULES: &str = "few.toml";

/// How many rules `MANY_RULES` and `FEW_RULES` have.
pub(super) const RULES: [usize; 2] = [10_000, 10];

const FILES: &str = r#"
version = 1
name = "bench"
[files]
read = ["${BASE}", "@FOLDER@"]
exec = ["${COMMAND}"]
"#;

const OPERATIONS: &str = r#"
version = 1
name = "bench"
extends = ["@build"]
[files]
read = ["@FOLDER@"]
exec = ["${COMMAND}"]
write = ["@FOLDER@/own"]
"#;

const NETWORK: &str = r#"
[network]
allow = [@RULES@"127.0.0.1:@PORT@", "udp://127.0.0.1:@UDP@"]
"#;

const NO_COUNTS: &str = "[audit]\ncount_files = \"off\"\n";

/// A C file of some size.
const FUNCTIONS: usize = 400;

pub(super) struct Arms {
    pub(super) program: PathBuf,
    folder: tempfile::TempDir,
    /// Of a service that reads all and answers nothing.
    port: u16,
    /// Of a service that never reads.
    udp: UdpSocket,
}

impl Arms {
    pub(super) fn new(program: &Path) -> Result<Self> {
        let folder = tempfile::TempDir::with_prefix("lp-run-bench-").context("make a folder")?;
        let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
        let port = listener.local_addr().context("read the port")?.port();
        thread::spawn(move || serve(&listener));
        let udp = UdpSocket::bind("127.0.0.1:0").context("listen on loopback")?;
        let arms = Self {
            program: program.to_owned(),
            folder,
            port,
            udp,
        };
        arms.write_policies()?;
        arms.write_files()?;
        Ok(arms)
    }

    fn write_policies(&self) -> Result<()> {
        let udp = self.udp.local_addr().context("read the port")?.port();
        let network = |rules: usize| {
            let rules: String = (0..rules)
                .map(|number| format!("\"10.{}.{}.0/24:443\", ", number / 256, number % 256))
                .collect();
            NETWORK
                .replace("@PORT@", &self.port.to_string())
                .replace("@UDP@", &udp.to_string())
                .replace("@RULES@", &rules)
        };
        let counted = format!("{OPERATIONS}{}", network(0));
        let policies = [
            (START, format!("{FILES}{}", network(0))),
            (MANY_RULES, format!("{FILES}{}", network(RULES[0]))),
            (FEW_RULES, format!("{FILES}{}", network(RULES[1]))),
            (UNCOUNTED, format!("{counted}{NO_COUNTS}")),
            (COUNTED, counted),
        ];
        for (name, text) in policies {
            let text = text.replace("@FOLDER@", &self.folder.path().to_string_lossy());
            fs::write(self.folder.path().join(name), text).context("write a policy")?;
        }
        Ok(())
    }

    fn write_files(&self) -> Result<()> {
        let source: String = (0..FUNCTIONS)
            .map(|number| {
                format!(
                    "int f{number}(int a, int b) {{ int s = {number}; \
                     for (int i = 0; i < a; i++) s = s * b + i % (b | 1); return s; }}\n"
                )
            })
            .collect();
        fs::write(self.folder.path().join("source.c"), source).context("write a C file")?;
        fs::write(self.folder.path().join("file"), "x").context("write the file to open")?;
        fs::create_dir(self.folder.path().join("own")).context("make a folder to write in")
    }

    /// A path in the folder.
    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// The address of the service that reads all.
    pub(super) fn tcp(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The address of the service that never reads.
    pub(super) fn udp(&self) -> Result<String> {
        let address = self.udp.local_addr().context("read the port")?;
        Ok(address.to_string())
    }

    /// `work` bare, on the floor, and under `policy`.
    pub(super) fn commands(&self, policy: &str, work: &[String]) -> Result<[Command; 3]> {
        let mut bare = Command::new(&work[0]);
        bare.args(&work[1..]);
        let mut floor = Command::new(own_file()?);
        floor.arg(FLOOR).arg(self.folder.path()).args(work);
        let mut commands = [bare, floor, self.confined(policy, work)];
        for command in &mut commands {
            command.current_dir(self.folder.path()).stdin(Stdio::null());
        }
        Ok(commands)
    }

    /// `work` under `policy`.
    pub(super) fn confined(&self, policy: &str, work: &[String]) -> Command {
        let mut lp_run = Command::new(&self.program);
        lp_run.arg("--policy").arg(self.folder.path().join(policy));
        lp_run.args(["--summary", "never", "--"]).args(work);
        lp_run.current_dir(self.folder.path()).stdin(Stdio::null());
        lp_run
    }

    /// Removes what runs share, so that the next start is a first one.
    pub(super) fn forget(&self) -> Result<()> {
        process::output(Command::new(&self.program).args(["gc", "--all"])).map(drop)
    }
}

/// The words that start this program's own work.
pub(super) fn work(name: &str, target: &str, times: u32) -> Result<Vec<String>> {
    let own = own_file()?.to_string_lossy().into_owned();
    Ok(vec![
        own,
        WORK.into(),
        name.into(),
        target.into(),
        times.to_string(),
    ])
}

/// What `work` printed.
pub(super) fn measured(command: &mut Command) -> Result<f64> {
    let text = process::output(command)?;
    text.trim().parse().context("read a measurement")
}

fn own_file() -> Result<PathBuf> {
    env::current_exe().context("find this program's own file")
}

/// Reads whatever comes, one connection at a time; a large one at its end gets an answer.
fn serve(listener: &TcpListener) {
    let mut buffer = vec![0; 1 << 18];
    for connection in listener.incoming() {
        let Ok(mut connection) = connection else {
            continue;
        };
        while connection.read(&mut buffer).is_ok_and(|count| count > 0) {}
    }
}
