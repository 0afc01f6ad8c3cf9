// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `deny` and `protect` take away, and whether it holds: because nothing gives it, by a
//! mask, or not at all on this host (a gap).
//!
//! A mask is a mount over the object. It goes away when the object is renamed over and it
//! moves with its directory, so it is a protection only where nobody but root can change the
//! directories from the granted root down to the object, where the object has no second name,
//! and where the agent may not write.

use super::files::{FileRules, TakeAway, Taken};
use super::{Mask, Row};
use crate::policy::facts::{Kind, Object, mounts};
use crate::policy::model::Verb;

/// `Gap::protection` for something that exists.
pub(super) const FILE_DENY: &str = "file-deny";
/// `Gap::protection` for a name that may appear later.
pub(super) const FILE_DENY_PATTERN: &str = "file-deny-pattern";

/// How one take-away comes out.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Nothing gives what it takes.
    Holds,
    /// The mask holds it.
    Masked(Box<Mask>),
    /// Nothing on this host holds it.
    Missing {
        protection: &'static str,
        why: String,
    },
}

/// How each take-away of the policy comes out, with its row.
pub(super) fn judge(rules: &FileRules) -> Vec<(Row, Outcome)> {
    rules
        .taken
        .iter()
        .map(|taken| (taken.row, judge_one(rules, taken)))
        .collect()
}

fn judge_one(rules: &FileRules, taken: &TakeAway) -> Outcome {
    let protect = taken.verb == Verb::Protect;
    match &taken.what {
        Taken::Pattern(pattern) => judge_pattern(rules, pattern, protect),
        Taken::Name(path) => {
            let mut covering = rules.grants.iter().filter(|grant| grant.reaches(path));
            let given = covering.any(|grant| !protect || grant.rights.write);
            if !given {
                return Outcome::Holds;
            }
            Outcome::Missing {
                protection: FILE_DENY_PATTERN,
                why: format!(
                    "`{}` does not exist yet, and a mask can only cover what exists",
                    path.display()
                ),
            }
        }
        Taken::Object(object) => judge_object(rules, taken, object, protect),
    }
}

fn judge_pattern(rules: &FileRules, pattern: &str, protect: bool) -> Outcome {
    let given = rules
        .grants
        .iter()
        .any(|grant| grant.row.is_some() && (!protect || grant.rights.write));
    if !given {
        return Outcome::Holds;
    }
    Outcome::Missing {
        protection: FILE_DENY_PATTERN,
        why: format!("`{pattern}` covers names that may appear later, and a mask cannot"),
    }
}

fn judge_object(rules: &FileRules, taken: &TakeAway, object: &Object, protect: bool) -> Outcome {
    if let Some(other) = alias(rules, object, protect) {
        return missing(format!(
            "`{}` is the same object as `{}`, which a rule grants",
            object.path.display(),
            other.display()
        ));
    }
    // A grant of the object itself, or of something below it, is simply not given.
    let above: Vec<_> = rules
        .covering(&object.path)
        .filter(|grant| grant.path != object.path)
        .collect();
    if above.iter().all(|grant| protect && !grant.rights.write) {
        return Outcome::Holds;
    }
    if above.iter().any(|grant| grant.rights.write) {
        return missing(format!(
            "`{}` lies inside a tree that the agent may write, where a mask can be moved away",
            object.path.display()
        ));
    }
    let Some(root) = above
        .iter()
        .map(|grant| &grant.path)
        .min_by_key(|path| path.as_os_str().len())
    else {
        return Outcome::Holds;
    };
    let between = object
        .ancestors
        .iter()
        .filter(|ancestor| ancestor.path.starts_with(root));
    let mut directories = 0;
    for ancestor in between {
        directories += 1;
        if ancestor.uid != 0 || ancestor.mode & 0o022 != 0 {
            return missing(format!(
                "`{}` belongs to uid {} with mode {:04o}, so that others than root can move a \
                 mask away",
                ancestor.path.display(),
                ancestor.uid,
                ancestor.mode
            ));
        }
    }
    if directories == 0 {
        return missing(format!(
            "the directories above `{}` are unknown",
            object.path.display()
        ));
    }
    if object.kind != Kind::Directory && object.nlink > 1 {
        return missing(format!(
            "`{}` has {} names (hard links), and a mask covers one",
            object.path.display(),
            object.nlink
        ));
    }
    Outcome::Masked(Box::new(Mask {
        path: object.path.clone(),
        directory: object.kind == Kind::Directory,
        read_stays: protect,
        object: object.clone(),
        row: taken.row,
    }))
}

/// Another granted path that is the same directory as the object or one above it (a bind
/// mount of the host): the object would stay in reach under that name.
fn alias<'a>(
    rules: &'a FileRules,
    object: &'a Object,
    protect: bool,
) -> Option<&'a std::path::Path> {
    let names = mounts::other_names(&rules.mounts, object, &object.path);
    let named = rules.grants.iter().find(|grant| {
        let reached = |name: &std::path::PathBuf| grant.reaches(name);
        !grant.origin.own() && (!protect || grant.rights.write) && names.iter().any(reached)
    });
    if let Some(grant) = named {
        return Some(&grant.path);
    }
    let chain = object
        .ancestors
        .iter()
        .map(|ancestor| (ancestor.dev, ancestor.ino, &ancestor.path))
        .chain([(object.dev, object.ino, &object.path)]);
    for (dev, ino, path) in chain {
        for grant in rules
            .grants
            .iter()
            .filter(|grant| !protect || grant.rights.write)
        {
            if let super::files::Origin::Host(granted) = &grant.origin
                && (granted.dev, granted.ino) == (dev, ino)
                && granted.path != *path
            {
                return Some(&granted.path);
            }
        }
    }
    None
}

fn missing(why: String) -> Outcome {
    Outcome::Missing {
        protection: FILE_DENY,
        why,
    }
}

#[cfg(test)]
mod tests {
    use crate::host::Host;
    use crate::plan::testing::{add, directory, file, plan, plan_on, policy};
    use crate::plan::{CompileOptions, Plan, State, compile};
    use crate::policy::facts::Object;
    use crate::policy::model::{Policy, Target, Verb};

    fn ticket(denied: Object) -> Policy {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory("/srv/tickets/42", 0)),
        );
        add(&mut policy, Verb::Deny, Target::Object(denied));
        policy
    }

    fn gaps(plan: &Plan) -> Vec<&str> {
        plan.open_gaps().map(|gap| gap.protection).collect()
    }

    #[test]
    fn a_file_below_directories_of_root_is_masked() {
        let plan = plan(ticket(file("/srv/tickets/42/payment.json", 0)));
        assert_eq!(gaps(&plan), [""; 0]);
        assert_eq!(plan.view.masks.len(), 1);
        assert!(!plan.view.masks[0].read_stays);
        assert_eq!(plan.state("file-deny"), Some(State::Enforced));
    }

    #[test]
    fn a_parent_of_somebody_else_makes_a_gap() {
        let mut denied = file("/srv/tickets/42/payment.json", 0);
        denied.ancestors.last_mut().unwrap().mode = 0o775;
        assert_eq!(gaps(&plan(ticket(denied.clone()))), ["file-deny"]);
        let last = denied.ancestors.last_mut().unwrap();
        (last.mode, last.uid) = (0o755, 1000);
        assert_eq!(gaps(&plan(ticket(denied))), ["file-deny"]);
    }

    #[test]
    fn directories_above_the_granted_root_do_not_matter() {
        let mut denied = file("/srv/tickets/42/payment.json", 0);
        denied.ancestors[1].uid = 1000;
        assert_eq!(gaps(&plan(ticket(denied))), [""; 0]);
    }

    #[test]
    fn a_second_name_makes_a_gap() {
        let mut denied = file("/srv/tickets/42/payment.json", 0);
        denied.nlink = 2;
        assert_eq!(gaps(&plan(ticket(denied))), ["file-deny"]);
    }

    #[test]
    fn a_second_way_to_the_same_directory_makes_a_gap() {
        let mut policy = ticket(file("/srv/tickets/42/payment.json", 0));
        let mut elsewhere = directory("/mnt/tickets", 0);
        elsewhere.ino = directory("/srv/tickets", 0).ino;
        add(&mut policy, Verb::Read, Target::Object(elsewhere));
        assert_eq!(gaps(&plan(policy)), ["file-deny"]);
    }

    #[test]
    fn a_bind_mount_of_something_above_makes_a_gap_too() {
        let mut policy = ticket(file("/srv/tickets/42/payment.json", 0));
        policy.mounts = crate::policy::facts::mounts::parse(
            b"1 0 8:0 / / rw\n2 1 8:0 /srv/tickets /mnt/deep/tickets rw\n",
        );
        let mut around = directory("/mnt/deep/tickets/42", 0);
        around.mount = 2;
        add(&mut policy, Verb::Read, Target::Object(around));
        assert_eq!(gaps(&plan(policy)), ["file-deny"]);
    }

    #[test]
    fn inside_a_write_grant_a_mask_does_not_hold() {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Write,
            Target::Object(directory("/home/anna/work", 1000)),
        );
        let mut hooks = directory("/home/anna/work/.git/hooks", 1000);
        hooks.mode = 0o755;
        add(&mut policy, Verb::Protect, Target::Object(hooks));
        let plan = plan(policy);
        assert_eq!(gaps(&plan), ["file-deny"]);
        assert!(plan.view.masks.is_empty());
    }

    #[test]
    fn protect_holds_by_itself_in_what_is_only_read() {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory("/home/anna/work", 1000)),
        );
        let hooks = directory("/home/anna/work/.git/hooks", 1000);
        add(&mut policy, Verb::Protect, Target::Object(hooks));
        add(
            &mut policy,
            Verb::Protect,
            Target::Pattern("**/.git/config".to_owned()),
        );
        let plan = plan(policy);
        assert_eq!(gaps(&plan), [""; 0]);
        assert_eq!(plan.state("file-deny"), Some(State::NotNeeded));
    }

    #[test]
    fn patterns_and_later_names_are_gaps_until_accepted() {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Write,
            Target::Object(directory("/home/anna/work", 1000)),
        );
        add(
            &mut policy,
            Verb::Deny,
            Target::Pattern("**/.env".to_owned()),
        );
        add(
            &mut policy,
            Verb::Deny,
            Target::Missing("/home/anna/work/.npmrc".into()),
        );
        let open = plan(policy.clone());
        assert_eq!(gaps(&open), ["file-deny-pattern"; 2]);
        assert_eq!(open.state("file-deny-pattern"), Some(State::Off));
        let options = CompileOptions {
            allow_degraded: vec!["file-deny-pattern".to_owned()],
            ..CompileOptions::default()
        };
        policy.caller.uid = 0;
        let accepted = compile(policy, &Host::emulated(7), &options).unwrap();
        assert_eq!(accepted.open_gaps().count(), 0);
        assert_eq!(accepted.state("file-deny-pattern"), Some(State::Degraded));
        assert!(!accepted.enforces(1) && accepted.enforces(0));
    }

    #[test]
    fn what_nothing_gives_needs_nothing() {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory("/srv/kb", 0)),
        );
        add(
            &mut policy,
            Verb::Deny,
            Target::Object(file("/etc/shadow", 0)),
        );
        add(&mut policy, Verb::Deny, Target::Missing("/opt/none".into()));
        let plan = plan_on(policy, &Host::emulated(2));
        assert_eq!(gaps(&plan), [""; 0]);
        assert!(plan.view.masks.is_empty());
    }
}
