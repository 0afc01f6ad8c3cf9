// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the agent can enter its working directory in the view that it gets. Where nothing of
//! the host is shown the directory is made, empty; where something is, the host's own
//! permissions decide, and the run is refused before the start when they refuse.

use std::path::Path;

use super::error::CompileError;
use super::permissions::agent_ids;
use super::{IdMap, Source, View};
use crate::policy::below::is_below;
use crate::policy::facts::Ancestor;
use crate::policy::model::{Policy, ViewChoice};

const SEARCH: u32 = 1;

/// Why the agent cannot start in its working directory.
pub(super) fn check(policy: &Policy, view: &View) -> Option<CompileError> {
    policy.command.as_ref()?;
    let refused = |why: String| {
        Some(CompileError::Workdir {
            path: policy.workdir.clone(),
            why,
        })
    };
    let hides = |mask: &&super::Mask| !mask.read_stays && policy.workdir.starts_with(&mask.path);
    if let Some(mask) = view.masks.iter().find(hides) {
        let key = policy
            .files
            .get(mask.row as usize)
            .map(|rule| &rule.info.key);
        return refused(format!("{} takes it away", key?));
    }
    let own = nearest(view, &policy.workdir).is_some_and(|mount| {
        let filled = matches!(mount.source, Source::Proc | Source::Dev | Source::Devpts);
        filled && mount.at != policy.workdir
    });
    if own {
        return refused("the run has a file system of its own there".to_owned());
    }
    let closed = policy
        .way
        .iter()
        .find(|above| closed(policy, view, above))?;
    refused(format!(
        "the agent may not enter `{}`, which belongs to uid {} with mode {:04o}",
        closed.path.display(),
        closed.uid,
        closed.mode
    ))
}

fn nearest<'v>(view: &'v View, path: &Path) -> Option<&'v super::Mount> {
    let above = view.mounts.iter().filter(|mount| is_below(path, &mount.at));
    above.max_by_key(|mount| mount.at.components().count())
}

/// Whether a directory of the host is shown and does not let the agent through.
fn closed(policy: &Policy, view: &View, above: &Ancestor) -> bool {
    let idmap: Option<IdMap> = match nearest(view, &above.path) {
        None if policy.identity.view == ViewChoice::Host => None,
        Some(mount) if matches!(mount.source, Source::Bind(_) | Source::Created { .. }) => {
            mount.idmap
        }
        _ => return false,
    };
    let agent = agent_ids(policy);
    let (uid, gid) = match (idmap, agent) {
        (Some(lent), _) => (Some(lent.uid), Some(lent.gid)),
        (None, agent) => (agent.map(|user| user.uid), agent.map(|user| user.gid)),
    };
    let class = match () {
        () if uid == Some(above.uid) => 6,
        () if gid == Some(above.gid) => 3,
        () => 0,
    };
    above.mode >> class & SEARCH == 0
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::plan::error::CompileError;
    use crate::plan::testing::{add, directory, errors, object, plan, policy, typed};
    use crate::policy::facts::{Ancestor, Kind};
    use crate::policy::model::{Policy, Target, Verb, ViewChoice};

    /// A run in `/srv/shop/work`, whose directory `shop` has this mode.
    fn in_shop(mode: u32) -> Policy {
        let mut policy = policy();
        policy.command = Some(typed());
        policy.workdir = PathBuf::from("/srv/shop/work");
        let way = [
            ("/", 0o755),
            ("/srv", 0o755),
            ("/srv/shop", mode),
            ("/srv/shop/work", 0o755),
        ];
        policy.way = way
            .map(|(path, mode)| Ancestor {
                path: PathBuf::from(path),
                uid: 0,
                gid: 0,
                mode,
                dev: 1,
                ino: 1,
            })
            .to_vec();
        policy
    }

    fn why(policy: Policy) -> String {
        match &errors(policy)[..] {
            [error @ CompileError::Workdir { .. }] => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_shown_is_made_and_what_is_shown_must_be_open() {
        plan(in_shop(0o700));
        let shown = |mode| {
            let mut policy = in_shop(mode);
            add(
                &mut policy,
                Verb::Read,
                Target::Object(directory("/srv", 0)),
            );
            policy
        };
        plan(shown(0o711));
        assert!(why(shown(0o700)).contains("may not enter `/srv/shop`"));
        let mut host = in_shop(0o700);
        host.identity.view = ViewChoice::Host;
        assert!(why(host).contains("write read = [\"${WORKDIR}\"]"));
    }

    #[test]
    fn a_lent_tree_lets_its_owner_through() {
        let mut policy = in_shop(0o700);
        let shop = object("/srv/shop", Kind::Directory, 0, 0o700);
        add(&mut policy, Verb::Write, Target::Object(shop));
        plan(policy);
    }

    #[test]
    fn the_runs_own_file_systems_have_no_directory_of_the_host() {
        let mut policy = in_shop(0o755);
        policy.workdir = PathBuf::from("/proc/self");
        assert!(why(policy.clone()).contains("of its own"));
        policy.workdir = PathBuf::from("/tmp/x");
        plan(policy);
    }
}
