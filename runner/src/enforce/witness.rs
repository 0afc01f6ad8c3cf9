// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parent's own look at the agent's process, just before the program starts: what the
//! kernel says of it in `/proc`, held against what was prepared. It does not rest on a word of
//! the process itself. See proc_pid_status(5), proc_pid_mountinfo(5), proc_pid_limits(5).

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::fstatvfs;

use super::Prepared;
use super::cgroup::Leaf;
use super::view::PreparedView;
use crate::host::Means;
use crate::plan::{Namespace, Plan, State};
use crate::policy::facts::mounts::unescape;
use crate::sys::{mount, statx};

/// What does not hold: the protection, and what was seen in its place.
pub type Finding = (&'static str, String);

/// What the kernel says of a process.
#[derive(Debug)]
pub struct Witness {
    status: String,
    mounts: String,
    limits: String,
    /// Names of the namespaces that it shares with lp-run.
    shared: Vec<&'static str>,
    /// Whether it is in the agent's cgroup, where the run has one.
    placed: bool,
    /// What the program would hold, and what it leads to.
    descriptors: Vec<(RawFd, String)>,
}

/// Namespaces of a run, as `/proc/PID/ns` names them.
const NAMESPACES: [&str; 5] = ["pid", "mnt", "ipc", "uts", "net"];

impl Witness {
    /// Looks at the process `pid`, which must stand still meanwhile.
    pub fn of(pid: i32, cgroup: Option<&Leaf>) -> io::Result<Self> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let read = |name: &str| {
            let bytes = fs::read(directory.join(name))?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let mut shared = Vec::new();
        for name in NAMESPACES {
            let of = |process: &Path| fs::read_link(process.join("ns").join(name));
            if of(&directory)? == of(Path::new("/proc/self"))? {
                shared.push(name);
            }
        }
        let placed = match cgroup {
            None => true,
            Some(cgroup) => {
                let members = fs::read_to_string(cgroup.path().join("cgroup.procs"))?;
                members.lines().any(|member| member == pid.to_string())
            }
        };
        Ok(Self {
            status: read("status")?,
            mounts: read("mountinfo")?,
            limits: read("limits")?,
            shared,
            placed,
            descriptors: kept_on_exec(&directory)?,
        })
    }

    /// Holds everything against the plan and what was made for it; `keep` are the descriptors
    /// that the program is to have beside the first three. The first thing that does not hold is
    /// the answer.
    pub fn judge(&self, plan: &Plan, prepared: &Prepared, keep: &[RawFd]) -> Result<(), Finding> {
        self.processes(plan)?;
        self.descriptors(keep)?;
        self.identity(prepared)?;
        self.seccomp(plan)?;
        self.network(plan)?;
        self.limits(plan, prepared)?;
        self.view(&prepared.view)
    }

    fn processes(&self, plan: &Plan) -> Result<(), Finding> {
        if plan.state("processes") == Some(State::Degraded) {
            return Ok(());
        }
        let failed = |detail: String| Err(("processes", detail));
        if let Some(name) = NAMESPACES[..4]
            .iter()
            .find(|name| self.shared.contains(name))
        {
            return failed(format!("the program would share lp-run's {name} namespace"));
        }
        // One number for each pid namespace that it is seen in (since lp-run's own).
        if self.status_words("NSpid").len() < 2 {
            return failed("the program has no pid namespace of its own".to_owned());
        }
        if !self.placed {
            return failed("the program is not in the cgroup of its run".to_owned());
        }
        Ok(())
    }

    fn descriptors(&self, keep: &[RawFd]) -> Result<(), Finding> {
        let given = |fd| (0..3).contains(fd) || keep.contains(fd);
        match self.descriptors.iter().find(|(fd, _)| !given(fd)) {
            None => Ok(()),
            Some((fd, target)) => Err((
                "descriptors",
                format!("the program would hold descriptor {fd}, `{target}`"),
            )),
        }
    }

    fn identity(&self, prepared: &Prepared) -> Result<(), Finding> {
        let (uid, gid) = (prepared.identity.uid, prepared.identity.gid);
        let wanted = [
            ("Uid", [uid; 4].map(|id| id.to_string()).to_vec()),
            ("Gid", [gid; 4].map(|id| id.to_string()).to_vec()),
            ("NoNewPrivs", vec!["1".to_owned()]),
        ];
        let none = ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"]
            .map(|set| (set, vec!["0".repeat(16)]));
        // Only a capability narrows the bounding set, and without any nothing in it is gained.
        let sets = match prepared.identity.means {
            Means::Alone => 4,
            Means::Root | Means::UserNamespace => 5,
        };
        let none = none.into_iter().take(sets);
        for (name, words) in wanted.into_iter().chain(none) {
            let seen = self.status_words(name);
            if seen != words {
                let (seen, words) = (seen.join(" "), words.join(" "));
                return Err(("identity", format!("{name} is `{seen}`, not `{words}`")));
            }
        }
        let groups = self.status_words("Groups").len();
        match groups == prepared.identity.groups {
            true => Ok(()),
            false => Err(("identity", format!("it is in {groups} groups"))),
        }
    }

    fn seccomp(&self, plan: &Plan) -> Result<(), Finding> {
        if plan.state("seccomp") == Some(State::Degraded) || self.status_words("Seccomp") == ["2"] {
            return Ok(());
        }
        Err(("seccomp", "the program has no filter".to_owned()))
    }

    fn network(&self, plan: &Plan) -> Result<(), Finding> {
        let own = plan.network.namespace == Namespace::Own;
        if own == self.shared.contains(&"net") {
            let whose = if own { "lp-run's" } else { "another" };
            return Err((
                "network",
                format!("the program has {whose} network namespace"),
            ));
        }
        Ok(())
    }

    fn limits(&self, plan: &Plan, prepared: &Prepared) -> Result<(), Finding> {
        let limits = &plan.policy.limits;
        let wanted = [
            ("Max processes", prepared.rlimits.processes()),
            ("Max open files", limits.open_files),
            ("Max file size", limits.file_size),
            // A size of 1 is never reached, and keeps a piped core pattern from starting.
            ("Max core file size", Some(1)),
        ];
        for (name, most) in wanted {
            let Some(most) = most else { continue };
            let detail = match self.limit(name) {
                Some([soft, hard]) if soft.max(hard) <= most => continue,
                Some([soft, hard]) => format!("{name} is {soft} to {hard}, not at most {most}"),
                None => format!("{name} is not known"),
            };
            return Err(("resource-limits", detail));
        }
        Ok(())
    }

    /// Every mount of the view is where it belongs, with its attributes, and propagates
    /// nothing.
    fn view(&self, view: &PreparedView) -> Result<(), Finding> {
        let Some(root) = &view.root else {
            return Ok(());
        };
        let lines: Vec<MountLine<'_>> = self.mounts.lines().filter_map(MountLine::parse).collect();
        if let Some(line) = lines.iter().find(|line| line.propagates) {
            let place = line.place.escape_ascii();
            return Err(("view", format!("the mount `{place}` is shared with others")));
        }
        seen(&lines, &root.mount, b"/", root.attributes, "`/`")?;
        for item in &view.items {
            let place = [b"/", item.place.as_bytes()].concat();
            match &item.mount {
                Some(mount) => {
                    seen(&lines, mount, &place, item.attributes, &item.name)?;
                    bounded(mount, item.bytes, &item.name)?;
                }
                None => proc(&lines, &place)?,
            }
        }
        Ok(())
    }

    fn status_words(&self, name: &str) -> Vec<&str> {
        let line = self.status.lines().find_map(|line| {
            let (field, words) = line.split_once(':')?;
            (field == name).then_some(words)
        });
        line.unwrap_or_default().split_whitespace().collect()
    }

    /// Soft and hard limit; `None`: no such line.
    fn limit(&self, name: &str) -> Option<[u64; 2]> {
        let line = self
            .limits
            .lines()
            .find_map(|line| line.strip_prefix(name))?;
        let mut words = line.split_whitespace().map(|word| match word {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        });
        Some([words.next()??, words.next()??])
    }
}

/// Descriptors of a process that live through an exec. See proc_pid_fdinfo(5).
fn kept_on_exec(process: &Path) -> io::Result<Vec<(RawFd, String)>> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(process.join("fdinfo"))? {
        let entry = entry?;
        let name = entry.file_name();
        if is_closed_on_exec(&fs::read_to_string(entry.path())?) {
            continue;
        }
        // What cannot be told is one that nobody gave.
        let number = name.to_str().and_then(|name| name.parse().ok());
        let target = fs::read_link(process.join("fd").join(&name))?;
        let target = target.as_os_str().as_bytes().escape_ascii().to_string();
        kept.push((number.unwrap_or(-1), target));
    }
    Ok(kept)
}

/// Whether the flags, in octal digits, say so; without them it is kept.
fn is_closed_on_exec(fdinfo: &str) -> bool {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_CLOEXEC != 0)
}

/// A line of mountinfo.
struct MountLine<'a> {
    id: u64,
    place: Vec<u8>,
    options: Vec<&'a str>,
    propagates: bool,
    filesystem: &'a str,
}

impl<'a> MountLine<'a> {
    /// `36 35 98:0 /root /place rw,noatime master:1 - ext3 /dev/root rw`
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split(' ');
        let id = words.next()?.parse().ok()?;
        let place = unescape(words.nth(3)?.as_bytes());
        let options = words.next()?.split(',').collect();
        let mut propagates = false;
        for tag in words.by_ref().take_while(|word| *word != "-") {
            propagates |= tag.starts_with("shared:") || tag.starts_with("master:");
        }
        let filesystem = words.next()?;
        Some(Self {
            id,
            place,
            options,
            propagates,
            filesystem,
        })
    }

    fn lacks(&self, attributes: u64) -> Option<&'static str> {
        let options = [
            (mount::READ_ONLY, "ro"),
            (mount::NO_SUID, "nosuid"),
            (mount::NO_DEV, "nodev"),
            (mount::NO_EXEC, "noexec"),
        ];
        let missing = |(attribute, option): &(u64, &str)| {
            attributes & attribute != 0 && !self.options.contains(option)
        };
        options.into_iter().find(missing).map(|(_, option)| option)
    }
}

fn seen(
    lines: &[MountLine<'_>],
    mount: &OwnedFd,
    place: &[u8],
    attributes: u64,
    name: &str,
) -> Result<(), Finding> {
    let id = statx::mount_id(mount)
        .map_err(|error| ("view", format!("the mount {name} cannot be read: {error}")))?;
    let Some(line) = lines
        .iter()
        .find(|line| line.id == id && line.place == place)
    else {
        return Err(("view", format!("the mount {name} is not in its place")));
    };
    match line.lacks(attributes) {
        None => Ok(()),
        Some(option) => Err(("view", format!("the mount {name} is not {option}"))),
    }
}

/// The `/proc` of the run.
fn proc(lines: &[MountLine<'_>], place: &[u8]) -> Result<(), Finding> {
    // The last one lies on top.
    let top = lines.iter().rfind(|line| line.place == place);
    let attributes = mount::READ_ONLY | mount::NO_SUID | mount::NO_DEV | mount::NO_EXEC;
    match top {
        Some(line) if line.filesystem == "proc" && line.lacks(attributes).is_none() => Ok(()),
        _ => Err(("view", "the run's own /proc is not in its place".to_owned())),
    }
}

/// A tmpfs of the run's own holds no more than it may.
fn bounded(mount: impl AsFd, bytes: Option<u64>, name: &str) -> Result<(), Finding> {
    let Some(bytes) = bytes else { return Ok(()) };
    let failed = |detail| ("resource-limits", detail);
    let of = fstatvfs(mount)
        .map_err(|errno| failed(format!("the size of {name} cannot be read: {errno}")))?;
    // The kernel rounds up to whole pages.
    let page = of.block_size();
    let room = of.blocks() * of.fragment_size();
    if room == 0 || room > bytes.div_ceil(page) * page {
        return Err(failed(format!(
            "{name} has room for {room} bytes, not {bytes}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(status: &str, limits: &str) -> Witness {
        Witness {
            status: status.to_owned(),
            mounts: String::new(),
            limits: limits.to_owned(),
            shared: Vec::new(),
            placed: true,
            descriptors: vec![(0, "/dev/null".to_owned()), (7, "/a".to_owned())],
        }
    }

    #[test]
    fn a_descriptor_that_nobody_gave_is_found_and_named() {
        let witness = witness("", "");
        assert_eq!(witness.descriptors(&[7]), Ok(()));
        let (protection, detail) = witness.descriptors(&[8]).unwrap_err();
        assert_eq!(protection, "descriptors");
        assert!(detail.contains("descriptor 7, `/a`"), "{detail}");
    }

    #[test]
    fn what_says_nothing_of_close_on_exec_is_kept() {
        assert!(is_closed_on_exec("pos:\t0\nflags:\t02100002\nmnt_id:\t9\n"));
        for text in ["pos:\t0\nflags:\t0100002\n", "", "flags:\tmany\n"] {
            assert!(!is_closed_on_exec(text), "{text}");
        }
        let own = kept_on_exec(Path::new("/proc/self")).unwrap();
        assert!(own.iter().any(|(fd, _)| *fd == 2), "{own:?}");
    }

    #[test]
    fn status_and_limits_are_read_by_their_names() {
        let status = "Name:\ta\nGroups:\t \nUid:\t7\t7\t7\t7\nNSpid:\t90\t2\n";
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            64                   128                  files\n\
                      Max file size             unlimited            unlimited            bytes\n";
        let witness = witness(status, limits);
        assert_eq!(witness.status_words("Uid"), ["7"; 4]);
        assert_eq!(witness.status_words("NSpid"), ["90", "2"]);
        assert!(witness.status_words("Groups").is_empty());
        assert!(witness.status_words("Seccomp").is_empty());
        assert_eq!(witness.limit("Max open files"), Some([64, 128]));
        assert_eq!(witness.limit("Max file size"), Some([u64::MAX; 2]));
        assert_eq!(witness.limit("Max locked memory"), None);
    }

    #[test]
    fn a_mount_is_known_by_its_number_place_and_attributes() {
        let line = "36 35 98:0 /mnt1 /a\\040b\\134 ro,nosuid,noatime - ext3 /dev/root rw";
        let line = MountLine::parse(line).unwrap();
        assert_eq!((line.id, line.place.as_slice()), (36, &b"/a b\\"[..]));
        assert!(!line.propagates);
        assert_eq!(line.filesystem, "ext3");
        assert_eq!(line.lacks(mount::READ_ONLY | mount::NO_SUID), None);
        assert_eq!(
            line.lacks(mount::READ_ONLY | mount::NO_EXEC),
            Some("noexec")
        );
        let shared = "36 35 98:0 / /a rw,relatime shared:4 master:1 - tmpfs tmpfs rw";
        assert!(MountLine::parse(shared).unwrap().propagates);
        assert!(MountLine::parse("").is_none());
    }
}
