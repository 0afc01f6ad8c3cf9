// SPDX-License-Identifier: MIT OR Apache-2.0
//! [`Shell`]: an interactive bash that leads a session on a pseudo-terminal of its own, as the
//! one that an operator types at.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;
use nix::sys::termios::{FlowArg, Termios, tcflow, tcgetattr};

use crate::support::Jail;

/// Longer than anything takes, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often what tells nobody of its change is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// A shell at a terminal.
pub struct Shell {
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// The terminal as its programs have it.
    slave: OwnedFd,
    child: Child,
    seen: String,
    mark: usize,
    policy: String,
    untouched: Termios,
}

impl Shell {
    /// Starts the shell in the jail's folder. What is typed as `$LP` runs lp-run under `policy`.
    pub fn start(jail: &Jail, policy: &str) -> Self {
        let folder = jail.path().to_string_lossy();
        let policy = jail.file("policy.toml", policy.replace("@DIR@", &folder));
        let gate = jail.path().join("gate");
        nix::unistd::mkfifo(&gate, Mode::from_bits_truncate(0o644)).expect("make the gate");
        let (keyboard, slave) = pseudo_terminal();
        let side = || Stdio::from(slave.try_clone().expect("duplicate the terminal"));
        // A signal that is ignored stays so: under nohup(1) no window could be closed.
        let child = Command::new("env")
            .args([
                "--default-signal",
                "setsid",
                "--ctty",
                "bash",
                "--norc",
                "--noprofile",
                "--noediting",
                "-i",
            ])
            .current_dir(jail.path())
            .env("LP_RUN", env!("CARGO_BIN_EXE_lp-run"))
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("start a shell");
        let mut from = keyboard.try_clone().expect("duplicate the master");
        let (sender, screen) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let policy = policy.to_string_lossy().into_owned();
        let untouched = tcgetattr(&slave).expect("settings");
        let mut shell = Self {
            keyboard,
            screen,
            slave,
            child,
            seen: String::new(),
            mark: 0,
            untouched,
            policy: policy.clone(),
        };
        shell.enter("PS1='REA''DY> '");
        shell.prompt();
        shell.enter(&format!("LP=\"$LP_RUN --policy {policy} --summary never\""));
        shell.prompt();
        shell
    }

    /// Types.
    pub fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("type");
    }

    /// Types a line.
    pub fn enter(&mut self, line: &str) {
        self.type_keys(line);
        self.type_keys("\n");
    }

    /// Waits until `text` is on the screen, after all that was waited for before.
    pub fn sees(&mut self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(at) = self.seen[self.mark..].find(text) {
                self.mark += at + text.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("`{text}` never came; the screen:\n{}", self.seen),
            }
        }
    }

    /// Waits for the shell's prompt.
    pub fn prompt(&mut self) {
        self.sees("READY> ");
    }

    /// Types ^Z and waits until the shell has stopped the job and has the terminal back as it was.
    pub fn stop_job(&mut self) {
        self.type_keys("\x1a");
        self.sees("Stopped");
        self.prompt();
        self.is_untouched();
    }

    /// Waits until the terminal's foreground is a job, and no longer the shell.
    pub fn until_a_job_is_in_front(&self) {
        let shell = i32::try_from(self.child.id()).expect("a process id");
        until("a job in the foreground", || {
            nix::unistd::tcgetpgrp(&self.keyboard).is_ok_and(|group| group.as_raw() != shell)
        });
    }

    /// Waits, in the shell, until it has a stopped job.
    pub fn until_a_job_is_stopped(&mut self) {
        self.enter("until jobs -s | grep -q .; do sleep 0.05; done; echo sto''od");
        self.sees("stood");
        self.prompt();
    }

    /// Asks the shell for the status of what ran last.
    pub fn status(&mut self, status: i32) {
        self.enter("echo \"status=$?.\"");
        self.sees(&format!("status={status}."));
        self.prompt();
    }

    /// The terminal's settings are those that it had before anything ran.
    pub fn is_untouched(&self) {
        let now = tcgetattr(&self.slave).expect("settings");
        assert_eq!(now, self.untouched, "the screen:\n{}", self.seen);
    }

    /// Waits until the settings are, or are no longer, as they were.
    pub fn until_touched(&self, touched: bool) {
        until("the terminal's settings change", || {
            tcgetattr(&self.slave).is_ok_and(|now| (now != self.untouched) == touched)
        });
    }

    /// The terminal's name, for stty(1).
    pub fn name(&self) -> String {
        let name = nix::unistd::ttyname(&self.slave).expect("a terminal has a name");
        name.to_string_lossy().into_owned()
    }

    /// File system and device number, as stat(1) prints them with `%d %r`.
    pub fn device(&self) -> String {
        let status = fs::metadata(self.name()).expect("stat the terminal");
        format!("{} {}", status.dev(), status.rdev())
    }

    /// The processes of this test's lp-run: itself, and the first process of its run.
    pub fn lp_runs(&self) -> [i32; 2] {
        let own: Vec<(i32, i32)> = processes()
            .filter(|(_, _, line)| line.contains("lp-run") && line.contains(&self.policy))
            .map(|(pid, parent, _)| (pid, parent))
            .collect();
        let is_child = |parent: i32| own.iter().any(|(pid, _)| *pid == parent);
        let outer = own.iter().find(|(_, parent)| !is_child(*parent));
        let inner = own.iter().find(|(_, parent)| is_child(*parent));
        match (outer, inner) {
            (Some((outer, _)), Some((inner, _))) => [*outer, *inner],
            _ => panic!("no run: {own:?}"),
        }
    }

    /// Holds back, or lets go on, what is written to the terminal, as ^S and ^Q do.
    pub fn hold_output(&self, hold: bool) {
        let flow = if hold {
            FlowArg::TCOOFF
        } else {
            FlowArg::TCOON
        };
        tcflow(&self.slave, flow).expect("tcflow");
    }

    /// The screen from the first `text` on.
    pub fn since_first(&self, text: &str) -> &str {
        self.seen.split_once(text).map_or("", |(_, after)| after)
    }

    /// Closes the window, and waits until nothing of lp-run is left.
    pub fn close(self) {
        let policy = self.policy.clone();
        drop(self);
        until("lp-run ends with its terminal", || {
            !processes().any(|(_, _, line)| line.contains(&policy))
        });
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Its jobs end with the terminal: the reader's copy of the master goes with the shell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both sides of a new pseudo-terminal, which no program of another test inherits.
fn pseudo_terminal() -> (File, OwnedFd) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).expect("a pseudo-terminal");
    grantpt(&master).expect("grantpt");
    unlockpt(&master).expect("unlockpt");
    let name = ptsname_r(&master).expect("its name");
    let slave = open(name.as_str(), flags, Mode::empty()).expect("open the terminal");
    let master = master
        .as_fd()
        .try_clone_to_owned()
        .expect("duplicate the master");
    (File::from(master), slave)
}

/// Lets a program go on that reads from `gate`: unlike a loop that looks for a file it starts
/// nothing, and a shell cannot be stopped while it starts something.
pub fn open_gate(jail: &Jail) {
    fs::write(jail.path().join("gate"), "\n").expect("open the gate");
}

/// Waits until `happened`.
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !happened() {
        assert!(Instant::now() < deadline, "{what}: never");
        thread::sleep(PAUSE);
    }
}

/// Waits until a process has this command line.
pub fn until_runs(line: &str) {
    until(line, || {
        processes().any(|(_, _, words)| words.replace('\0', " ").trim_end() == line)
    });
}

/// Process id, parent and command line of every process.
fn processes() -> impl Iterator<Item = (i32, i32, String)> {
    let list = fs::read_dir("/proc").expect("list processes");
    list.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (_, after_name) = stat.rsplit_once(')')?;
        let mut fields = after_name.split_whitespace();
        // A process that has ended and waits for its parent is none.
        fields.next().filter(|state| *state != "Z")?;
        Some((pid, fields.next()?.parse().ok()?, line))
    })
}
