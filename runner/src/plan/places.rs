// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is not as on the host in the run's own places: warnings, since the run is as safe.

use std::path::Path;

use super::{Mount, Source, View};
use crate::policy::below::is_below;
use crate::policy::model::{Place, Policy, Target};

/// A working directory that is empty and goes with the run, and links of the host that are not
/// in it.
pub(super) fn warnings(policy: &Policy, view: &View) -> Vec<(Place, String)> {
    let links = policy.files.iter().flat_map(|rule| {
        let objects = rule.targets.iter().filter_map(|target| match target {
            Target::Object(object) => Some(object),
            _ => None,
        });
        let links = objects.flat_map(|object| object.links.iter().map(move |link| (link, object)));
        let lost = links.filter_map(move |((at, _), object)| {
            let own = own(view, at)?;
            let text = format!(
                "{}: the link `{}` does not exist in the run, whose `{}` is its own; the agent \
                 finds it as `{}`",
                rule.info.key,
                at.display(),
                own.at.display(),
                object.path.display(),
            );
            Some((rule.info.place.clone(), text))
        });
        lost.collect::<Vec<_>>()
    });
    workdir(policy, view).into_iter().chain(links).collect()
}

fn workdir(policy: &Policy, view: &View) -> Option<(Place, String)> {
    policy.command.as_ref()?;
    let own = own(view, &policy.workdir)?;
    let meant =
        policy.files.iter().flat_map(|rule| &rule.targets).any(
            |target| matches!(target, Target::Private(path) if policy.workdir.starts_with(path)),
        );
    if meant || policy.workdir == own.at {
        return None;
    }
    let place = Place {
        file: policy.file.to_string_lossy().into_owned(),
        line: 1,
        column: 1,
    };
    let text = format!(
        "files: the working directory `{}` is not granted and lies in the run's own `{}`: it is \
         empty, and what is written there is gone at the end; write read or write = \
         [\"${{WORKDIR}}\"] if the host's is meant",
        policy.workdir.display(),
        own.at.display(),
    );
    Some((place, text))
}

/// The place of the run's own that `path` lies in: the agent may write there, and nothing of the
/// host shows.
fn own<'v>(view: &'v View, path: &Path) -> Option<&'v Mount> {
    let above = view.mounts.iter().filter(|mount| is_below(path, &mount.at));
    let nearest = above.max_by_key(|mount| mount.at.components().count())?;
    let own = matches!(nearest.source, Source::Tmpfs { .. } | Source::Disk { .. });
    (own && !nearest.read_only).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::plan::testing::{add, directory, plan, policy, typed};
    use crate::policy::model::{Policy, Target, Verb};

    fn said(policy: Policy) -> Vec<String> {
        let warnings = plan(policy).policy.warnings;
        warnings.into_iter().map(|(_, text)| text).collect()
    }

    fn in_tmp() -> Policy {
        let mut policy = policy();
        policy.command = Some(typed());
        policy.workdir = PathBuf::from("/tmp/work");
        policy
    }

    #[test]
    fn a_working_directory_that_goes_with_the_run_is_told() {
        let warnings = said(in_tmp());
        assert_eq!(warnings.len(), 1);
        for part in ["`/tmp/work` is not granted", "write = [\"${WORKDIR}\"]"] {
            assert!(warnings[0].contains(part), "{warnings:?}");
        }
    }

    #[test]
    fn one_that_is_granted_meant_or_made_empty_elsewhere_is_not() {
        for target in [
            Target::Object(directory("/tmp/work", 1000)),
            Target::Private(PathBuf::from("/tmp/work")),
        ] {
            let mut policy = in_tmp();
            add(&mut policy, Verb::Write, target);
            assert!(said(policy).is_empty());
        }
        for path in ["/tmp", "/srv/work"] {
            let mut policy = in_tmp();
            policy.workdir = PathBuf::from(path);
            assert!(said(policy).is_empty(), "{path}");
        }
    }

    #[test]
    fn a_link_that_the_run_does_not_have_is_told() {
        let linked = |at: &str| {
            let mut policy = policy();
            let mut kb = directory("/srv/kb", 0);
            kb.links = vec![(PathBuf::from(at), PathBuf::from("/srv/kb"))];
            add(&mut policy, Verb::Read, Target::Object(kb));
            said(policy)
        };
        let lost = linked("/tmp/l");
        assert!(lost[0].contains("`/tmp/l` does not exist in the run"));
        assert!(lost[0].contains("as `/srv/kb`"));
        assert!(linked("/opt/l").is_empty());
    }
}
