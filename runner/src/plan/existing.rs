// SPDX-License-Identifier: MIT OR Apache-2.0
//! `fallback = "mask-existing"`: where nothing on a host holds a rule, what it names or matches at
//! the start is found, so that a mask can cover it. This is the weaker form that the rule's author
//! accepted: it keeps off mistakes, and not whoever means it.

use std::path::Path;

use super::Row;
use super::files::{FileRules, Grant, Origin, Taken};
use super::takeaway::{self, Outcome};
use crate::host::{Host, Means};
use crate::policy::facts::{Budget, Facts, Kind, Object, SearchError};
use crate::policy::model::{Existing, Policy, Verb};
use crate::policy::pattern::Pattern;

/// Trees of the distribution: what only root changes there is not searched.
const DISTRIBUTION: [&str; 7] = [
    "/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr",
];

/// Finds what the rules take away that `host` cannot hold and whose authors accept a mask.
pub fn search(policy: &mut Policy, host: &Host, facts: &dyn Facts) {
    if !policy.files.iter().any(|rule| rule.mask_fallback) {
        return;
    }
    let mut budget = Budget::new();
    let rules = FileRules::collect(policy);
    for verb in [Verb::Deny, Verb::Protect] {
        let rows = wanting(policy, &rules, host, verb);
        let (patterns, paths): (Vec<Row>, Vec<Row>) =
            rows.into_iter().partition(|row| is_pattern(&rules, *row));
        for row in paths {
            policy.existing.insert(row as usize, named(&rules, row));
        }
        if patterns.is_empty() {
            continue;
        }
        let found = find(policy, &rules, &patterns, facts, &mut budget);
        for row in patterns {
            let one = match &found {
                Ok(found) => {
                    let ours = found.iter().filter(|(owner, _)| *owner == row);
                    Existing::Found(ours.map(|(_, object)| object.clone()).collect())
                }
                Err(why) => Existing::GivenUp(why.clone()),
            };
            policy.existing.insert(row as usize, one);
        }
    }
}

/// The rules whose fallback is needed.
fn wanting(policy: &Policy, rules: &FileRules, host: &Host, verb: Verb) -> Vec<Row> {
    // Without mounts there are no masks, and the gap is told as it is.
    if host.means == Means::Alone {
        return Vec::new();
    }
    let lsm = host.means == Means::Root && host.bpf_lsm.yes();
    let missing = takeaway::judge(rules, lsm).into_iter();
    let missing = missing.filter(|(_, outcome)| matches!(outcome, Outcome::Missing { .. }));
    let wants = |row: &Row| {
        let rule = &policy.files[*row as usize];
        rule.mask_fallback && rule.verb == verb
    };
    missing.map(|(taken, _)| taken.row).filter(wants).collect()
}

fn is_pattern(rules: &FileRules, row: Row) -> bool {
    let mut taken = rules.taken.iter().filter(|taken| taken.row == row);
    taken.any(|taken| matches!(taken.what, Taken::Pattern(_)))
}

/// What a rule names itself: there, or not.
fn named(rules: &FileRules, row: Row) -> Existing {
    let mut found = Vec::new();
    for taken in rules.taken.iter().filter(|taken| taken.row == row) {
        let Taken::Object(object) = &taken.what else {
            continue;
        };
        if let Some(other) = takeaway::alias(rules, object, taken.verb == Verb::Protect) {
            let why = format!("it is granted under the name `{}` too", other.display());
            return Existing::GivenUp(why);
        }
        found.push(object.clone());
    }
    Existing::Found(found)
}

/// Every object that is taken away, with the first of the rules that does.
fn find(
    policy: &Policy,
    rules: &FileRules,
    rows: &[Row],
    facts: &dyn Facts,
    budget: &mut Budget,
) -> Result<Vec<(Row, Object)>, String> {
    let taken = rules.taken.iter().filter(|taken| rows.contains(&taken.row));
    let patterns: Vec<(Row, Pattern<'_>)> = taken
        .filter_map(|taken| match &taken.what {
            Taken::Pattern(text) => Some((taken.row, Pattern::new(text))),
            _ => None,
        })
        .collect();
    let protect = rows
        .iter()
        .all(|row| policy.files[*row as usize].verb == Verb::Protect);
    let mut found = Vec::new();
    for root in roots(rules, protect) {
        if root.path == Path::new("/") {
            return Err("the whole machine is granted, which is not searched".to_owned());
        }
        let owner = |path: &Path| {
            let mut matching = patterns.iter();
            matching
                .find(|(_, pattern)| pattern.matches(&root.path, path))
                .map(|(row, _)| *row)
        };
        let objects = match owner(&root.path) {
            Some(_) => vec![root.clone()],
            None if root.kind != Kind::Directory => Vec::new(),
            None => look(policy, root, facts, &|path| owner(path).is_some(), budget)
                .map_err(|error| error.to_string())?,
        };
        let owned = objects.into_iter();
        found.extend(owned.filter_map(|object| Some((owner(&object.path)?, object))));
    }
    Ok(found)
}

/// What is granted of the host's, each tree once. `protect` takes away what may be written.
fn roots(rules: &FileRules, protect: bool) -> Vec<&Object> {
    let granted = |grant: &Grant| grant.row.is_some() && (!protect || grant.rights.write);
    let grants = rules.grants.iter().filter(|grant| granted(grant));
    let objects = grants.filter_map(|grant| match &grant.origin {
        Origin::Host(object) => Some(object),
        Origin::Create(_) | Origin::Own => None,
    });
    let mut objects: Vec<&Object> = objects
        .filter(|object| !of_the_distribution(object))
        .collect();
    objects.sort_by(|a, b| a.path.cmp(&b.path));
    let mut roots: Vec<&Object> = Vec::new();
    for object in objects {
        let inside =
            |root: &&Object| object.mount == root.mount && object.path.starts_with(&root.path);
        if !roots.iter().any(inside) {
            roots.push(object);
        }
    }
    roots
}

fn of_the_distribution(object: &Object) -> bool {
    let below = |tree: &str| object.path.starts_with(tree);
    object.uid == 0 && DISTRIBUTION.iter().any(|tree| below(tree)) && !below("/usr/local")
}

/// With the caller's rights where the tree is his or he chose it.
fn look(
    policy: &Policy,
    root: &Object,
    facts: &dyn Facts,
    wanted: &dyn Fn(&Path) -> bool,
    budget: &mut Budget,
) -> Result<Vec<Object>, SearchError> {
    let caller = &policy.caller;
    let kept = policy.kept.iter().any(|kept| root.path.starts_with(kept));
    let chosen = [&policy.workdir, &caller.home];
    let chosen = chosen.iter().any(|place| root.path.starts_with(place));
    let held = caller.uid != 0 && !kept && (policy.file_owner != 0 || chosen);
    if !held {
        return facts.search(root, wanted, budget);
    }
    let mut found = None;
    let act = &mut || found = Some(facts.search(root, wanted, budget));
    let failed = |source: std::io::Error| SearchError::Call {
        path: root.path.clone(),
        source: source.into(),
    };
    match facts.with_rights_of(caller, act) {
        Ok(()) => found.unwrap_or_else(|| Ok(Vec::new())),
        Err(error) => Err(failed(std::io::Error::other(error.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Capability;
    use crate::plan::testing::{add, directory, plan_on, policy};
    use crate::plan::{Plan, State};
    use crate::policy::facts::fake::FakeFacts;
    use crate::policy::model::Target;

    fn host(lsm: bool) -> Host {
        let mut host = Host::emulated(7);
        if !lsm {
            host.bpf_lsm = Capability::No {
                why: String::new(),
                remedy: String::new(),
            };
        }
        host
    }

    /// A work tree in which rules take away, with what stands in it.
    fn plan(rules: &[(Verb, &str, bool)], files: &[&str], host: &Host) -> Plan {
        let mut policy = policy();
        let work = Target::Object(directory("/home/anna/work", 1000));
        add(&mut policy, Verb::Write, work);
        let usr = Target::Object(directory("/usr", 0));
        add(&mut policy, Verb::Read, usr);
        for (verb, pattern, fallback) in rules {
            add(&mut policy, *verb, Target::Pattern((*pattern).to_owned()));
            policy.files.last_mut().unwrap().mask_fallback = *fallback;
        }
        let mut facts = FakeFacts::usual();
        for file in files {
            facts.file(file, 1000, "");
        }
        search(&mut policy, host, &facts);
        plan_on(policy, host)
    }

    fn masks(plan: &Plan) -> Vec<(String, bool)> {
        let masks = plan.view.masks.iter();
        masks
            .map(|mask| (mask.path.display().to_string(), mask.read_stays))
            .collect()
    }

    const ENV: &str = "/home/anna/work/a/.env";

    #[test]
    fn a_fallback_masks_what_exists_and_is_degraded() {
        let plan = plan(
            &[(Verb::Deny, "**/.env", true)],
            &[ENV, "/usr/share/x/.env"],
            &host(false),
        );
        assert_eq!(
            masks(&plan),
            [(ENV.to_owned(), false)],
            "not the distribution's"
        );
        assert_eq!(plan.open_gaps().count(), 0);
        assert_eq!(plan.state("file-deny-pattern"), Some(State::Degraded));
        assert!(plan.enforces(2) && plan.holds_existing_only(2));
        let lines = plan.degraded();
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].1.starts_with("1 rule holds only what"),
            "{lines:?}"
        );
    }

    #[test]
    fn nothing_is_looked_for_where_it_is_held_or_nobody_accepts_it() {
        let held = plan(&[(Verb::Deny, "**/.env", true)], &[ENV], &host(true));
        assert!(held.policy.existing.is_empty() && held.view.masks.is_empty());
        assert_eq!(held.state("file-deny-pattern"), Some(State::Enforced));
        let refused = plan(&[(Verb::Deny, "**/.env", false)], &[ENV], &host(false));
        assert!(refused.policy.existing.is_empty());
        assert_eq!(refused.open_gaps().count(), 1);
    }

    #[test]
    fn without_mounts_the_gap_stays() {
        let mut alone = host(false);
        alone.means = Means::Alone;
        let plan = plan(&[(Verb::Deny, "**/.env", true)], &[ENV], &alone);
        let mut gaps = plan.open_gaps();
        assert!(gaps.any(|gap| gap.protection == "file-deny-pattern"));
    }

    #[test]
    fn each_place_has_one_mask_and_what_is_hidden_none() {
        let plan = plan(
            &[
                (Verb::Deny, "**/.env", true),
                (Verb::Protect, "**/.e*", true),
                (Verb::Protect, "**/a", true),
                (Verb::Protect, "**/hidden", true),
            ],
            &[ENV, "/home/anna/work/b/.env/hidden"],
            &host(false),
        );
        let expected = [
            ("/home/anna/work/a", true),
            (ENV, false),
            ("/home/anna/work/b/.env", false),
        ];
        let expected = expected.map(|(path, stays)| (path.to_owned(), stays));
        assert_eq!(masks(&plan), expected);
    }

    #[test]
    fn what_is_masked_has_the_ids_of_what_it_lies_in() {
        let plan = plan(&[(Verb::Protect, "**/.env", true)], &[ENV], &host(false));
        let work = Path::new("/home/anna/work");
        let around = plan.view.mounts.iter().find(|mount| mount.at == work);
        assert!(around.unwrap().idmap.is_some());
        assert_eq!(plan.view.masks[0].idmap, around.unwrap().idmap);
    }

    /// One rule that names a path in the work tree, with a fallback.
    fn naming(target: Target, elsewhere: Option<&str>) -> Plan {
        let mut policy = policy();
        let work = directory("/home/anna/work", 1000);
        if let Some(path) = elsewhere {
            let other = Object {
                path: path.into(),
                ..work.clone()
            };
            add(&mut policy, Verb::Write, Target::Object(other));
        }
        add(&mut policy, Verb::Write, Target::Object(work));
        add(&mut policy, Verb::Protect, target);
        policy.files.last_mut().unwrap().mask_fallback = true;
        search(&mut policy, &host(false), &FakeFacts::usual());
        plan_on(policy, &host(false))
    }

    #[test]
    fn a_path_falls_back_too() {
        let path = "/home/anna/work/.vscode";
        let there = naming(Target::Object(directory(path, 1000)), None);
        assert_eq!(masks(&there), [(path.to_owned(), true)]);
        assert_eq!(there.state("file-deny"), Some(State::Degraded));
        let missing = naming(Target::Missing(path.into()), None);
        assert_eq!((masks(&missing).len(), missing.open_gaps().count()), (0, 0));
        assert!(missing.gaps[0].why.contains("is not there now"));
        let alias = naming(Target::Object(directory(path, 1000)), Some("/mnt/work"));
        let gap = alias.open_gaps().next().expect("a gap");
        assert!(gap.why.contains("under the name"), "{}", gap.why);
    }

    #[test]
    fn the_whole_machine_is_not_searched() {
        let mut policy = policy();
        add(&mut policy, Verb::Read, Target::Object(directory("/", 0)));
        add(
            &mut policy,
            Verb::Deny,
            Target::Pattern("**/.env".to_owned()),
        );
        policy.files[1].mask_fallback = true;
        search(&mut policy, &host(false), &FakeFacts::usual());
        let plan = plan_on(policy, &host(false));
        let gap = plan.open_gaps().next().unwrap();
        assert!(gap.why.contains("the whole machine"), "{}", gap.why);
    }
}
