// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file tree of the agent as an ordered list of mounts: the run's own places, the granted
//! objects, what lp-run writes, in the order in which they are moved into place (a directory
//! before what lies in it).
//!
//! A grant below another with the same attributes needs no mount of its own: the enclosing
//! one shows it, and Landlock tells them apart.

use std::path::{Path, PathBuf};

use super::files::{Origin, Spot};
use super::generated;
use super::{Generated, IdMap, Mask, Mount, Rights, Row, Source, View};
use crate::policy::SECRETS_DIR;
use crate::policy::below::{is_below, is_same};
use crate::policy::facts::{Kind, Object};
use crate::policy::model::{HomeChoice, Policy, Store, Target, Verb, ViewChoice};

/// Where the agent reads what was denied: the run's own directory.
pub const SELF_DIR: &str = "/run/lp-run/self";

/// Directories of `/` that most distributions keep below `/usr`.
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// A place that the run makes itself.
#[derive(Clone, Debug)]
pub(super) struct OwnPlace {
    pub path: PathBuf,
    pub rights: Rights,
    pub directory: bool,
    /// `None` for what stands in a file system that is there anyway.
    source: Option<Source>,
    read_only: bool,
    no_exec: bool,
}

impl OwnPlace {
    fn new(path: &str, rights: Rights, source: Option<Source>) -> Self {
        Self {
            path: PathBuf::from(path),
            rights,
            directory: true,
            source,
            read_only: !rights.write,
            no_exec: true,
        }
    }
}

const READ: Rights = Rights {
    read: true,
    write: false,
    exec: false,
};
const READ_WRITE: Rights = Rights {
    read: true,
    write: true,
    exec: false,
};

/// The run's own places under a policy.
pub(super) fn own_places(policy: &Policy) -> Vec<OwnPlace> {
    let limits = &policy.limits;
    let tmpfs = |size, mode| Some(Source::Tmpfs { size, mode });
    let tmp = || Some(stored(limits.tmp, 0o1777));
    let mut places = vec![
        // A device node works on a read-only mount; only names cannot change there.
        OwnPlace {
            read_only: true,
            ..OwnPlace::new("/dev", READ_WRITE, Some(Source::Dev))
        },
        OwnPlace::new("/dev/pts", READ_WRITE, Some(Source::Devpts)),
        OwnPlace::new("/dev/shm", READ_WRITE, tmpfs(limits.shm, 0o1777)),
        OwnPlace::new("/proc", READ, Some(Source::Proc)),
        OwnPlace::new("/tmp", READ_WRITE, tmp()),
        OwnPlace::new("/var/tmp", READ_WRITE, tmp()),
    ];
    if policy.identity.view == ViewChoice::Host {
        places.push(OwnPlace::new("/run", READ, tmpfs(RUN_BYTES, 0o755)));
    }
    if policy.audit.tell_agent {
        places.push(OwnPlace::new(SELF_DIR, READ, None));
    }
    if policy.has_secret_files() {
        places.push(OwnPlace::new(SECRETS_DIR, READ, None));
    }
    if policy.identity.home == HomeChoice::Temp {
        add_private(&mut places, &policy.home, false, limits.tmp);
    }
    for rule in policy.files.iter().filter(|rule| rule.verb == Verb::Write) {
        for target in &rule.targets {
            // What the kernel fills is there already, and nothing is made in it.
            if let Target::Private(path) = target
                && !["/proc", "/dev"]
                    .iter()
                    .any(|filled| path.starts_with(filled))
            {
                add_private(&mut places, path, rule.exec, limits.tmp);
            }
        }
    }
    for (path, _) in generated_files(policy) {
        places.push(OwnPlace {
            path,
            rights: READ,
            directory: false,
            source: None,
            read_only: true,
            no_exec: true,
        });
    }
    places.sort_by(|a, b| a.path.cmp(&b.path));
    places
}

/// A private directory: a part of the place around it where that has the same attributes,
/// else a store of its own.
fn add_private(places: &mut Vec<OwnPlace>, path: &Path, exec: bool, store: Store) {
    if let Some(same) = places.iter_mut().find(|place| place.path == path) {
        same.no_exec &= !exec;
        return;
    }
    let around = places
        .iter()
        .filter(|place| place.source.is_some() && is_below(path, &place.path))
        .max_by_key(|place| place.path.components().count());
    let inside = around.is_some_and(|place| !place.read_only && place.no_exec != exec);
    places.push(OwnPlace {
        path: path.to_owned(),
        rights: READ_WRITE,
        directory: true,
        source: (!inside).then(|| stored(store, 0o700)),
        read_only: false,
        no_exec: !exec,
    });
}

fn stored(store: Store, mode: u32) -> Source {
    match store {
        Store::Tmpfs(size) => Source::Tmpfs { size, mode },
        Store::Disk(size) => Source::Disk { size, mode },
    }
}

/// Bytes of the `/run` that covers the host's: room for mount points.
const RUN_BYTES: u64 = 1 << 20;

fn generated_files(policy: &Policy) -> Vec<(PathBuf, Generated)> {
    let mut files = generated::files(policy.has_names());
    if policy.identity.view == ViewChoice::Host {
        // The host's files serve, but for the agent's own row. `resolv.conf` is a link there
        // on many hosts, and leads into the `/run` that is covered; whoever it names, lp-run's
        // resolver answers.
        files.retain(|(_, content)| !matches!(content, Generated::Bytes(_)));
    }
    files
}

/// What a spot needs beyond its rights.
pub(super) type IdMapOf<'a> = &'a dyn Fn(&Path) -> Option<IdMap>;

/// Builds the view. `ends` are the mount points at which grants end, `idmap_of` gives the id map of the grants of a path, `unix` the granted
/// sockets, `masks` what is hidden.
pub(super) fn build(
    policy: &Policy,
    spots: &[Spot],
    ends: &[&Path],
    idmap_of: IdMapOf,
    unix: &[(Object, Row, Option<IdMap>)],
    mut masks: Vec<Mask>,
) -> View {
    let mut builder = Builder {
        policy,
        mounts: Vec::new(),
    };
    builder.places_and_grants(spots, ends, idmap_of);
    builder.sockets(unix);
    let files = builder.generated(spots);
    let directories = builder.directories();
    let links = builder.links(spots, unix);
    let mut mounts = builder.mounts;
    mounts.sort_by(|a, b| a.at.cmp(&b.at));
    for mask in &mut masks {
        let around = mounts
            .iter()
            .filter(|mount| mask.path.starts_with(&mount.at));
        let around = around.max_by_key(|mount| mount.at.components().count());
        mask.idmap = around.and_then(|mount| mount.idmap);
    }
    View {
        kind: policy.identity.view,
        mounts,
        directories,
        links,
        files,
        masks,
        create: spots
            .iter()
            .filter(|spot| spot.anchor.rights.write)
            .filter_map(|spot| match &spot.origin {
                Some(Origin::Create(parent)) => Some((parent.clone(), spot.anchor.path.clone())),
                _ => None,
            })
            .collect(),
    }
}

struct Builder<'a> {
    policy: &'a Policy,
    mounts: Vec<Mount>,
}

/// What stands around a path.
enum Around<'a> {
    /// The private root.
    Root,
    /// The host's tree.
    HostRoot,
    Mount(&'a Mount),
}

impl Builder<'_> {
    fn around(&self, path: &Path) -> Around<'_> {
        let nearest = self
            .mounts
            .iter()
            .filter(|mount| is_below(path, &mount.at))
            .max_by_key(|mount| mount.at.components().count());
        match nearest {
            Some(mount) => Around::Mount(mount),
            None if self.policy.identity.view == ViewChoice::Host => Around::HostRoot,
            None => Around::Root,
        }
    }

    /// Whether the host's own files show at `path`, by a mount that is there already.
    fn shows_host(&self, path: &Path) -> bool {
        match self.around(path) {
            Around::Root => false,
            Around::HostRoot => true,
            Around::Mount(mount) => {
                matches!(mount.source, Source::Bind(_) | Source::Created { .. })
            }
        }
    }

    /// Whether the mount that is there already shows this very object.
    fn around_shows(&self, object: &Object) -> bool {
        match self.around(&object.path) {
            Around::Root => false,
            Around::HostRoot => true,
            Around::Mount(mount) => shown_mount(&mount.source) == Some(object.mount),
        }
    }

    /// Whether anything of the host shows at `path` or below.
    fn shows(&self, path: &Path) -> bool {
        self.shows_host(path) || self.mounts.iter().any(|mount| is_below(&mount.at, path))
    }

    fn places_and_grants(&mut self, spots: &[Spot], ends: &[&Path], idmap_of: IdMapOf) {
        let mut places = own_places(self.policy);
        places.retain(|place| place.source.is_some());
        let granted = |end: &Path| {
            spots
                .iter()
                .any(|spot| is_bound(spot) && spot.anchor.path == end)
        };
        for end in ends.iter().filter(|end| !granted(end)) {
            if !places.iter().any(|place| place.path == **end) {
                places.push(OwnPlace::new(
                    &end.to_string_lossy(),
                    READ,
                    Some(Source::Cover),
                ));
            }
        }
        places.sort_by(|a, b| a.path.cmp(&b.path));
        // Both lists are sorted by path, so what encloses is in place before what lies in it.
        let mut places = places.into_iter().peekable();
        for spot in spots {
            while let Some(place) = places.next_if(|place| place.path <= spot.anchor.path) {
                self.place(place);
            }
            self.grant(spot, idmap_of);
        }
        places.for_each(|place| self.place(place));
    }

    fn place(&mut self, place: OwnPlace) {
        let Some(source) = place.source else { return };
        // Where nothing of the host shows, there is nothing to be covered.
        if matches!(source, Source::Cover) && !self.shows_host(&place.path) {
            return;
        }
        self.mounts.push(Mount {
            devices: matches!(source, Source::Dev | Source::Devpts),
            source,
            at: place.path,
            read_only: place.read_only,
            no_exec: place.no_exec,
            idmap: None,
            row: None,
        });
    }

    fn grant(&mut self, spot: &Spot, idmap_of: IdMapOf) {
        let anchor = &spot.anchor;
        let source = match &spot.origin {
            Some(Origin::Host(object)) => Source::Bind(object.clone()),
            Some(Origin::Create(parent)) => Source::Created {
                parent: parent.clone(),
                path: anchor.path.clone(),
            },
            Some(Origin::Own) | None => return,
        };
        let rights = anchor.rights;
        if !is_bound(spot) {
            return;
        }
        let owners = anchor.owners;
        let mount = Mount {
            devices: matches!(&source, Source::Bind(object) if object.kind == Kind::CharDevice),
            source,
            at: anchor.path.clone(),
            read_only: !rights.write,
            // What the agent can write is not mapped as code, unless it may be executed.
            no_exec: rights.write && !rights.exec,
            idmap: idmap_of(&anchor.path),
            row: owners.write.or(owners.exec).or(owners.read),
        };
        if !self.enclosed(&mount) {
            self.mounts.push(mount);
        }
    }

    /// Whether the enclosing mount shows the same object with the same attributes.
    fn enclosed(&self, mount: &Mount) -> bool {
        match self.around(&mount.at) {
            Around::Root => false,
            Around::HostRoot => {
                mount.read_only && !mount.no_exec && !mount.devices && mount.idmap.is_none()
            }
            Around::Mount(around) => {
                shown_mount(&around.source).is_some()
                    && shown_mount(&around.source) == shown_mount(&mount.source)
                    && around.read_only == mount.read_only
                    && around.no_exec == mount.no_exec
                    && around.devices == mount.devices
                    && (mount.idmap.is_none() || around.idmap == mount.idmap)
            }
        }
    }

    fn sockets(&mut self, unix: &[(Object, Row, Option<IdMap>)]) {
        for (object, row, idmap) in unix {
            let mount = Mount {
                source: Source::Bind(object.clone()),
                at: object.path.clone(),
                read_only: true,
                no_exec: false,
                devices: false,
                idmap: *idmap,
                row: Some(*row),
            };
            self.mounts
                .retain(|other| other.at != mount.at || !matches!(other.source, Source::Cover));
            let shown = self.around_shows(object) && idmap.is_none();
            if !shown && !self.mounts.iter().any(|other| other.at == mount.at) {
                self.mounts.push(mount);
            }
        }
    }

    /// The files of the private root; those that a mount covers are laid over it. A rule that
    /// names such a file itself means the host's.
    fn generated(&mut self, spots: &[Spot]) -> Vec<(PathBuf, Generated)> {
        let mut files = Vec::new();
        for (path, content) in generated_files(self.policy) {
            let named = |spot: &Spot| {
                is_same(&spot.anchor.path, &path) && matches!(spot.origin, Some(Origin::Host(_)))
            };
            if spots.iter().any(named) {
                continue;
            }
            if matches!(self.around(&path), Around::Root) {
                files.push((path, content));
                continue;
            }
            self.mounts.push(Mount {
                source: Source::Generated(content),
                at: path,
                read_only: true,
                no_exec: true,
                devices: false,
                idmap: None,
                row: None,
            });
        }
        files
    }

    fn directories(&self) -> Vec<(PathBuf, u32)> {
        let mut directories = Vec::new();
        if self.policy.identity.view == ViewChoice::Private {
            for (path, mode) in [("/run", 0o755), ("/etc", 0o755)] {
                directories.push((PathBuf::from(path), mode));
            }
        }
        // Both exist even where nothing at their place is granted, also below a private `/tmp`.
        for path in [&self.policy.home, &self.policy.workdir] {
            if !self.shows_host(path) {
                directories.push((path.clone(), 0o755));
            }
        }
        let inside = |place: &OwnPlace| {
            // These directories are mounted by the start, which fills them.
            let filled = [SELF_DIR, SECRETS_DIR]
                .iter()
                .any(|at| place.path == Path::new(at));
            let private = place.source.is_none() && !filled;
            private && place.directory && !self.shows_host(&place.path)
        };
        directories.extend(
            own_places(self.policy)
                .into_iter()
                .filter(inside)
                .map(|place| (place.path, 0o700)),
        );
        directories.retain(|(path, _)| !self.mounts.iter().any(|mount| mount.at == *path));
        directories.sort();
        directories.dedup_by(|a, b| a.0 == b.0);
        directories
    }

    /// Each link that was followed on the way to something granted, so that both names work,
    /// and the distribution's links into `/usr`.
    fn links(
        &self,
        spots: &[Spot],
        unix: &[(Object, Row, Option<IdMap>)],
    ) -> Vec<(PathBuf, PathBuf)> {
        if self.policy.identity.view == ViewChoice::Host {
            return Vec::new();
        }
        let granted = spots
            .iter()
            .filter(|spot| spot.anchor.rights.read)
            .filter_map(|spot| match &spot.origin {
                Some(Origin::Host(object) | Origin::Create(object)) => Some(object),
                Some(Origin::Own) | None => None,
            });
        let command = self
            .policy
            .command
            .iter()
            .flat_map(|command| command.program.iter().chain(&command.interpreters));
        let mut links: Vec<(PathBuf, PathBuf)> = granted
            .chain(unix.iter().map(|(object, _, _)| object))
            .chain(command)
            .flat_map(|object| object.links.iter().cloned())
            .collect();
        let merged = |(at, to): &(PathBuf, PathBuf)| {
            MERGED.iter().any(|name| {
                *at == Path::new("/").join(name)
                    && (*to == Path::new("usr").join(name) || *to == Path::new("/usr").join(name))
            })
        };
        if links.iter().any(merged) {
            let names = MERGED
                .iter()
                .map(|name| (Path::new("/").join(name), Path::new("usr").join(name)));
            links.extend(names.filter(|(_, to)| self.shows(&Path::new("/").join(to))));
        }
        links.push((
            PathBuf::from("/etc/mtab"),
            PathBuf::from("../proc/self/mounts"),
        ));
        links.retain(|(at, _)| matches!(self.around(at), Around::Root));
        links.sort();
        links.dedup_by(|a, b| a.0 == b.0);
        links
    }
}

/// Whether something of the host is shown for a spot.
fn is_bound(spot: &Spot) -> bool {
    let rights = spot.anchor.rights;
    let host = matches!(spot.origin, Some(Origin::Host(_) | Origin::Create(_)));
    host && (rights.read || rights.write || rights.exec)
}

/// The mount of the host of which a source shows a part: what is mounted below is not in it.
fn shown_mount(source: &Source) -> Option<u64> {
    match source {
        Source::Bind(object) | Source::Created { parent: object, .. } => Some(object.mount),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::plan::testing::{add, directory, file, plan, policy, unix};

    fn mount<'a>(plan: &'a Plan, at: &str) -> Option<&'a Mount> {
        plan.view
            .mounts
            .iter()
            .find(|mount| mount.at == Path::new(at))
    }

    #[test]
    fn the_runs_own_places_are_there_in_order() {
        let plan = plan(policy());
        let at: Vec<_> = plan
            .view
            .mounts
            .iter()
            .map(|mount| mount.at.display().to_string())
            .collect();
        assert_eq!(
            at,
            [
                "/dev",
                "/dev/pts",
                "/dev/shm",
                "/home/agent",
                "/proc",
                "/tmp",
                "/var/tmp"
            ]
        );
        assert!(plan.view.mounts.iter().all(|mount| mount.no_exec));
        let files: Vec<_> = plan
            .view
            .files
            .iter()
            .map(|(path, _)| path.display().to_string())
            .collect();
        assert_eq!(
            files,
            [
                "/etc/group",
                "/etc/hosts",
                "/etc/nsswitch.conf",
                "/etc/passwd",
                "/etc/resolv.conf"
            ]
        );
        // The work directory exists, so that the agent can start in it, and is empty.
        assert!(
            plan.view
                .directories
                .contains(&(PathBuf::from("/home/anna/work"), 0o755))
        );
    }

    #[test]
    fn what_is_written_is_not_code_and_what_is_read_stays() {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Write,
            Target::Object(directory("/home/anna/work", 1000)),
        );
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory("/home/anna/kb", 1000)),
        );
        let plan = plan(policy);
        let write = mount(&plan, "/home/anna/work").unwrap();
        assert_eq!((write.read_only, write.no_exec), (false, true));
        let read = mount(&plan, "/home/anna/kb").unwrap();
        assert_eq!((read.read_only, read.no_exec), (true, false));
    }

    #[test]
    fn a_nested_grant_with_the_same_attributes_needs_no_mount() {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory("/usr", 0)),
        );
        add(
            &mut policy,
            Verb::Exec,
            Target::Object(directory("/usr/bin", 0)),
        );
        add(
            &mut policy,
            Verb::Write,
            Target::Object(directory("/usr/local/data", 0)),
        );
        let plan = plan(policy);
        assert!(mount(&plan, "/usr").is_some() && mount(&plan, "/usr/bin").is_none());
        assert!(!mount(&plan, "/usr/local/data").unwrap().read_only);
        let order: Vec<_> = plan.view.mounts.iter().map(|mount| &mount.at).collect();
        assert!(order.is_sorted());
    }

    #[test]
    fn what_is_mounted_below_a_grant_is_covered_unless_a_rule_names_it() {
        let mounted = |verb, named: bool| {
            let mut policy = policy();
            policy.mounts = crate::policy::facts::mounts::parse(
                b"1 0 8:0 / / rw\n2 1 8:1 / /srv/x/sub rw\n3 2 8:2 / /srv/x/sub/deep rw\n\
                  4 1 8:3 / /srv/y rw\n",
            );
            add(&mut policy, verb, Target::Object(directory("/srv/x", 0)));
            if named {
                let mut sub = directory("/srv/x/sub", 0);
                sub.mount = 2;
                add(&mut policy, Verb::Read, Target::Object(sub));
            }
            plan(policy)
        };
        let alone = mounted(Verb::Write, false);
        let cover = mount(&alone, "/srv/x/sub").unwrap();
        assert!(matches!(cover.source, Source::Cover) && cover.read_only);
        assert!(mount(&alone, "/srv/x/sub/deep").is_none() && mount(&alone, "/srv/y").is_none());
        let warned = |plan: &Plan, word: &str| {
            let mut warnings = plan.policy.warnings.iter();
            warnings.any(|(_, text)| text.contains(word))
        };
        assert!(warned(&alone, "add write = [\"/srv/x/sub\"]"));
        // Also with the same attributes, and never with the write of what is around it.
        for verb in [Verb::Read, Verb::Write] {
            let named = mounted(verb, true);
            let own = mount(&named, "/srv/x/sub").unwrap();
            assert!(matches!(own.source, Source::Bind(_)) && own.read_only);
            assert!(matches!(
                mount(&named, "/srv/x/sub/deep").unwrap().source,
                Source::Cover
            ));
        }
    }

    #[test]
    fn a_grant_below_a_private_place_is_bound_through() {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Read,
            Target::Object(file("/tmp/shot.png", 1000)),
        );
        let plan = plan(policy);
        assert!(matches!(
            mount(&plan, "/tmp/shot.png").unwrap().source,
            Source::Bind(_)
        ));
        assert!(matches!(
            mount(&plan, "/tmp").unwrap().source,
            Source::Tmpfs { .. }
        ));
    }

    #[test]
    fn a_private_place_that_may_be_executed_is_a_tmpfs_of_its_own() {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Write,
            Target::Private(PathBuf::from("/tmp/build")),
        );
        policy.files[0].exec = true;
        add(
            &mut policy,
            Verb::Write,
            Target::Private(PathBuf::from("/tmp/data")),
        );
        let plan = plan(policy);
        assert!(!mount(&plan, "/tmp/build").unwrap().no_exec);
        assert!(mount(&plan, "/tmp").unwrap().no_exec);
        assert!(mount(&plan, "/tmp/data").is_none());
        assert!(mount(&plan, "/dev/null").is_none() && mount(&plan, "/run").is_none());
        assert!(
            plan.view
                .directories
                .contains(&(PathBuf::from("/tmp/data"), 0o700))
        );
    }

    #[test]
    fn both_names_of_a_linked_grant_work() {
        let mut policy = policy();
        let mut bin = directory("/usr/bin", 0);
        bin.links = vec![(PathBuf::from("/bin"), PathBuf::from("usr/bin"))];
        add(&mut policy, Verb::Exec, Target::Object(bin));
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory("/usr/lib64", 0)),
        );
        let plan = plan(policy);
        let link = |at: &str, to: &str| {
            plan.view
                .links
                .contains(&(PathBuf::from(at), PathBuf::from(to)))
        };
        assert!(link("/bin", "usr/bin") && link("/lib64", "usr/lib64"));
        assert!(!link("/sbin", "usr/sbin"), "nothing is granted there");
        assert!(link("/etc/mtab", "../proc/self/mounts"));
    }

    #[test]
    fn a_link_inside_a_granted_tree_is_there_already() {
        let mut policy = policy();
        let mut python = file("/usr/bin/python3.11", 0);
        python.links = vec![(
            PathBuf::from("/usr/bin/python3"),
            PathBuf::from("python3.11"),
        )];
        add(
            &mut policy,
            Verb::Exec,
            Target::Object(directory("/usr/bin", 0)),
        );
        add(&mut policy, Verb::Exec, Target::Object(python));
        let plan = plan(policy);
        assert!(
            plan.view
                .links
                .iter()
                .all(|(at, _)| at != Path::new("/usr/bin/python3"))
        );
    }

    #[test]
    fn generated_files_lie_over_a_granted_etc_but_a_named_one_is_the_hosts() {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory("/etc", 0)),
        );
        add(
            &mut policy,
            Verb::Read,
            Target::Object(file("/etc/hosts", 0)),
        );
        let plan = plan(policy);
        let passwd = mount(&plan, "/etc/passwd").unwrap();
        assert!(matches!(
            passwd.source,
            Source::Generated(Generated::Passwd)
        ));
        assert!(
            mount(&plan, "/etc/hosts").is_none_or(|mount| matches!(mount.source, Source::Bind(_)))
        );
    }

    #[test]
    fn a_made_directory_is_made_and_bound() {
        let mut policy = policy();
        let parent = directory("/home/anna/work", 1000);
        let path = PathBuf::from("/home/anna/work/out");
        add(
            &mut policy,
            Verb::Write,
            Target::Create {
                parent,
                path: path.clone(),
            },
        );
        let plan = plan(policy);
        assert_eq!(plan.view.create[0].1, path);
        let out = mount(&plan, "/home/anna/work/out").unwrap();
        assert!(matches!(out.source, Source::Created { .. }));
        assert_eq!(
            out.idmap,
            Some(IdMap {
                uid: 1000,
                gid: 1000
            })
        );
    }

    #[test]
    fn in_the_hosts_view_only_changes_are_mounted() {
        let mut policy = policy();
        policy.identity.view = ViewChoice::Host;
        policy.home = PathBuf::from("/tmp/home");
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory("/srv/kb", 0)),
        );
        add(
            &mut policy,
            Verb::Write,
            Target::Object(directory("/home/anna/work", 1000)),
        );
        let plan = plan(policy);
        assert!(mount(&plan, "/srv/kb").is_none());
        assert!(!mount(&plan, "/home/anna/work").unwrap().read_only);
        assert!(mount(&plan, "/run").unwrap().read_only);
        assert!(plan.view.links.is_empty() && plan.view.files.is_empty());
        assert!(matches!(
            mount(&plan, "/etc/passwd").unwrap().source,
            Source::Generated(_)
        ));
    }

    #[test]
    fn a_granted_socket_is_bound() {
        let mut policy = policy();
        unix(&mut policy, "/run/postgresql/.s.PGSQL.5432", 0o777);
        let plan = plan(policy);
        let socket = mount(&plan, "/run/postgresql/.s.PGSQL.5432").unwrap();
        assert_eq!((socket.row, socket.idmap), (Some(0), None));
    }
}
