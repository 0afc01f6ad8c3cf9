// SPDX-License-Identifier: MIT OR Apache-2.0
//! Grants that would hand over more than a task: what no policy may have written to, and what
//! needs a reason that only root's policy can give.

use std::path::{Path, PathBuf};

use super::super::error::quote;
use super::super::facts::{Object, mounts};
use super::Resolver;
use super::kept::{CACHE, STATE};

/// lp-run's own: settings, running state, kept state.
const OURS: [&str; 4] = ["/etc/lp-run", "/run/lp-run", "/var/lib/lp-run", CACHE];
/// Who writes here changes what root, the kernel or somebody else's login does next.
const SYSTEM: [&str; 30] = [
    "/etc",
    "/proc",
    "/sys",
    "/boot",
    "/efi",
    "/dev",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix",
    "/run/systemd",
    "/run/udev",
    "/run/dbus",
    "/var/spool/cron",
    "/var/spool/at",
    "/var/spool/anacron",
    "/var/lib/apt",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/dpkg",
    "/var/lib/kubelet",
    "/var/lib/pam",
    "/var/lib/rpm",
    "/var/lib/snapd",
    "/var/lib/systemd",
];
/// The same, in every home: keys that let in, and what a login runs.
const IN_A_HOME: [&str; 11] = [
    ".ssh",
    ".config/systemd",
    ".config/autostart",
    ".config/lp-run",
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".profile",
    ".zshenv",
    ".zprofile",
    ".zshrc",
];
/// File systems through which the kernel is set up.
const KERNEL: [&str; 11] = [
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "bpf",
    "debugfs",
    "tracefs",
    "securityfs",
    "configfs",
    "efivarfs",
    "pstore",
];
/// Sockets whose owner does what it is told, as root.
const ROOT_SOCKETS: [&str; 17] = [
    "/run/docker.sock",
    "/run/docker",
    "/run/containerd",
    "/run/podman",
    "/run/crio",
    "/run/buildkit",
    "/run/k3s",
    "/run/systemd",
    "/run/dbus",
    "/run/libvirt",
    "/run/snapd.socket",
    "/run/snapd-snap.socket",
    "/run/udev",
    "/run/lp-run",
    "/var/lib/lxd",
    "/var/lib/incus",
    "/run/polkit",
];
/// The same by name, wherever the socket stands.
const ROOT_NAMES: [&str; 5] = [
    "docker.sock",
    "containerd.sock",
    "podman.sock",
    "crio.sock",
    "system_bus_socket",
];

/// What is to be said about a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// Refused unless the rule gives a reason.
    Dangerous(String),
    /// Refused.
    Never(String),
}

impl Resolver<'_> {
    /// Judges a write grant on `path`; `object` is it, or the parent below which it is made.
    /// What it is called elsewhere counts as much: a bind mount gives a directory a second name.
    pub(super) fn judge_write(&self, path: &Path, object: &Object) -> Verdict {
        let mut worst = self.judge_named(path, object);
        for name in mounts::other_names(&self.mounts, object, path) {
            let verdict = self.judge_named(&name, object);
            worst = match (&worst, &verdict) {
                (Verdict::Never(_), _) | (_, Verdict::Fine) => worst,
                (Verdict::Dangerous(_), Verdict::Dangerous(_)) => worst,
                _ => verdict,
            };
        }
        worst
    }

    /// Judges a Unix socket, by each of its names.
    pub(super) fn judge_socket(&self, socket: &Object) -> Verdict {
        let others = mounts::other_names(&self.mounts, socket, &socket.path);
        let shown = quote(&socket.path.to_string_lossy());
        let what = "is root in disguise; use a narrower service, or add dangerous = \"reason\"";
        match root_in_disguise(&socket.path) || others.iter().any(|name| root_in_disguise(name)) {
            true => Verdict::Dangerous(format!("{shown} {what}")),
            false => Verdict::Fine,
        }
    }

    fn judge_named(&self, path: &Path, object: &Object) -> Verdict {
        let shown = quote(&path.to_string_lossy());
        if path == Path::new("/") {
            return Verdict::Never(
                "is everything; write the directory that the task needs".to_owned(),
            );
        }
        if let Some(home) = self.whole_home(path) {
            let what = format!(
                "{shown} covers the home {}; write a directory inside it",
                quote(&home.to_string_lossy())
            );
            return Verdict::Never(what);
        }
        let kept = [STATE, CACHE].map(|base| self.kept(base));
        let own = !self.name.is_empty() && kept.iter().any(|kept| path.starts_with(kept));
        let mine = self.facts.own_places().into_iter();
        let mine = mine.flat_map(|places| places.closed.into_iter().chain(places.kept));
        let mut ours = OURS.iter().map(PathBuf::from).chain(mine);
        if !own && ours.any(|ours| overlap(path, &ours)) {
            let what = format!("{shown} holds lp-run's own state; write another directory");
            return Verdict::Never(what);
        }
        let files = self
            .layers
            .iter()
            .filter_map(|layer| layer.source.path.as_deref());
        if let Some(policy) = files.into_iter().find(|file| file.starts_with(path)) {
            let what = format!(
                "{shown} holds the policy {}, which its agent could change; move the policy",
                quote(&policy.to_string_lossy())
            );
            return Verdict::Never(what);
        }
        self.judge_system(path, object, &shown)
    }

    fn judge_system(&self, path: &Path, object: &Object, shown: &str) -> Verdict {
        const INSTEAD: &str = "write another place, or add dangerous = \"reason\"";
        if KERNEL.contains(&object.filesystem.as_str()) {
            let what = format!("{shown} is a {} file system; {INSTEAD}", object.filesystem);
            return Verdict::Dangerous(what);
        }
        if self.facts.own_program().starts_with(path) {
            return Verdict::Dangerous(format!("{shown} holds lp-run itself; {INSTEAD}"));
        }
        if let Some(login) = self.of_a_login(path, object) {
            let what = format!(
                "{shown} reaches {}, which decides what a login does; {INSTEAD}",
                quote(&login.to_string_lossy())
            );
            return Verdict::Dangerous(what);
        }
        if let Some(system) = self.system_directory(path, object) {
            let what = format!("{shown} belongs to the system ({system}); {INSTEAD}");
            return Verdict::Dangerous(what);
        }
        Verdict::Fine
    }

    /// The system directory that the path lies in or holds, by name or, behind a bind mount,
    /// by inode.
    fn system_directory(&self, path: &Path, object: &Object) -> Option<&'static str> {
        system(path).or_else(|| {
            let above = object
                .ancestors
                .iter()
                .skip(1)
                .map(|above| (above.dev, above.ino));
            let passed: Vec<_> = above.chain([(object.dev, object.ino)]).collect();
            SYSTEM.into_iter().find(|system| {
                let known = self.facts.open(Path::new(system), &[]);
                known.is_ok_and(|known| passed.contains(&(known.dev, known.ino)))
            })
        })
    }

    /// What of a home only its owner should write, also in that of the owner of the object.
    fn of_a_login(&self, path: &Path, object: &Object) -> Option<PathBuf> {
        let owner = self.facts.user_by_uid(object.uid).map(|user| user.home);
        login(
            [Some(self.caller.home.clone()), owner]
                .into_iter()
                .flatten(),
            path,
        )
    }

    /// A home that `path` covers as a whole.
    fn whole_home(&self, path: &Path) -> Option<PathBuf> {
        let homes = [self.caller.home.clone(), PathBuf::from("/root")];
        let known = homes
            .into_iter()
            .find(|home| home != Path::new("/") && home.starts_with(path));
        known.or_else(|| {
            let below_home =
                path == Path::new("/home") || path.parent() == Some(Path::new("/home"));
            (below_home && !path.starts_with(&self.home)).then(|| path.to_owned())
        })
    }
}

/// Whether a socket of this name does what it is told, as root.
fn root_in_disguise(socket: &Path) -> bool {
    let name = socket.file_name().unwrap_or_default();
    ROOT_SOCKETS.iter().any(|place| socket.starts_with(place))
        || ROOT_NAMES.iter().any(|known| name == *known)
}

/// What of a home only its owner should write and `path` reaches: in `homes`, in root's, and in
/// every one below `/home`.
pub(crate) fn login(homes: impl Iterator<Item = PathBuf>, path: &Path) -> Option<PathBuf> {
    let named = path.strip_prefix("/home").ok();
    let named = named.and_then(|below| below.components().next());
    homes
        .chain([PathBuf::from("/root")])
        .chain(named.map(|name| Path::new("/home").join(name)))
        .filter(|home| home != Path::new("/"))
        .flat_map(|home| IN_A_HOME.map(|inside| home.join(inside)))
        .find(|place| overlap(path, place))
}

/// The system directory that a path lies in or holds by its name.
pub(crate) fn system(path: &Path) -> Option<&'static str> {
    SYSTEM
        .into_iter()
        .find(|system| overlap(path, Path::new(system)))
}

fn overlap(left: &Path, right: &Path) -> bool {
    left.starts_with(right) || right.starts_with(left)
}
