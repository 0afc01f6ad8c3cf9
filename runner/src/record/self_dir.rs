// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the agent may read about itself in `${LP_RUN_SELF}`: `policy.txt`, what it may do,
//! and `denials.txt`, what was denied lately, why, and what makes sense instead.
//!
//! A language model reads these files. So an entry has at most 300 bytes of printable ASCII;
//! what the agent or a policy's author wrote is quoted and cannot look like markup or like
//! the end of the quotation; no text comes from another host; the only imperatives are the
//! fixed ones below, and none of them is a command that widens the policy.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use jiff::Timestamp;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod};

use super::escape::{plain_ascii, quoted_for_agent};
use super::event::{Denial, Op};
use crate::plan::{Plan, RuleKind};
use crate::policy::model::RuleInfo;

/// Most entries of `denials.txt`; older ones go.
pub const MAX_ENTRIES: usize = 50;
/// Longest entry in bytes, its line breaks included.
pub const MAX_ENTRY: usize = 300;
/// Most lines of `policy.txt`.
pub const MAX_POLICY_LINES: usize = 20;

/// The directory, as lp-run sees it: the agent's is a read-only mount of the same.
#[derive(Debug)]
pub struct SelfDir {
    directory: OwnedFd,
    policy: String,
    entries: VecDeque<String>,
    changed: bool,
}

impl SelfDir {
    /// Writes `policy.txt` and an empty `denials.txt` into `directory`, which nobody but
    /// lp-run can write.
    pub fn create(directory: OwnedFd, plan: &Plan) -> io::Result<Self> {
        let mut dir = Self {
            directory,
            policy: plan.policy.name.clone(),
            entries: VecDeque::new(),
            changed: true,
        };
        dir.replace("policy.txt", &policy_text(plan))?;
        dir.flush()?;
        Ok(dir)
    }

    /// Notes a denial that is new; `rule` is the rule that refused. Written by [`Self::flush`].
    pub fn note(&mut self, denial: &Denial, rule: Option<&RuleInfo>) {
        if self.entries.len() == MAX_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(entry(denial, rule, &self.policy));
        self.changed = true;
    }

    /// Writes `denials.txt`, newest last, if something was noted since.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.changed {
            let text: Vec<&str> = self.entries.iter().map(String::as_str).collect();
            self.replace("denials.txt", &text.join("\n"))?;
            self.changed = false;
        }
        Ok(())
    }

    /// Replaces a file in one step, so that a reader never sees half of it.
    fn replace(&self, name: &str, text: &str) -> io::Result<()> {
        let flags = OFlag::O_WRONLY
            | OFlag::O_CREAT
            | OFlag::O_TRUNC
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC;
        let opened = openat(
            &self.directory,
            ".next",
            flags,
            Mode::from_bits_truncate(0o444),
        )?;
        // Whatever the umask of the operator is, the agent may read it.
        fchmod(&opened, Mode::from_bits_truncate(0o444))?;
        File::from(opened).write_all(text.as_bytes())?;
        Ok(renameat(&self.directory, ".next", &self.directory, name)?)
    }
}

/// Three lines: what, why, what now.
fn entry(denial: &Denial, rule: Option<&RuleInfo>, policy: &str) -> String {
    let target = quoted_for_agent(&denial.target, 80);
    let comm = plain_ascii(&denial.comm, 15);
    let time = clock(denial.first);
    let (what, instead) = words(denial.op);
    let why = match rule {
        Some(rule) if !denial.reason.is_empty() => format!(
            "{} is for another destination: {}.",
            plain_ascii(rule.key.as_bytes(), 40),
            denial.reason
        ),
        None => {
            let policy = quoted_for_agent(policy.as_bytes(), 34);
            format!("no rule in policy {policy} allows it. Retrying will not help.")
        }
        Some(rule) => match &rule.because {
            Some(because) => format!(
                "{} says {}",
                plain_ascii(rule.key.as_bytes(), 24),
                quoted_for_agent(because.as_bytes(), 52)
            ),
            None => {
                format!(
                    "{} takes it away. Retrying will not help.",
                    plain_ascii(rule.key.as_bytes(), 40)
                )
            }
        },
    };
    format!("denied: {what} {target} (by {comm}, {time})\nwhy:    {why}\ndo:     {instead}\n")
}

/// How an act reads, and what makes sense instead.
fn words(op: Op) -> (&'static str, &'static str) {
    const ASK: &str = "continue without it, or ask the user to allow it.";
    match op {
        Op::Open => ("open", ASK),
        Op::Write => (
            "change",
            "write elsewhere (policy.txt says where), or ask the user.",
        ),
        Op::Exec => ("run", ASK),
        Op::Mkdir => ("make the directory", ASK),
        Op::Mknod => ("make the node", ASK),
        Op::Symlink => ("make the link", ASK),
        Op::Link => ("link", ASK),
        Op::Rename => ("rename", ASK),
        Op::Unlink | Op::Rmdir => ("remove", ASK),
        Op::Readlink => ("follow the link", ASK),
        Op::Chmod | Op::Chown | Op::Utime | Op::Setxattr | Op::Ioctl => {
            ("change attributes of", ASK)
        }
        Op::Truncate => ("cut", ASK),
        Op::Getxattr => ("read attributes of", ASK),
        Op::Receive => ("receive a descriptor of", ASK),
        Op::Unix => ("connect to", ASK),
        Op::Watch => ("watch", ASK),
        Op::Connect => ("connect to", ASK),
        Op::Sendto => ("send to", ASK),
        Op::Bind => (
            "listen on",
            "use another port that policy.txt names, or ask the user.",
        ),
        Op::Socket => ("make a socket", "use TCP or UDP; nothing else works here."),
        Op::Egress => ("send a packet to", ASK),
        Op::Ingress => (
            "receive a packet from",
            "nothing; connections from there are not allowed.",
        ),
        Op::Resolve => ("look up", ASK),
        Op::Syscall => ("call", "do without it; it never works here."),
    }
}

fn clock(time: Timestamp) -> String {
    let seconds = time.as_second().rem_euclid(86_400);
    format!(
        "{:02}:{:02}:{:02}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// What may be done, in at most [`MAX_POLICY_LINES`] lines.
fn policy_text(plan: &Plan) -> String {
    let policy = &plan.policy;
    let mut lines = vec![format!(
        "This program runs under policy {}.",
        quoted_for_agent(policy.name.as_bytes(), 65)
    )];
    if let Some(purpose) = &policy.task.purpose {
        lines.push(format!(
            "Purpose: {}",
            quoted_for_agent(purpose.as_bytes(), 120)
        ));
    }
    lines.push("Allowed is what stands here and nothing else:".to_owned());
    let unix = match plan.syscalls.refuse_unix {
        true => Some("No Unix sockets: socket(AF_UNIX) is EPERM; socketpair streams work."),
        false => None,
    };
    let tail = [
        "Private and removed at the end: /tmp and the home directory unless granted.",
        "Denied acts fail at once; repeating them does not help.",
        "What was denied and why: denials.txt beside this file.",
    ];
    let room = MAX_POLICY_LINES - lines.len() - tail.len() - usize::from(unix.is_some());
    let grants: Vec<String> = KINDS
        .iter()
        .flat_map(|(kind, word)| grant_lines(plan, *kind, word))
        .collect();
    if grants.is_empty() {
        lines.push("  nothing but computing".to_owned());
    } else if grants.len() <= room {
        lines.extend(grants);
    } else {
        let more = grants.len() - (room - 1);
        lines.extend(grants.into_iter().take(room - 1));
        lines.push(format!("  ... and {more} lines more"));
    }
    lines.extend(unix.into_iter().chain(tail).map(str::to_owned));
    lines.join("\n") + "\n"
}

/// Kinds in the order in which they matter to somebody who works: the writable first.
const KINDS: [(RuleKind, &str); 9] = [
    (RuleKind::Write, "write"),
    (RuleKind::Network, "connect"),
    (RuleKind::Listen, "listen"),
    (RuleKind::Unix, "socket"),
    (RuleKind::Deny, "never"),
    (RuleKind::Protect, "no change"),
    (RuleKind::NetworkDeny, "never connect"),
    (RuleKind::Exec, "run"),
    (RuleKind::Read, "read"),
];

/// The rules of one kind, packed into lines of at most 100 bytes.
fn grant_lines(plan: &Plan, kind: RuleKind, word: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for rule in plan.rules.iter().filter(|rule| rule.kind == kind) {
        let text = quoted_for_agent(rule.info.text.as_bytes(), 80);
        match lines.last_mut() {
            Some(line) if line.len() + 1 + text.len() <= 100 => {
                line.push(' ');
                line.push_str(&text);
            }
            _ => lines.push(format!("  {word:<14}{text}")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::record::samples;

    fn rule(because: Option<&str>) -> RuleInfo {
        RuleInfo {
            key: "files.deny[0]".to_owned(),
            because: because.map(str::to_owned),
            ..RuleInfo::default()
        }
    }

    #[test]
    fn the_agent_finds_what_it_may_do_and_what_was_denied() {
        let dir = tempfile::tempdir().unwrap();
        let handle = OwnedFd::from(File::open(dir.path()).unwrap());
        let mut own = SelfDir::create(handle, &samples::plan()).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        expect![[r#"
            This program runs under policy "demo".
            Purpose: "Summarise"
            Allowed is what stands here and nothing else:
              connect       "127.0.0.1:8080" "127.0.0.1:8081"
              never connect "10.20.9.0/24"
              read          "/srv/kb"
            No Unix sockets: socket(AF_UNIX) is EPERM; socketpair streams work.
            Private and removed at the end: /tmp and the home directory unless granted.
            Denied acts fail at once; repeating them does not help.
            What was denied and why: denials.txt beside this file.
        "#]]
        .assert_eq(&read("policy.txt"));
        assert_eq!(read("denials.txt"), "");
        own.note(&samples::denials()[1], None);
        own.note(
            &samples::denials()[0],
            Some(&rule(Some("payment data is out of scope"))),
        );
        own.flush().unwrap();
        expect![[r#"
            denied: connect to "127.0.0.1:9090" (by curl, 14:13:23Z)
            why:    no rule in policy "demo" allows it. Retrying will not help.
            do:     continue without it, or ask the user to allow it.

            denied: open "/srv/kb/a\x0ab" (by cat, 14:13:25Z)
            why:    files.deny[0] says "payment data is out of scope"
            do:     continue without it, or ask the user to allow it.
        "#]]
        .assert_eq(&read("denials.txt"));
        assert_eq!(
            fs::metadata(dir.path().join("denials.txt")).unwrap().mode() & 0o777,
            0o444
        );
    }

    #[test]
    fn the_oldest_entries_go() {
        let dir = tempfile::tempdir().unwrap();
        let handle = OwnedFd::from(File::open(dir.path()).unwrap());
        let mut own = SelfDir::create(handle, &samples::plan()).unwrap();
        for index in 0..MAX_ENTRIES + 7 {
            let target = format!("/t{index}").into_bytes();
            own.note(
                &Denial {
                    target,
                    ..samples::denials()[0].clone()
                },
                None,
            );
        }
        own.flush().unwrap();
        let text = fs::read_to_string(dir.path().join("denials.txt")).unwrap();
        assert_eq!(text.matches("denied: ").count(), MAX_ENTRIES);
        assert!(!text.contains("\"/t6\"") && text.contains("\"/t7\"") && text.contains("\"/t56\""));
    }

    #[test]
    fn a_long_policy_still_fits_twenty_lines() {
        let mut plan = samples::plan();
        let read = plan.rules[0].clone();
        for index in 0..100 {
            let mut rule = read.clone();
            rule.info.text = format!("/srv/{index}/{}", "x".repeat(70));
            plan.rules.push(rule);
        }
        let text = policy_text(&plan);
        assert_eq!(text.lines().count(), MAX_POLICY_LINES);
        assert!(text.contains("lines more"));
    }

    proptest! {
        #[test]
        fn an_entry_is_three_bounded_lines_of_ascii(
            target: Vec<u8>,
            comm in proptest::collection::vec(any::<u8>(), 0..16),
            policy in "[a-z0-9-]{1,63}",
            because in proptest::option::of(".{0,300}"),
            by_rule: bool,
            key in "@[a-z-]{1,20}/files\\.deny\\[[0-9]{1,4}\\]",
        ) {
            for op in [Op::Open, Op::Write, Op::Exec, Op::Connect, Op::Sendto, Op::Bind,
                Op::Socket, Op::Egress, Op::Ingress, Op::Syscall, Op::Rename, Op::Unix]
            {
                let hostile =
                    Denial { op, target: target.clone(), comm: comm.clone(), ..samples::denials()[0].clone() };
                let rule = RuleInfo { key: key.clone(), because: because.clone(), ..RuleInfo::default() };
                let text = entry(&hostile, by_rule.then_some(&rule), &policy);
                prop_assert!(text.len() <= MAX_ENTRY, "{} bytes: {text}", text.len());
                prop_assert_eq!(text.lines().count(), 3);
                prop_assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)));
                prop_assert!(!text.contains(['<', '>', '`']));
            }
        }
    }
}
