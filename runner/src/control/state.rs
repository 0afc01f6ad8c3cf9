// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of a run from outside, one small JSON file; and whether the lp-run that
//! wrote it still lives.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The file in the run's directory.
const FILE: &str = "state.json";

/// Which process a run belongs to, and what it made on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunState {
    /// Whose it is.
    #[serde(flatten)]
    pub owner: Owner,
    /// What the run makes or owes.
    #[serde(flatten)]
    pub traces: Traces,
}

/// The process of a run. Every release of lp-run reads this of every other's runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// The run's id.
    pub run: String,
    /// `/proc/sys/kernel/random/boot_id`: process ids mean nothing after a reboot.
    pub boot: String,
    /// The pid namespace in which `pid` means something.
    pub pid_namespace: String,
    /// lp-run's process id.
    pub pid: u32,
    /// Its start, in clock ticks after boot (field 22 of proc_pid_stat(5)): an id that is used
    /// again has another one.
    pub start_time: u64,
}

/// What a run leaves behind if its lp-run dies: noted before any of it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traces {
    /// The cgroup directory of the run, where it has one.
    pub cgroup: Option<PathBuf>,
    /// Its directories in hierarchies of version 1, where it has any.
    #[serde(default)]
    pub legacy: Vec<PathBuf>,
    /// The policy's name.
    pub policy: String,
    /// The audit logs that wait for the run's last line.
    pub logs: Vec<PathBuf>,
}

impl RunState {
    /// The state of a run of this very process.
    pub fn own(run: &str, traces: Traces) -> io::Result<Self> {
        let pid = std::process::id();
        let Here {
            boot,
            pid_namespace,
        } = Here::now()?;
        let owner = Owner {
            run: run.to_owned(),
            boot,
            pid_namespace,
            pid,
            start_time: start_time(pid)
                .ok_or_else(|| io::Error::other("/proc shows no start time"))?,
        };
        Ok(Self { owner, traces })
    }

    /// Reads what `write` wrote.
    pub fn read(directory: &Path) -> io::Result<Self> {
        read(directory)
    }

    /// Writes the file anew: it is whole at each moment.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        let fresh = directory.join("state.new");
        let mut file = fs::File::create(&fresh)?;
        file.write_all(&text)?;
        fs::rename(&fresh, directory.join(FILE))
    }
}

impl Owner {
    /// Reads whose the run in `directory` is.
    pub fn read(directory: &Path) -> io::Result<Self> {
        read(directory)
    }

    /// Whether the process lives, as far as can be told: one of another pid namespace cannot
    /// be judged from here and counts as alive.
    pub fn alive(&self, here: &Here) -> bool {
        self.boot == here.boot
            && (self.pid_namespace != here.pid_namespace
                || start_time(self.pid) == Some(self.start_time))
    }
}

fn read<T: DeserializeOwned>(directory: &Path) -> io::Result<T> {
    let text = fs::read_to_string(directory.join(FILE))?;
    serde_json::from_str(&text).map_err(io::Error::other)
}

/// Where process ids have their meaning: asked once, for all runs.
pub(super) struct Here {
    boot: String,
    pid_namespace: String,
}

impl Here {
    pub fn now() -> io::Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let pid_namespace = fs::read_link("/proc/self/ns/pid")?;
        Ok(Self {
            boot: boot.trim().to_owned(),
            pid_namespace: pid_namespace.to_string_lossy().into_owned(),
        })
    }
}

/// When the process started; `None` where there is none. A zombie is none: it does nothing
/// any more.
fn start_time(pid: u32) -> Option<u64> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The program's name may hold anything, also spaces and brackets: the fields that count
    // come after the last bracket, the third of all first.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let fields = String::from_utf8_lossy(text.get(end + 1..)?);
    let mut fields = fields.split_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> RunState {
        RunState::own("abcdefgh", Traces::default()).unwrap()
    }

    #[test]
    fn the_state_survives_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = own();
        state.write(directory.path()).unwrap();
        state.traces = Traces {
            legacy: vec![PathBuf::from("/sys/fs/cgroup/memory/lp-run/abcdefgh")],
            cgroup: Some(PathBuf::from("/sys/fs/cgroup/lp-run/abcdefgh")),
            policy: "test".to_owned(),
            logs: vec![PathBuf::from("/var/log/lp-run.jsonl")],
        };
        state.write(directory.path()).unwrap();
        assert_eq!(RunState::read(directory.path()).unwrap(), state);
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no file is left over"
        );
    }

    #[test]
    fn only_the_same_process_of_the_same_boot_is_alive() {
        let (own, here) = (own().owner, Here::now().unwrap());
        assert!(own.alive(&here));
        let other_boot = Owner {
            boot: "another".to_owned(),
            ..own.clone()
        };
        assert!(!other_boot.alive(&here));
        let id_used_again = Owner {
            start_time: own.start_time + 1,
            ..own.clone()
        };
        assert!(!id_used_again.alive(&here));
        let elsewhere = Owner {
            pid_namespace: "pid:[1]".to_owned(),
            ..id_used_again
        };
        assert!(elsewhere.alive(&here), "it cannot be judged from here");
    }

    #[test]
    fn a_process_that_is_gone_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let gone = Owner { pid, ..own().owner };
        assert!(!gone.alive(&Here::now().unwrap()));
    }
}
