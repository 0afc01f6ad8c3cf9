// SPDX-License-Identifier: MIT OR Apache-2.0
//! File rules, flattened: for each anchor the union of all grants above it minus everything
//! taken away above it, each right with the rule that owns it (the most specific, then the
//! first in the file).
//!
//! Places that the run makes itself (`/tmp`, `/proc`, …) are grants without a rule. They and
//! the host's objects do not add up: what is bound through below a private `/tmp` is not the
//! private `/tmp`'s.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::view::own_places;
use super::{Anchor, Owners, Rights, Row};
use crate::policy::below::{is_below, is_same};
use crate::policy::facts::{Kind, MountPoint, Object, mounts};
use crate::policy::model::{Existing, FileRule, Policy, Target, Verb};
use crate::policy::pattern::Pattern;

/// Nodes of the run's own `/dev`: a rule for one of them needs no mount.
const DEVICE_NODES: &[&str] = &[
    "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts",
];

/// Where the granted tree comes from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// It exists on the host.
    Host(Object),
    /// lp-run makes it before the start, below this parent.
    Create(Object),
    /// The run makes it: a tmpfs, a device node, a generated file.
    Own,
}

impl Origin {
    pub fn own(&self) -> bool {
        self.rank() == 0
    }

    pub fn rank(&self) -> u8 {
        match self {
            Self::Own => 0,
            Self::Create(_) => 1,
            Self::Host(_) => 2,
        }
    }
}

/// One grant of one rule, or of the run's own making.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// `None`: the run's own.
    pub row: Option<Row>,
    /// As the agent sees it.
    pub path: PathBuf,
    /// What this rule alone gives.
    pub rights: Rights,
    pub origin: Origin,
    pub directory: bool,
    /// Mount points below it, where the grant ends: what is mounted there is another tree.
    pub ends: Vec<PathBuf>,
}

impl Grant {
    /// Whether `path` lies in the granted tree.
    pub fn reaches(&self, path: &Path) -> bool {
        is_below(path, &self.path) && !self.ends.iter().any(|end| is_below(path, end))
    }

    /// Whether something below `directory` may be in the granted tree.
    pub fn touches(&self, directory: &Path) -> bool {
        self.directory && self.reaches(directory) || self.path.starts_with(directory)
    }
}

/// What a rule takes away.
#[derive(Clone, Debug)]
pub(super) enum Taken {
    /// It exists.
    Object(Object),
    /// A name that may appear later.
    Name(PathBuf),
    /// Names at any depth.
    Pattern(String),
    /// It exists, and a pattern's fallback has found it.
    Existing(Object),
}

impl Taken {
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Object(object) | Self::Existing(object) => Some(&object.path),
            Self::Name(path) => Some(path),
            Self::Pattern(_) => None,
        }
    }

    /// Whether `path` is one of the names of a pattern, or lies below one, in what is granted.
    pub fn covers(&self, rules: &FileRules, path: &Path) -> bool {
        let Self::Pattern(pattern) = self else {
            return false;
        };
        let pattern = Pattern::new(pattern);
        let mut grants = rules.covering(path).filter(|grant| grant.row.is_some());
        grants.any(|grant| pattern.covers(&grant.path, path))
    }
}

/// One target of a rule that takes away.
#[derive(Clone, Debug)]
pub(super) struct TakeAway {
    pub row: Row,
    pub verb: Verb,
    pub what: Taken,
}

/// What `[files]` says, target by target.
#[derive(Clone, Debug, Default)]
pub(super) struct FileRules {
    pub grants: Vec<Grant>,
    pub taken: Vec<TakeAway>,
    /// How many a pattern's fallback has found, or why nobody knows.
    pub fallback: BTreeMap<Row, Result<usize, String>>,
    /// The machine's.
    pub mounts: Vec<MountPoint>,
}

/// An anchor and where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub anchor: Anchor,
    /// `None` for an anchor that only takes away.
    pub origin: Option<Origin>,
}

impl FileRules {
    /// The rules of a policy; the first has row 0.
    pub fn collect(policy: &Policy) -> Self {
        let mut rules = Self {
            mounts: policy.mounts.clone(),
            ..Self::default()
        };
        for place in own_places(policy) {
            rules.grants.push(Grant {
                row: None,
                directory: place.directory,
                rights: place.rights,
                path: place.path,
                origin: Origin::Own,
                ends: Vec::new(),
            });
        }
        let own: Vec<PathBuf> = rules
            .grants
            .iter()
            .map(|grant| grant.path.clone())
            .collect();
        for (row, rule) in (0..).zip(&policy.files) {
            for target in &rule.targets {
                rules.add(row, rule, target, &own);
            }
            if let Some(existing) = policy.existing.get(&(row as usize)) {
                rules.add_existing(row, rule.verb, existing);
            }
        }
        // In the host's view `/` is the machine as it is, but for where another grant ends.
        let ends: Vec<PathBuf> = rules.ends().into_keys().map(Path::to_owned).collect();
        for grant in &mut rules.grants {
            if grant.path == Path::new("/") {
                grant.ends.clone_from(&ends);
            }
        }
        rules
    }

    fn add_existing(&mut self, row: Row, verb: Verb, existing: &Existing) {
        let count = match existing {
            Existing::Found(objects) => {
                let what = objects.iter().cloned().map(Taken::Existing);
                self.taken
                    .extend(what.map(|what| TakeAway { row, verb, what }));
                Ok(objects.len())
            }
            Existing::GivenUp(why) => Err(why.clone()),
        };
        self.fallback.insert(row, count);
    }

    fn add(&mut self, row: Row, rule: &FileRule, target: &Target, own: &[PathBuf]) {
        if matches!(rule.verb, Verb::Protect | Verb::Deny) {
            let what = match target {
                Target::Object(object) => Taken::Object(object.clone()),
                Target::Pattern(pattern) => Taken::Pattern(pattern.clone()),
                Target::Create { path, .. } | Target::Missing(path) | Target::Private(path) => {
                    Taken::Name(path.clone())
                }
            };
            self.taken.push(TakeAway {
                row,
                verb: rule.verb,
                what,
            });
            return;
        }
        let (path, origin, directory) = match target {
            Target::Object(object) if is_own(&object.path, own) => (
                object.path.clone(),
                Origin::Own,
                object.kind == Kind::Directory,
            ),
            Target::Object(object) => {
                let directory = object.kind == Kind::Directory;
                (object.path.clone(), Origin::Host(object.clone()), directory)
            }
            Target::Create { parent, path } => (path.clone(), Origin::Create(parent.clone()), true),
            Target::Private(path) => (path.clone(), Origin::Own, true),
            // An optional grant of nothing, and a pattern, which only takes away.
            Target::Missing(_) | Target::Pattern(_) => return,
        };
        let rights = Rights {
            read: true,
            write: rule.verb == Verb::Write,
            exec: rule.verb == Verb::Exec || (rule.verb == Verb::Write && rule.exec),
        };
        let ends = match &origin {
            Origin::Host(object) if object.path != Path::new("/") => {
                let ends = mounts::below(&self.mounts, object);
                ends.map(Path::to_owned).collect()
            }
            _ => Vec::new(),
        };
        self.grants.push(Grant {
            row: Some(row),
            path,
            rights,
            origin,
            directory,
            ends,
        });
    }

    /// The grants of the host's objects at `path` and above.
    pub fn covering<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Grant> {
        self.grants
            .iter()
            .filter(move |grant| !grant.origin.own() && grant.reaches(path))
    }

    /// Where grants end, each place once, sorted; with the first grant that does.
    pub fn ends(&self) -> BTreeMap<&Path, &Grant> {
        let mut ends = BTreeMap::new();
        for grant in &self.grants {
            for end in &grant.ends {
                ends.entry(end.as_path()).or_insert(grant);
            }
        }
        ends
    }

    /// Every anchor, sorted by path. `enforced` says which rows that take away hold.
    pub fn flatten(&self, enforced: &dyn Fn(Row) -> bool) -> Vec<Spot> {
        let mut best: BTreeMap<&Path, &Grant> = BTreeMap::new();
        for grant in &self.grants {
            let known = best.entry(&grant.path).or_insert(grant);
            // The host's object stands for a path, even where the run has a place.
            if known.origin.rank() < grant.origin.rank() {
                *known = grant;
            }
        }
        let mut spots: Vec<Spot> = best
            .into_values()
            .map(|grant| Spot {
                anchor: self.anchor(&grant.path, &grant.origin, grant.directory, enforced),
                origin: Some(grant.origin.clone()),
            })
            .collect();
        for taken in self.taken.iter().filter(|taken| enforced(taken.row)) {
            let Taken::Object(object) = &taken.what else {
                continue;
            };
            let known = spots.iter().any(|spot| spot.anchor.path == object.path);
            if !known && self.covering(&object.path).next().is_some() {
                let origin = Origin::Host(object.clone());
                let directory = object.kind == Kind::Directory;
                let anchor = self.anchor(&object.path, &origin, directory, enforced);
                spots.push(Spot {
                    anchor,
                    origin: None,
                });
            }
        }
        spots.sort_by(|a, b| a.anchor.path.cmp(&b.anchor.path));
        spots
    }

    fn anchor(
        &self,
        path: &Path,
        origin: &Origin,
        directory: bool,
        enforced: &dyn Fn(Row) -> bool,
    ) -> Anchor {
        let (rights, owners) = self.rights(path, origin.own(), enforced);
        let object = match origin {
            Origin::Host(object) => Some(object.clone()),
            Origin::Create(_) | Origin::Own => None,
        };
        Anchor {
            object,
            path: path.to_owned(),
            directory,
            rights,
            owners,
        }
    }

    /// Rights and owners of whatever stands at `path`, of the run's own places or of the host's
    /// objects.
    pub fn rights(
        &self,
        path: &Path,
        own: bool,
        enforced: &dyn Fn(Row) -> bool,
    ) -> (Rights, Owners) {
        let mut above: Vec<&Grant> = self
            .grants
            .iter()
            .filter(|grant| grant.origin.own() == own && is_below(path, &grant.path))
            .collect();
        above.sort_by_key(|grant| {
            (
                Reverse(grant.path.components().count()),
                grant.row.unwrap_or(Row::MAX),
            )
        });
        let mut closed = Rights::default();
        for taken in self.taken.iter().filter(|taken| enforced(taken.row)) {
            if taken.what.path().is_some_and(|at| is_below(path, at)) {
                closed.write = true;
                closed.read |= taken.verb == Verb::Deny;
                closed.exec |= taken.verb == Verb::Deny;
            }
        }
        let first = |gives: &dyn Fn(&Grant) -> bool, closed: bool| {
            let grant = above.iter().find(|grant| gives(grant)).filter(|_| !closed);
            (grant.is_some(), grant.and_then(|grant| grant.row))
        };
        let (read, read_owner) = first(&|grant| grant.rights.read, closed.read);
        // Landlock adds up across mounts; a mount is written only by a rule that reaches it.
        let writes = |grant: &Grant| grant.rights.write && grant.reaches(path);
        let (write, write_owner) = first(&writes, closed.write);
        let (exec, exec_owner) = first(&|grant| grant.rights.exec, closed.exec);
        (
            Rights { read, write, exec },
            Owners {
                read: read_owner,
                write: write_owner,
                exec: exec_owner,
            },
        )
    }
}

/// Whether a rule for this path means a place of the run: the place itself, anything in
/// `/proc`, a node of its `/dev`.
fn is_own(path: &Path, own: &[PathBuf]) -> bool {
    let node = path
        .strip_prefix("/dev")
        .ok()
        .and_then(|rest| rest.to_str());
    path.starts_with("/proc")
        || node.is_some_and(|name| DEVICE_NODES.contains(&name))
        || own
            .iter()
            .any(|place| is_same(place, path) && !place.starts_with("/etc"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{add, directory, file, object, plan, policy};

    fn anchor(plan: &crate::plan::Plan, path: &str) -> (Rights, Owners) {
        let anchor = plan
            .anchors
            .iter()
            .find(|anchor| anchor.path == Path::new(path));
        let anchor = anchor.unwrap_or_else(|| panic!("no anchor at {path}"));
        (anchor.rights, anchor.owners)
    }

    #[test]
    fn rights_add_up_and_the_most_specific_grant_owns_them() {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory("/opt", 0)),
        );
        add(
            &mut policy,
            Verb::Exec,
            Target::Object(directory("/opt/app", 0)),
        );
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory("/opt/app", 0)),
        );
        let plan = plan(policy);
        let (rights, owners) = anchor(&plan, "/opt/app");
        assert_eq!(
            rights,
            Rights {
                read: true,
                write: false,
                exec: true
            }
        );
        // The same path twice: the first in the file.
        assert_eq!(
            owners,
            Owners {
                read: Some(1),
                write: None,
                exec: Some(1)
            }
        );
        assert_eq!(anchor(&plan, "/opt").1.read, Some(0));
    }

    #[test]
    fn what_is_denied_above_gives_nothing_below_and_warns() {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory("/srv/a/b", 0)),
        );
        add(
            &mut policy,
            Verb::Deny,
            Target::Object(directory("/srv/a", 0)),
        );
        let plan = plan(policy);
        assert_eq!(anchor(&plan, "/srv/a/b").0, Rights::default());
        assert!(
            plan.view
                .mounts
                .iter()
                .all(|mount| !mount.at.starts_with("/srv"))
        );
        assert!(
            plan.policy
                .warnings
                .iter()
                .any(|(_, text)| text.contains("files.deny[0] takes it away"))
        );
        assert_eq!(plan.open_gaps().count(), 0);
    }

    #[test]
    fn the_private_tmp_and_what_is_bound_through_do_not_add_up() {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Read,
            Target::Object(file("/tmp/shot.png", 1000)),
        );
        let plan = plan(policy);
        assert_eq!(
            anchor(&plan, "/tmp").0,
            Rights {
                read: true,
                write: true,
                exec: false
            }
        );
        assert_eq!(
            anchor(&plan, "/tmp/shot.png").0,
            Rights {
                read: true,
                write: false,
                exec: false
            }
        );
    }

    #[test]
    fn a_device_node_of_the_runs_own_dev_is_not_bound() {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Read,
            Target::Object(object("/dev/null", Kind::CharDevice, 0, 0o666)),
        );
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory("/proc/sys", 0)),
        );
        let plan = plan(policy);
        assert!(anchor(&plan, "/dev/null").0.write);
        assert!(plan.view.mounts.iter().all(|mount| mount.row.is_none()));
    }

    #[test]
    fn a_missing_optional_grant_gives_nothing() {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Read,
            Target::Missing(PathBuf::from("/opt/none")),
        );
        let plan = plan(policy);
        assert!(
            plan.anchors
                .iter()
                .all(|anchor| anchor.path != Path::new("/opt/none"))
        );
        assert_eq!(plan.rules.len(), 1);
    }
}
