// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask demo`: a support agent is asked to summarise one ticket, does so, and then
//! reaches for what is not its business. Everything is real: the ticket store, the services on
//! loopback, the agent, the kernel that refuses. It runs in a network namespace with nothing but
//! `lo` and in a mount namespace where `/srv` is temporary, so that the machine stays as it was.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, process, thread};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use xtask::toolchain;

use crate::{package, process as programs, setup};

/// The word by which this program calls itself inside the namespaces.
pub const INSIDE: &str = "demo-inside";

/// Services on loopback: the one that the policy grants, and one that it does not.
const SERVICES: [(&str, &str); 2] = [
    (
        "127.0.0.1:8080",
        "the new driver needs the label size set again: Settings, Labels, 62 mm",
    ),
    ("127.0.0.1:9090", "every customer's data"),
];

/// Sets up, builds, and starts itself again inside fresh namespaces.
pub fn run(root: &Path) -> Result<()> {
    if !toolchain::detect().root {
        bail!("the demo confines a real program, which needs root: run it with sudo");
    }
    setup::tests()?;
    let program = package::build(root, false)?;
    let mut inside = Command::new("unshare");
    inside
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .arg(env::current_exe().context("find this program's own file")?)
        .arg(INSIDE)
        .arg(program);
    let status = inside.status().context("start unshare(1)")?;
    if !status.success() {
        bail!("the demo did not end as it should ({status})");
    }
    Ok(())
}

/// Inside the namespaces: store, services, agent, report.
pub fn inside(root: &Path, program: &Path) -> Result<()> {
    let place = Workplace::new(root)?;
    programs::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    for (address, answer) in SERVICES {
        let listener =
            TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
        thread::spawn(move || serve(&listener, answer));
    }
    let policy = root.join("policies/ticket-summary.toml");
    println!("\nThe policy, {}:\n", policy.display());
    print!(
        "{}",
        fs::read_to_string(&policy).context("read the policy")?
    );
    println!();
    let report = package::target(root).join("demo-report.json");
    let mut lp_run = Command::new(program);
    lp_run
        .arg("--policy")
        .arg(&policy)
        .args(["--set", "ticket=4711", "--summary", "always", "--report"])
        .arg(&report)
        .args(["--", "./agent.sh", "4711"])
        .current_dir(&place.folder);
    programs::run(&mut lp_run)?;
    let text = fs::read_to_string(&report).context("read the report")?;
    let values = serde_json::from_str(&text).context("read the report")?;
    println!("\nIts rules in the report, {}:\n", report.display());
    print!("{}", table(&values));
    place.expect_confined(&values)
}

/// The rows of the policy's own rules; those of kits and of `${BASE}` stay in the file.
fn table(report: &Value) -> String {
    let mut text = format!(
        "  {:<16}{:>9}{:>9}{:>9}{:>9}\n",
        "rule", "allowed", "denied", "out", "in"
    );
    for row in report["rules"].as_array().into_iter().flatten() {
        let id = row["id"].as_str().unwrap_or_default();
        if id.starts_with('@')
            || row["text"]
                .as_str()
                .is_some_and(|t| t.starts_with("${BASE}"))
        {
            continue;
        }
        let count = |name: &str| match &row[name] {
            Value::Null => "-".to_owned(),
            value => value.to_string(),
        };
        let counts = ["allowed", "denied", "bytes_out", "bytes_in"].map(count);
        let [allowed, denied, out, into] = &counts;
        text.push_str(&format!(
            "  {id:<16}{allowed:>9}{denied:>9}{out:>9}{into:>9}\n"
        ));
    }
    text
}

/// A folder that the agent works in, and `/srv` with the tickets. The folder goes with
/// this value; `/srv` goes with the mount namespace.
struct Workplace {
    folder: PathBuf,
}

impl Workplace {
    fn new(root: &Path) -> Result<Self> {
        let demo = root.join("xtask/demo");
        programs::run(
            Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "demo", "/srv"]),
        )?;
        copy_tree(&demo.join("tickets"), Path::new("/srv/tickets"))?;
        let folder = package::target(root).join(format!("demo-{}", process::id()));
        fs::create_dir(&folder).context("make the agent's folder")?;
        let place = Self { folder };
        let agent = place.folder.join("agent.sh");
        fs::copy(demo.join("agent.sh"), &agent).context("copy the agent")?;
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755))
            .context("make it a program")?;
        Ok(place)
    }

    /// The demo is a test as well: the work was done, and nothing beyond it.
    fn expect_confined(&self, report: &Value) -> Result<()> {
        let summary = fs::read_to_string(self.folder.join("out/summary.md"));
        if !summary.is_ok_and(|text| text.contains(SERVICES[0].1)) {
            bail!("the agent could not do its task: out/summary.md has not the advice");
        }
        let denials = report["denials"].as_array().map_or(0, Vec::len);
        if denials < 4 {
            bail!("the report names {denials} denials; the agent tried more than that");
        }
        Ok(())
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("xtask: {} stays behind: {error}", self.folder.display());
        }
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry.with_context(|| format!("list {}", from.display()))?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)
                .with_context(|| format!("copy {}", target.display()))?;
        }
    }
    Ok(())
}

/// Answers every request with the same text, as long as the demo lives.
fn serve(listener: &TcpListener, answer: &'static str) {
    for peer in listener.incoming().flatten() {
        thread::spawn(move || {
            // A peer that goes away early is the peer's business.
            let _ = reply(peer, answer);
        });
    }
}

fn reply(peer: TcpStream, answer: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(peer.try_clone()?).lines();
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let length = answer.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    (&peer).write_all((head + answer).as_bytes())
}
