// SPDX-License-Identifier: MIT OR Apache-2.0
//! The eBPF network layer by itself, without a launcher: programs attached to a cgroup of the
//! test's own, the probe inside it, servers and strangers outside. Everything happens on `lo`
//! of a network namespace of the test's own.

mod counting;
mod fragments;
mod hooks;
mod inbound;
mod itself;
mod lifecycle;

use std::fs;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lp_run::plan::{Namespace, Prefix};
use lp_run::watch::{Counted, Objects, Rules, Run, State, open_cgroup};
use lp_run_common::network::{Candidate, PROTOCOL_TCP, PROTOCOL_UDP, VERDICT_ALLOW, VERDICT_DENY};

use crate::support::{Jail, Outcome, probe};

/// A cgroup with the network programs on it.
pub struct Layer {
    /// The watched run.
    pub run: Run,
    /// Its cgroup, below which a test may nest.
    pub cgroup: PathBuf,
    jail: Jail,
}

impl Layer {
    /// Programs with `rules`, in the state `live`.
    pub fn live(rules: Rules) -> Self {
        let mut layer = Self::setup(rules);
        layer.run.set_state(State::Live).expect("go live");
        layer
    }

    /// Programs with `rules`, in the state `setup`.
    pub fn setup(rules: Rules) -> Self {
        let jail = Jail::new();
        // First what can fail, so that nothing is left behind when it does.
        let objects = acquire(&rules);
        let cgroup = new_cgroup();
        let started = open_cgroup(&cgroup).and_then(|directory| objects.start(rules, directory, 2));
        let run = started.unwrap_or_else(|error| {
            remove_cgroup(&cgroup);
            panic!("start the run: {error:?}");
        });
        Self { run, cgroup, jail }
    }

    /// What the kernel says to one act inside the cgroup.
    pub fn act<const N: usize>(&self, act: [&str; N]) -> String {
        self.inside(act).answer().to_owned()
    }

    /// Runs the probe inside the cgroup.
    pub fn inside<const N: usize>(&self, act: [&str; N]) -> Outcome {
        self.jail.bare(&self.command(act))
    }

    /// Starts the probe inside the cgroup, to be waited for with [`Started::answer`].
    pub fn start<const N: usize>(&self, act: [&str; N]) -> Started {
        let command = self.command(act);
        let child = Command::new(&command[0])
            .args(&command[1..])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("start the probe");
        Started(child)
    }

    /// What the kernel says to one act outside the cgroup.
    pub fn outside<const N: usize>(&self, act: [&str; N]) -> String {
        self.jail.bare(&probe(act)).answer().to_owned()
    }

    fn command<const N: usize>(&self, act: [&str; N]) -> Vec<String> {
        let enter = format!(
            "echo $$ > {}/cgroup.procs && exec \"$@\"",
            self.cgroup.display()
        );
        let mut command: Vec<String> = ["sh", "-c", &enter, "sh"].map(str::to_owned).to_vec();
        command.extend(probe(act));
        command
    }

    /// (allowed, denied) of a rule.
    pub fn counts(&self, row: usize) -> (u64, u64) {
        let usage = self.run.usage().expect("read the counters")[row];
        (
            usage.allowed.expect("counted"),
            usage.denied.expect("counted"),
        )
    }

    /// (bytes out, bytes in) of a rule.
    pub fn bytes(&self, row: usize) -> (u64, u64) {
        let usage = self.run.usage().expect("read the counters")[row];
        (
            usage.bytes_out.expect("counted"),
            usage.bytes_in.expect("counted"),
        )
    }

    /// Each denial as `op target row count errno comm`.
    pub fn denials(&self) -> Vec<String> {
        let denials = self.run.denials().expect("read the denials");
        let mut lines: Vec<String> = denials
            .iter()
            .map(|denial| {
                format!(
                    "{:?} {} {:?} {} {} {}",
                    denial.op,
                    String::from_utf8_lossy(&denial.target),
                    denial.row,
                    denial.count,
                    denial.errno,
                    String::from_utf8_lossy(&denial.comm),
                )
            })
            .collect();
        lines.sort();
        lines
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        remove_cgroup(&self.cgroup);
    }
}

/// The object that the runs of this machine share, with room for a run with these rules.
pub fn acquire(rules: &Rules) -> Objects {
    Objects::acquire(&lp_run::host::places::runtime(), rules.counted.len())
        .expect("acquire the object")
}

/// A probe that runs beside the test.
pub struct Started(std::process::Child);

impl Started {
    /// Ends it: nobody has come, as it should be.
    pub fn stop(mut self) {
        self.0.kill().expect("kill the probe");
        self.0.wait().expect("wait for the probe");
    }

    /// Its answer, when it has ended by itself.
    pub fn answer(self) -> String {
        let output = self.0.wait_with_output().expect("wait for the probe");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }
}

/// Rules of a run in the host's network: `(text, row, verdict, protocols)` with the text
/// `PREFIX PORTS`, pushed down by hand where a test nests prefixes.
pub fn host(destinations: Vec<Prefix>, listeners: Vec<Prefix>) -> Rules {
    Rules {
        namespace: Namespace::Host,
        destinations,
        listeners,
        self_row: None,
        counted: vec![Counted::Network; 8],
    }
}

/// Rules of a run in a namespace of its own, with `self` in row 0 or without it.
pub fn own(itself: bool) -> Rules {
    Rules {
        namespace: Namespace::Own,
        destinations: Vec::new(),
        listeners: Vec::new(),
        self_row: itself.then_some(0),
        counted: vec![Counted::Network],
    }
}

/// The prefix `net` with its candidates.
pub fn prefix(net: &str, candidates: Vec<Candidate>) -> Prefix {
    let (address, length) = net.split_once('/').unwrap_or((net, ""));
    let address: IpAddr = address.parse().expect("an address");
    let full = if address.is_ipv4() { 32 } else { 128 };
    let length: u8 = if length.is_empty() {
        full
    } else {
        length.parse().expect("a length")
    };
    match address {
        IpAddr::V4(v4) => Prefix {
            address: v4.to_ipv6_mapped(),
            length: 96 + length,
            candidates,
        },
        IpAddr::V6(v6) => Prefix {
            address: v6,
            length,
            candidates,
        },
    }
}

/// A TCP grant of one port.
pub fn tcp(port: u16, row: u16) -> Candidate {
    candidate((port, port), PROTOCOL_TCP, VERDICT_ALLOW, row)
}

/// A UDP grant of one port.
pub fn udp(port: u16, row: u16) -> Candidate {
    candidate((port, port), PROTOCOL_UDP, VERDICT_ALLOW, row)
}

/// A refusal of every port.
pub fn deny(row: u16) -> Candidate {
    candidate(
        (1, u16::MAX),
        PROTOCOL_TCP | PROTOCOL_UDP,
        VERDICT_DENY,
        row,
    )
}

/// One rule as it applies to a prefix.
pub fn candidate(ports: (u16, u16), protocols: u8, verdict: u8, row: u16) -> Candidate {
    Candidate {
        port_low: ports.0,
        port_high: ports.1,
        protocols,
        verdict,
        row,
    }
}

/// A TCP server outside the run that accepts everything until the test ends.
pub fn serve_tcp(address: &str) {
    let server = TcpListener::bind(address).expect("listen");
    thread::spawn(move || {
        let mut open = Vec::new();
        for peer in server.incoming().take(1000).flatten() {
            open.push(peer);
        }
    });
}

/// A UDP socket outside the run that answers nothing.
pub fn open_udp(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).expect("bind");
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("set a time-out");
    socket
}

/// Waits until somebody in this network namespace listens on, or is bound to, `port`.
pub fn wait_for(table: &str, port: u16) {
    let start = Instant::now();
    while !local_ports(table).contains(&port) {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "nobody is at port {port}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// Local ports of /proc/net/TABLE; of TCP only those that listen.
pub fn local_ports(table: &str) -> Vec<u16> {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).expect("read sockets");
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next()?;
            let state = fields.nth(1)?;
            if table.starts_with("tcp") && state != "0A" {
                return None;
            }
            u16::from_str_radix(local.rsplit(':').next()?, 16).ok()
        })
        .collect()
}

fn new_cgroup() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
    let mount = mounts
        .into_iter()
        .find(|path| path.join("cgroup.controllers").exists())
        .expect("cgroup v2 is mounted");
    let name = format!(
        "lp-run-net-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let path = mount.join(name);
    fs::create_dir(&path).expect("make a cgroup");
    path
}

fn remove_cgroup(path: &PathBuf) {
    let _ = fs::write(path.join("cgroup.kill"), "1");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        for nested in fs::read_dir(path).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(nested.path());
        }
        if fs::remove_dir(path).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    eprintln!("left behind: {}", path.display());
}
