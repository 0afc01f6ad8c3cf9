// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a failed open or exec means. The kernel says only which path was typed and which errno
//! came back; whether the policy refused, the file's own permissions did, or the file simply
//! is not there, follows from the plan.

use std::path::{Component, Path, PathBuf};

use super::sight::{Sight, Step};
use crate::plan::{Anchor, Mask, Plan, Row, Source, Taken};
use crate::policy::model::{Target, Verb, ViewChoice};
use crate::record::event::Op;

/// Most symbolic links that are followed, as in the kernel (path_resolution(7)).
const MAX_LINKS: u32 = 40;
/// Most names that are looked at for one path, so that an agent cannot keep lp-run busy.
const MAX_NAMES: u32 = 256;

/// A failed act.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// What was tried.
    pub op: Op,
    /// Positive errno.
    pub errno: u32,
    /// Absolute, as typed.
    pub path: &'a Path,
}

/// What a failed act is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Not the policy's doing.
    Nothing,
    /// Not the policy's doing as things are. The same words can mean something else next time:
    /// the agent may change a directory on the way.
    NotNow {
        /// It led over a symbolic link that the agent may change.
        linked: bool,
    },
    /// A denial.
    Denied(Verdict),
    /// The path is longer than anybody should have to follow, or led where nobody but the agent
    /// or a server can.
    Unknown,
}

/// A failed act that is a denial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The rule that took the right away; `None`: no rule gives it.
    pub row: Option<Row>,
    /// It exists on the host and the private view hides it.
    pub hidden: bool,
}

/// What the plan says about paths.
#[derive(Clone, Debug)]
pub struct Tree<'a> {
    anchors: &'a [Anchor],
    masks: &'a [Mask],
    /// What `deny` names: outside of every grant there is no mask for it.
    denied: Vec<(&'a Path, Row)>,
    taken: &'a [Taken],
    links: &'a [(PathBuf, PathBuf)],
    /// Where the agent may write because the place is the run's own.
    writable: Vec<&'a Path>,
    /// Other places and files of the run's own.
    own: Vec<&'a Path>,
    /// What is mounted below a grant and not granted with it.
    covers: Vec<&'a Path>,
    private: bool,
}

impl<'a> Tree<'a> {
    /// The plan's.
    pub fn of(plan: &'a Plan) -> Self {
        let mounts = plan.view.mounts.iter().filter(|mount| mount.row.is_none());
        let (writable, own): (Vec<_>, Vec<_>) = mounts.partition(|mount| {
            matches!(mount.source, Source::Tmpfs { .. } | Source::Disk { .. }) && !mount.read_only
        });
        let files = plan.view.files.iter().map(|file| file.0.as_path());
        Self {
            anchors: &plan.anchors,
            masks: &plan.view.masks,
            denied: plan
                .policy
                .files
                .iter()
                .zip(0..)
                .filter(|(rule, _)| rule.verb == Verb::Deny)
                .flat_map(|(rule, row)| rule.targets.iter().map(move |target| (target, row)))
                .filter_map(|(target, row)| match target {
                    Target::Object(object) => Some((object.path.as_path(), row)),
                    Target::Missing(path) => Some((path.as_path(), row)),
                    _ => None,
                })
                .collect(),
            taken: &plan.taken,
            links: &plan.view.links,
            writable: writable
                .into_iter()
                .map(|mount| mount.at.as_path())
                .collect(),
            own: own
                .into_iter()
                .map(|mount| mount.at.as_path())
                .chain(files)
                .collect(),
            covers: plan
                .view
                .mounts
                .iter()
                .filter(|mount| matches!(mount.source, Source::Cover))
                .map(|mount| mount.at.as_path())
                .collect(),
            private: plan.view.kind == ViewChoice::Private,
        }
    }

    /// Nothing but anchors, in a private view.
    #[cfg(test)]
    pub fn for_tests(anchors: &'a [Anchor]) -> Self {
        Self {
            anchors,
            masks: &[],
            denied: Vec::new(),
            taken: &[],
            links: &[],
            writable: Vec::new(),
            own: Vec::new(),
            covers: Vec::new(),
            private: true,
        }
    }

    /// The nearest anchor that covers `path`.
    fn anchor(&self, path: &Path) -> Option<&'a Anchor> {
        let above = self
            .anchors
            .iter()
            .filter(|anchor| covers(&anchor.path, anchor.directory, path))
            .filter(|anchor| !self.covered(path, &anchor.path));
        above.max_by_key(|anchor| anchor.path.components().count())
    }

    /// Whether `path` is or lies below a cover that stands in the tree at `top`.
    fn covered(&self, path: &Path, top: &Path) -> bool {
        let mut covers = self.covers.iter().filter(|cover| cover.starts_with(top));
        covers.any(|cover| path.starts_with(cover))
    }

    /// Whether the agent may change names in `directory`.
    fn changes(&self, directory: &Path) -> bool {
        let within = |places: &[&Path]| places.iter().any(|place| directory.starts_with(place));
        match self.anchor(directory) {
            Some(anchor) => anchor.rights.write,
            None => within(&self.writable),
        }
    }

    /// The path without `.`, `..` and symbolic links, those of the plan and those that `sight`
    /// finds in the view. What is no longer there stays as it was typed. `None` for one with too
    /// many names.
    fn resolve<S: Sight>(&self, path: &Path, sight: &S) -> Option<Way> {
        let (mut left, mut names) = (MAX_LINKS, MAX_NAMES);
        let mut rest: Vec<PathBuf> = vec![path.to_owned()];
        let mut way = Way::default();
        // Those of the root and of each name of the way; none where nothing is seen.
        let mut places = vec![sight.root()];
        while let Some(next) = rest.pop() {
            let mut components = next.components();
            let Some(component) = components.next() else {
                continue;
            };
            rest.push(components.as_path().to_owned());
            let name = match component {
                Component::RootDir => {
                    way.path = PathBuf::from("/");
                    places.truncate(1);
                    continue;
                }
                Component::ParentDir => {
                    if way.path.pop() {
                        places.pop();
                    }
                    continue;
                }
                Component::Normal(name) => name,
                Component::CurDir | Component::Prefix(_) => continue,
            };
            names = names.checked_sub(1)?;
            let changes = self.changes(&way.path);
            way.changes |= changes;
            way.path.push(name);
            let planned = self.links.iter().find(|link| link.0 == way.path);
            let place = places.last().and_then(Option::as_ref);
            let step = match (planned, place) {
                _ if is_a_root(&way.path) => Step::Link("/".into()),
                (Some((_, target)), _) => Step::Link(target.clone()),
                (None, Some(place)) => sight.step(place, name),
                (None, None) => Step::Missing,
            };
            let target = match step {
                Step::Link(target) if left > 0 => target,
                step => {
                    let ends = rest.iter().all(|rest| rest.as_os_str().is_empty());
                    way.unsure |= matches!(step, Step::Unknown | Step::Link(_))
                        || (!ends && is_magic(&way.path));
                    places.push(match step {
                        Step::Place(place) => Some(place),
                        _ => None,
                    });
                    continue;
                }
            };
            left -= 1;
            way.linked |= changes;
            way.path.pop();
            rest.push(target);
        }
        Some(way)
    }
}

/// Where a typed path leads.
#[derive(Debug)]
struct Way {
    /// Without links.
    path: PathBuf,
    /// It may be another in truth: not every link could be read.
    unsure: bool,
    /// It led through a directory that the agent may change.
    changes: bool,
    /// It led over a link that the agent may change.
    linked: bool,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/"),
            unsure: false,
            changes: false,
            linked: false,
        }
    }
}

/// The names behind `/proc/PID` or `/proc/PID/task/TID`.
fn of_a_process(path: &Path) -> Option<Vec<&str>> {
    let names: Option<Vec<_>> = path.iter().skip(1).map(|name| name.to_str()).collect();
    match names?.as_slice() {
        ["proc", _, "task", _, names @ ..] | ["proc", _, names @ ..] => Some(names.to_vec()),
        _ => None,
    }
}

/// Whether this is `/proc/PID/root` or the like. Every process of a run has the same root, and
/// the one that asked may be gone.
fn is_a_root(path: &Path) -> bool {
    of_a_process(path).is_some_and(|names| names == ["root"])
}

/// Whether this leads to what a process holds (proc_pid_cwd(5), proc_pid_fd(5)). Where that is
/// nobody else can tell later.
fn is_magic(path: &Path) -> bool {
    of_a_process(path).is_some_and(|names| {
        matches!(
            names.as_slice(),
            ["cwd" | "exe"] | ["fd" | "map_files" | "ns", _]
        )
    })
}

/// What run-times look at to find out how large the machine is, and libraries for settings that
/// need not exist. They do without, the view hides it, and a run that did nothing wrong has no
/// denial: reading there is ordinary probing.
const PROBED: [&str; 4] = [
    "/sys/fs/cgroup",
    "/sys/devices/system",
    "/sys/kernel/mm",
    "/etc/magic",
];

/// What a failed act means. The host is asked for a path only where the private view did not
/// have it and no grant covers it.
pub fn classify<S: Sight>(attempt: &Attempt<'_>, tree: &Tree<'_>, sight: &S) -> Meaning {
    let Some(way) = tree.resolve(attempt.path, sight) else {
        return Meaning::Unknown;
    };
    match judge(attempt, &way.path, tree, sight) {
        Some(verdict) => Meaning::Denied(verdict),
        None if way.unsure => Meaning::Unknown,
        None if way.changes => Meaning::NotNow { linked: way.linked },
        None => Meaning::Nothing,
    }
}

/// Whether an act on `path`, which has no link in it, was denied.
fn judge(
    attempt: &Attempt<'_>,
    path: &Path,
    tree: &Tree<'_>,
    sight: &impl Sight,
) -> Option<Verdict> {
    let absent = attempt.errno == libc::ENOENT.cast_unsigned();
    let by = |row| Some(Verdict { row, hidden: false });
    let mask = tree
        .masks
        .iter()
        .find(|mask| covers(&mask.path, mask.directory, path));
    if let Some(mask) = mask {
        // `protect` leaves reading: then the file's own permissions refused.
        let taken = if mask.read_stays {
            attempt.op == Op::Write && !absent
        } else {
            true
        };
        return if taken { by(Some(mask.row)) } else { None };
    }
    let taken = tree
        .taken
        .iter()
        .find(|taken| (taken.read || attempt.op == Op::Write) && taken.covers(path, tree.anchors));
    if let Some(taken) = taken.filter(|_| !absent) {
        return by(Some(taken.row));
    }
    if let Some(anchor) = tree.anchor(path) {
        let granted = match attempt.op {
            Op::Write => anchor.rights.write,
            Op::Exec => anchor.rights.exec,
            _ => anchor.rights.read || anchor.rights.exec,
        };
        // What is granted and failed was refused by the file's own permissions.
        return if granted || absent { None } else { by(None) };
    }
    let within = |places: &[&Path]| places.iter().any(|place| path.starts_with(place));
    let covered = tree.covered(path, Path::new("/"));
    if !covered && (within(&tree.writable) || within(&tree.own)) {
        let refused = match attempt.op {
            // Nothing is ever executed in the run's own places.
            Op::Exec => true,
            Op::Write => !within(&tree.writable),
            _ => false,
        };
        return if refused && !absent { by(None) } else { None };
    }
    let named = tree.denied.iter().find(|named| path.starts_with(named.0));
    let row = named.map(|named| named.1);
    if !absent {
        return by(row);
    }
    if attempt.op == Op::Open && within(&PROBED.map(Path::new)) {
        return None;
    }
    let parent = path.parent().filter(|_| attempt.op == Op::Write);
    let there = (tree.private || covered)
        && (sight.on_host(path)
            || parent.is_some_and(|parent| is_outside(tree, parent) && sight.on_host(parent)));
    there.then_some(Verdict { row, hidden: true })
}

/// Whether a directory that a file was to be created in is hidden from the agent. The parents
/// of what is granted are there for it, read-only, and would have answered with another errno.
fn is_outside(tree: &Tree<'_>, directory: &Path) -> bool {
    !tree
        .anchors
        .iter()
        .any(|anchor| anchor.path.starts_with(directory))
}

/// Whether `place` covers `path`: itself, or a directory above it.
fn covers(place: &Path, directory: bool, path: &Path) -> bool {
    if directory {
        path.starts_with(place)
    } else {
        path == place
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::plan::{Owners, Rights};
    use crate::policy::facts::{Kind, Object};

    #[test]
    fn below_a_cover_the_host_has_what_the_agent_does_not_see() {
        let kb = ["/srv/kb/nfs/a", "/srv/kb/b"];
        let hidden = ask(true, Op::Open, "/srv/kb/nfs/a", ENOENT, &kb);
        assert!(hidden.unwrap().hidden);
        assert!(
            ask(false, Op::Open, "/srv/kb/nfs/a", ENOENT, &kb)
                .unwrap()
                .hidden
        );
        assert_eq!(ask(true, Op::Open, "/srv/kb/nfs/none", ENOENT, &kb), None);
        assert_eq!(ask(true, Op::Open, "/srv/kb/b", ENOENT, &kb), None);
        assert!(ask(true, Op::Write, "/srv/kb/nfs/new", EROFS, &kb).is_some());
    }

    const EPERM: u32 = libc::EPERM as u32;
    const ENOENT: u32 = libc::ENOENT as u32;
    const EACCES: u32 = libc::EACCES as u32;
    const EROFS: u32 = libc::EROFS as u32;

    fn anchor(path: &str, directory: bool, rights: &str) -> Anchor {
        Anchor {
            object: None,
            path: path.into(),
            directory,
            rights: Rights {
                read: rights.contains('r'),
                write: rights.contains('w'),
                exec: rights.contains('x'),
            },
            owners: Owners::default(),
        }
    }

    fn mask(path: &str, read_stays: bool, row: Row) -> Mask {
        let object = Object {
            fd: None,
            path: path.into(),
            links: vec![],
            kind: Kind::File,
            uid: 0,
            gid: 0,
            mode: 0o644,
            nlink: 1,
            dev: 0,
            ino: 0,
            mount: 1,
            filesystem: String::new(),
            ancestors: vec![],
        };
        Mask {
            idmap: None,
            path: path.into(),
            directory: false,
            read_stays,
            object,
            row,
        }
    }

    fn ask(private: bool, op: Op, path: &str, errno: u32, host: &[&str]) -> Option<Verdict> {
        match meaning(private, op, path, errno, host) {
            Meaning::Nothing | Meaning::NotNow { .. } => None,
            Meaning::Denied(verdict) => Some(verdict),
            Meaning::Unknown => panic!("{path} is not followed"),
        }
    }

    /// Reads `/srv/kb`, runs `/usr/bin/tool`, writes `/work/out`, takes `/srv/kb/secret` away.
    fn meaning(private: bool, op: Op, path: &str, errno: u32, host: &[&str]) -> Meaning {
        let anchors = [
            anchor("/srv/kb", true, "r"),
            anchor("/usr/bin/tool", false, "rx"),
            anchor("/usr/lib", true, "r"),
            anchor("/work/out", true, "rw"),
        ];
        let masks = [
            mask("/srv/kb/secret", false, 7),
            mask("/work/out/config", true, 8),
        ];
        let links = [
            ("/lib".into(), "usr/lib".into()),
            ("/loop".into(), "/loop".into()),
        ];
        let tree = Tree {
            anchors: &anchors,
            masks: &masks,
            denied: vec![(Path::new("/root/.cache"), 9)],
            taken: &[],
            links: &links,
            writable: vec![Path::new("/tmp")],
            own: vec![Path::new("/proc"), Path::new("/etc/passwd")],
            covers: vec![Path::new("/srv/kb/nfs")],
            private,
        };
        let attempt = Attempt {
            op,
            errno,
            path: Path::new(path),
        };
        classify(&attempt, &tree, &Fake(host))
    }

    /// A host with these paths; the agent made links in `/work/out`, and a server answers for
    /// `/srv/kb/server`.
    struct Fake<'a>(&'a [&'a str]);

    impl Sight for Fake<'_> {
        type Place = PathBuf;

        fn on_host(&self, path: &Path) -> bool {
            self.0.iter().any(|known| Path::new(known) == path)
        }

        fn root(&self) -> Option<PathBuf> {
            Some("/".into())
        }

        fn step(&self, place: &PathBuf, name: &OsStr) -> Step<PathBuf> {
            let path = place.join(name);
            match path.to_str() {
                Some("/work/out/key") => Step::Link("../../etc/shadow".into()),
                Some("/work/out/etc") => Step::Link("/etc".into()),
                Some("/work/out/tool") => Step::Link("/usr/bin/tool".into()),
                Some("/work/out/long") => Step::Link("./a/".repeat(200).into()),
                Some("/work/out/held") => Step::Link("/proc/self/fd/5".into()),
                Some("/work/out/none") => Step::Link("/nowhere".into()),
                Some("/srv/kb/server/x") => Step::Unknown,
                _ => Step::Place(path),
            }
        }
    }

    #[test]
    fn a_link_that_the_agent_made_leads_to_what_it_tried() {
        for path in ["/work/out/key", "/work/out/etc/shadow"] {
            assert_eq!(
                ask(true, Op::Open, path, ENOENT, &["/etc/shadow"]),
                HIDDEN,
                "{path}"
            );
            assert_eq!(ask(true, Op::Open, path, ENOENT, &[]), None, "{path}");
        }
        assert_eq!(
            ask(true, Op::Write, "/work/out/tool", EROFS, &[]),
            denied(None)
        );
    }

    #[test]
    fn what_takes_too_long_to_follow_is_not_known() {
        let path = "/work/out/long/".to_owned() + &"x/".repeat(100);
        let attempt = Attempt {
            op: Op::Open,
            errno: ENOENT,
            path: Path::new(&path),
        };
        let anchors = [anchor("/work/out", true, "rw")];
        let tree = Tree::for_tests(&anchors);
        assert_eq!(classify(&attempt, &tree, &Fake(&[])), Meaning::Unknown);
    }

    #[test]
    fn what_a_process_holds_and_what_a_server_answers_for_is_not_known() {
        for path in [
            "/proc/self/cwd/srv/d/secret",
            "/proc/7/task/8/cwd/../..",
            "/proc/self/fd/5/../srv/d/secret",
            "/proc/thread-self/fd/5/secret",
            "/work/out/held/../srv/d/secret",
            "/proc/self/root/proc/self/exe/../secret",
            "/srv/kb/server/x",
        ] {
            let found = meaning(true, Op::Open, path, ENOENT, &[]);
            assert_eq!(found, Meaning::Unknown, "{path}");
        }
        for path in ["/proc/self/fd/5", "/proc/self/fdinfo/5", "/proc/cwd/x"] {
            let found = meaning(true, Op::Open, path, ENOENT, &[]);
            assert_eq!(found, Meaning::Nothing, "{path}");
        }
        for process in ["self", "thread-self", "7", "7/task/8"] {
            let path = format!("/proc/{process}/root/etc/shadow");
            assert_eq!(
                ask(true, Op::Open, &path, ENOENT, &["/etc/shadow"]),
                HIDDEN,
                "{process}"
            );
        }
        // A refusal stays one.
        assert_eq!(
            ask(true, Op::Write, "/proc/self/cwd/x", EROFS, &[]),
            denied(None)
        );
    }

    #[test]
    fn what_the_agent_can_change_means_nothing_only_for_now() {
        let found = |path: &str| meaning(true, Op::Open, path, ENOENT, &[]);
        for path in ["/work/out/x", "/tmp/d/x", "/srv/../work/out/x"] {
            assert_eq!(found(path), Meaning::NotNow { linked: false }, "{path}");
        }
        for path in ["/work/out/none", "/work/out/tool/x", "/work/out/etc/x"] {
            assert_eq!(found(path), Meaning::NotNow { linked: true }, "{path}");
        }
        for path in ["/srv/kb/x", "/lib/x", "/nowhere", "/work/out"] {
            assert_eq!(found(path), Meaning::Nothing, "{path}");
        }
    }

    fn denied(row: Option<Row>) -> Option<Verdict> {
        Some(Verdict { row, hidden: false })
    }

    const HIDDEN: Option<Verdict> = Some(Verdict {
        row: None,
        hidden: true,
    });

    #[test]
    fn what_exists_on_the_host_and_not_in_the_view_is_hidden() {
        assert_eq!(
            ask(true, Op::Open, "/etc/shadow", ENOENT, &["/etc/shadow"]),
            HIDDEN
        );
        assert_eq!(
            ask(true, Op::Exec, "/usr/bin/curl", ENOENT, &["/usr/bin/curl"]),
            HIDDEN
        );
        assert_eq!(
            ask(true, Op::Open, "/srv/kb/../db", ENOENT, &["/srv/db"]),
            HIDDEN
        );
    }

    #[test]
    fn what_a_rule_denies_outside_of_every_grant_is_that_rules() {
        let path = "/root/.cache/x";
        assert_eq!(ask(true, Op::Write, path, EROFS, &[]), denied(Some(9)));
        let hidden = ask(true, Op::Open, path, ENOENT, &[path]).unwrap();
        assert_eq!((hidden.row, hidden.hidden), (Some(9), true));
        assert_eq!(ask(true, Op::Open, path, ENOENT, &[]), None);
        assert_eq!(ask(true, Op::Open, "/root/x", ENOENT, &["/root/x"]), HIDDEN);
    }

    #[test]
    fn looking_how_large_the_machine_is_is_ordinary_and_changing_it_is_not() {
        let size = "/sys/fs/cgroup/memory.max";
        assert_eq!(ask(true, Op::Open, size, ENOENT, &[size]), None);
        assert_eq!(ask(true, Op::Write, size, ENOENT, &[size]), HIDDEN);
        let beside = "/sys/firmware/acpi/tables/DSDT";
        assert_eq!(ask(true, Op::Open, beside, ENOENT, &[beside]), HIDDEN);
    }

    #[test]
    fn what_exists_nowhere_is_nothing() {
        assert_eq!(ask(true, Op::Open, "/etc/ld.so.preload", ENOENT, &[]), None);
        assert_eq!(
            ask(true, Op::Open, "/srv/kb/no", ENOENT, &["/srv/kb/no"]),
            None
        );
        assert_eq!(
            ask(false, Op::Open, "/etc/shadow", ENOENT, &["/etc/shadow"]),
            None
        );
    }

    #[test]
    fn a_file_created_in_a_hidden_directory_is_hidden() {
        assert_eq!(
            ask(true, Op::Write, "/etc/cron.d/x", ENOENT, &["/etc/cron.d"]),
            HIDDEN
        );
        assert_eq!(ask(true, Op::Write, "/opt/none/x", ENOENT, &["/opt"]), None);
        assert_eq!(ask(true, Op::Write, "/srv/x", ENOENT, &["/srv"]), None);
    }

    #[test]
    fn a_missing_right_inside_a_grant_is_a_denial_without_a_rule() {
        assert_eq!(
            ask(true, Op::Write, "/srv/kb/page", EROFS, &[]),
            denied(None)
        );
        assert_eq!(
            ask(true, Op::Exec, "/srv/kb/page", EACCES, &[]),
            denied(None)
        );
        assert_eq!(
            ask(true, Op::Exec, "/work/out/a.out", EACCES, &[]),
            denied(None)
        );
        assert_eq!(ask(true, Op::Write, "/lib/x.so", EROFS, &[]), denied(None));
    }

    #[test]
    fn the_files_own_permissions_are_no_denial() {
        assert_eq!(ask(true, Op::Open, "/srv/kb/page", EACCES, &[]), None);
        assert_eq!(
            ask(true, Op::Write, "/work/out/readonly", EACCES, &[]),
            None
        );
        assert_eq!(ask(true, Op::Open, "/lib/private", EACCES, &[]), None);
        assert_eq!(ask(true, Op::Exec, "/usr/bin/tool", EACCES, &[]), None);
    }

    #[test]
    fn what_was_taken_away_names_its_rule() {
        assert_eq!(
            ask(true, Op::Open, "/srv/kb/secret", EACCES, &[]),
            denied(Some(7))
        );
        assert_eq!(
            ask(true, Op::Open, "/srv/kb/./a/../secret", EACCES, &[]),
            denied(Some(7))
        );
        assert_eq!(
            ask(true, Op::Write, "/work/out/config", EROFS, &[]),
            denied(Some(8))
        );
        assert_eq!(ask(true, Op::Open, "/work/out/config", EACCES, &[]), None);
        assert_eq!(ask(true, Op::Open, "/srv/kb/secret2", EACCES, &[]), None);
    }

    #[test]
    fn outside_every_grant_a_refusal_is_a_denial() {
        assert_eq!(
            ask(false, Op::Open, "/etc/shadow", EACCES, &[]),
            denied(None)
        );
        assert_eq!(ask(true, Op::Write, "/new", EROFS, &[]), denied(None));
        assert_eq!(ask(true, Op::Open, "/loop/x", EPERM, &[]), denied(None));
    }

    #[test]
    fn the_runs_own_places_refuse_only_what_nothing_could_grant() {
        assert_eq!(ask(true, Op::Open, "/tmp/x", EACCES, &[]), None);
        assert_eq!(ask(true, Op::Write, "/tmp/x", EACCES, &[]), None);
        assert_eq!(ask(true, Op::Exec, "/tmp/x", EACCES, &[]), denied(None));
        assert_eq!(ask(true, Op::Exec, "/tmp/x", ENOENT, &["/tmp/x"]), None);
        assert_eq!(
            ask(true, Op::Write, "/proc/sysrq-trigger", EACCES, &[]),
            denied(None)
        );
        assert_eq!(ask(true, Op::Open, "/proc/1/environ", EACCES, &[]), None);
        assert_eq!(
            ask(true, Op::Write, "/etc/passwd", EROFS, &[]),
            denied(None)
        );
    }

    #[test]
    fn a_name_is_not_a_prefix() {
        assert_eq!(
            ask(true, Op::Open, "/srv/kbx", ENOENT, &["/srv/kbx"]),
            HIDDEN
        );
    }
}
