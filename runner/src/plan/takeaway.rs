// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `deny` and `protect` take away, and whether it holds: because nothing gives it, by a
//! mask, by LSM programs, or not at all on this host (a gap).
//!
//! A mask is a mount over the object. It goes away when the object is renamed over and it
//! moves with its directory, so it is a protection only where nobody but root can change the
//! directories from the granted root down to the object, where the object has no second name,
//! and where the agent may not write.

use std::path::Path;

use lp_run_common::lsm::{LONGEST_NAME, LONGEST_SIDE};

use super::files::{FileRules, Grant, Origin, TakeAway, Taken};
use super::{Mask, TakenTarget};
use crate::policy::facts::{Kind, Object, mounts};
use crate::policy::model::Verb;
use crate::policy::pattern::Pattern;

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
    /// LSM programs hold it.
    Kernel {
        protection: &'static str,
        targets: Vec<TakenTarget>,
    },
    /// Nothing on this host holds it, but what its fallback has found is masked.
    Existing {
        protection: &'static str,
        why: String,
        by_lsm: bool,
    },
    /// Nothing on this host holds it. `by_lsm`: LSM programs would.
    Missing {
        protection: &'static str,
        why: String,
        by_lsm: bool,
    },
}

/// How each take-away of the policy comes out, with its row. `lsm`: the host runs LSM programs.
pub(super) fn judge(rules: &FileRules, lsm: bool) -> Vec<(&TakeAway, Outcome)> {
    let judge_one = |taken| match judge_one(rules, taken) {
        Outcome::Missing {
            protection, why, ..
        } => match in_kernel(rules, taken) {
            Ok(targets) if lsm => Outcome::Kernel {
                protection,
                targets,
            },
            Ok(_) => missing(rules, taken, protection, why, true),
            Err(other) if lsm => missing(rules, taken, protection, other.unwrap_or(why), false),
            Err(_) => missing(rules, taken, protection, why, false),
        },
        other => other,
    };
    let taken = rules.taken.iter();
    taken.map(|taken| (taken, judge_one(taken))).collect()
}

/// What nothing holds: the fallback's, where the rule has one that was looked for.
fn missing(
    rules: &FileRules,
    taken: &TakeAway,
    protection: &'static str,
    why: String,
    by_lsm: bool,
) -> Outcome {
    let again = |why: String| Outcome::Missing {
        protection,
        why,
        by_lsm,
    };
    match rules.fallback.get(&taken.row) {
        Some(Ok(count)) => Outcome::Existing {
            protection,
            why: format!("{}: {}", described(&taken.what), held(&taken.what, *count)),
            by_lsm,
        },
        Some(Err(failure)) => again(format!("{why}; its fallback was given up: {failure}")),
        None => again(why),
    }
}

/// What a fallback holds, and what not.
fn held(what: &Taken, count: usize) -> String {
    match what {
        Taken::Pattern(_) => format!(
            "{count} that exist now are masked; what is made, renamed, linked or moved to such a \
             name later is not held"
        ),
        _ if count == 0 => "it is not there now, and is not held when it appears".to_owned(),
        _ => "it is masked; what takes its place, when it or a directory above is moved, is not \
              held"
            .to_owned(),
    }
}

fn described(what: &Taken) -> String {
    match what {
        Taken::Pattern(pattern) => format!("`{pattern}`"),
        other => other
            .path()
            .map_or_else(String::new, |path| format!("`{}`", path.display())),
    }
}

/// File systems that keep one inode object for a file as long as somebody holds it: what is in
/// them can be known again.
const STEADY: [&str; 5] = ["btrfs", "ext4", OVERLAY, "tmpfs", "xfs"];

/// Keeps one inode object for each directory and for each file of one name, also when it is copied
/// up; the names of a file with several may be objects of their own.
const OVERLAY: &str = "overlay";

/// How LSM programs hold it, or why they cannot; `None`: for the reason that a mask cannot.
fn in_kernel(rules: &FileRules, taken: &TakeAway) -> Result<Vec<TakenTarget>, Option<String>> {
    let protect = taken.verb == Verb::Protect;
    let one = match &taken.what {
        Taken::Pattern(pattern) => return in_kernel_pattern(rules, pattern, protect),
        Taken::Object(object) => {
            if alias(rules, object, protect).is_some() {
                return Err(None);
            }
            one_object(object)?;
            in_kernel_path(rules, &object.path, protect)
        }
        Taken::Name(path) => in_kernel_path(rules, path, protect),
        Taken::Existing(object) => {
            one_object(object)?;
            in_kernel_path(rules, &object.path, protect)
        }
    };
    one.map(|target| vec![target])
}

/// Whether every name of it leads to the same inode object.
fn one_object(object: &Object) -> Result<(), Option<String>> {
    if object.filesystem == OVERLAY && object.kind != Kind::Directory && object.nlink > 1 {
        return Err(Some(format!(
            "`{}` has {} names (hard links), which are several objects on an overlay; copy it, so \
             that it has one",
            object.path.display(),
            object.nlink
        )));
    }
    Ok(())
}

fn in_kernel_path(
    rules: &FileRules,
    path: &Path,
    protect: bool,
) -> Result<TakenTarget, Option<String>> {
    let above = rules.covering(path).filter(|grant| grant.path != *path);
    let root = above.min_by_key(|grant| grant.path.as_os_str().len());
    let Some(Grant {
        origin: Origin::Host(root),
        ..
    }) = root
    else {
        return Err(Some(format!(
            "`{}` lies in a directory that is made at the start",
            path.display()
        )));
    };
    known_again(rules, root, protect)?;
    let below = path.strip_prefix(&root.path).unwrap_or(path);
    match below.file_name() {
        Some(name) if name.len() <= LONGEST_NAME => Ok(TakenTarget::Below {
            root: root.clone(),
            path: below.to_owned(),
        }),
        _ => Err(Some(format!(
            "the name of `{}` is too long",
            path.display()
        ))),
    }
}

/// Whether what lies below a granted root can be told by its objects.
fn known_again(rules: &FileRules, root: &Object, protect: bool) -> Result<(), Option<String>> {
    if !STEADY.contains(&root.filesystem.as_str()) {
        return Err(Some(format!(
            "`{}` is on {}, and LSM programs hold files of {} only",
            root.path.display(),
            root.filesystem,
            STEADY.join(", ")
        )));
    }
    // Moved through another way, the directories above the root would take its path along.
    match alias(rules, root, protect) {
        Some(_) => Err(None),
        None => Ok(()),
    }
}

fn in_kernel_pattern(
    rules: &FileRules,
    text: &str,
    protect: bool,
) -> Result<Vec<TakenTarget>, Option<String>> {
    let pattern = Pattern::new(text);
    let fits = |part: &&str| match part.split_once('*') {
        None => ![".", ".."].contains(part) && part.len() <= LONGEST_NAME,
        Some((first, last)) => first.len() <= LONGEST_SIDE && last.len() <= LONGEST_SIDE,
    };
    if !pattern.parts().iter().all(fits) {
        return Err(Some(format!(
            "LSM programs compare names of up to {LONGEST_NAME} bytes, and up to {LONGEST_SIDE} on \
             each side of a `*`; `{text}` has longer ones"
        )));
    }
    let Some(directory) = pattern.directory() else {
        return match rules.grants.iter().find(|grant| is_own_tree(grant)) {
            Some(own) => Err(Some(format!(
                "`{}` is the run's own, and LSM programs hold names in what is the host's only",
                own.path.display()
            ))),
            None => match rules
                .grants
                .iter()
                .find(|grant| renamed(rules, &pattern, grant))
            {
                Some(grant) => Err(Some(format!(
                    "`{}` is a mount, whose own name LSM programs do not see, and `{text}` begins \
                     with it",
                    grant.path.display()
                ))),
                None => Ok(vec![TakenTarget::Pattern(text.to_owned())]),
            },
        };
    };
    let mut targets = Vec::new();
    for grant in rules.grants.iter().filter(|grant| grant.touches(directory)) {
        let Origin::Host(root) = &grant.origin else {
            return Err(Some(format!(
                "`{}` is made at the start, and LSM programs hold names below a directory in what \
                 is there only",
                grant.path.display()
            )));
        };
        if pattern.covers(directory, &grant.path) {
            return Err(Some(format!(
                "`{}`, which a rule grants, is what `{text}` takes away",
                grant.path.display()
            )));
        }
        let inside = directory.starts_with(&grant.path);
        if pattern.direct() && !inside {
            continue;
        }
        if !pattern.direct() && inside && directory != grant.path && grant.rights.write {
            return Err(Some(format!(
                "what is below `{}` can be moved out of it, within `{}`, and then no rule finds it; \
                 grant `{0}` in place of `{1}`, or take the names away everywhere (`**/…`)",
                directory.display(),
                grant.path.display()
            )));
        }
        let between = grant.path.strip_prefix(directory).unwrap_or(Path::new(""));
        if pattern.begins_with(between, pattern.parts().len() - 1) {
            return Err(Some(format!(
                "`{}`, which a rule grants, is the beginning of `{text}`, and LSM programs do not \
                 see what is above it; name what is below it in a rule of its own",
                grant.path.display()
            )));
        }
        known_again(rules, root, protect)?;
        let below = directory.strip_prefix(&grant.path).unwrap_or(Path::new(""));
        targets.push(TakenTarget::Inside {
            root: root.clone(),
            directory: below.to_owned(),
            pattern: text.to_owned(),
        });
    }
    Ok(targets)
}

/// Whether a grant is a mount and its name the first of the pattern's: the kernel side reads the name
/// that a directory has in its file system.
fn renamed(rules: &FileRules, pattern: &Pattern<'_>, grant: &Grant) -> bool {
    let mut mounts = rules.mounts.iter();
    let renamed = mounts
        .any(|mount| mount.at == grant.path && mount.root.file_name() != grant.path.file_name());
    renamed && !grant.origin.own() && pattern.begins_with(&grant.path, 1)
}

/// A tree of the run's own that a rule names.
fn is_own_tree(grant: &Grant) -> bool {
    let apart = ["/proc", "/dev/pts"]
        .iter()
        .any(|at| grant.path.starts_with(at));
    grant.row.is_some() && grant.origin.own() && grant.directory && !apart
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
                by_lsm: false,
            }
        }
        Taken::Object(object) => judge_object(rules, taken, object, protect),
        Taken::Existing(object) => {
            let above = rules.covering(&object.path);
            let mut above = above.filter(|grant| grant.path != object.path);
            match above.any(|grant| !protect || grant.rights.write) {
                true => masked(taken, object),
                false => Outcome::Holds,
            }
        }
    }
}

fn masked(taken: &TakeAway, object: &Object) -> Outcome {
    Outcome::Masked(Box::new(Mask {
        path: object.path.clone(),
        directory: object.kind == Kind::Directory,
        read_stays: taken.verb == Verb::Protect,
        object: object.clone(),
        idmap: None,
        row: taken.row,
    }))
}

fn judge_pattern(rules: &FileRules, pattern: &str, protect: bool) -> Outcome {
    let of = Pattern::new(pattern);
    let given = rules.grants.iter().any(|grant| {
        let meant = match of.directory() {
            Some(directory) => grant.touches(directory),
            None => grant.row.is_some(),
        };
        meant && (!protect || grant.rights.write)
    });
    if !given {
        return Outcome::Holds;
    }
    Outcome::Missing {
        protection: FILE_DENY_PATTERN,
        why: format!("`{pattern}` covers names that may appear later, and a mask cannot"),
        by_lsm: false,
    }
}

fn judge_object(rules: &FileRules, taken: &TakeAway, object: &Object, protect: bool) -> Outcome {
    if let Some(other) = alias(rules, object, protect) {
        return file_deny(format!(
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
        return file_deny(format!(
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
            return file_deny(format!(
                "`{}` belongs to uid {} with mode {:04o}, so that others than root can move a \
                 mask away",
                ancestor.path.display(),
                ancestor.uid,
                ancestor.mode
            ));
        }
    }
    if directories == 0 {
        return file_deny(format!(
            "the directories above `{}` are unknown",
            object.path.display()
        ));
    }
    if object.kind != Kind::Directory && object.nlink > 1 {
        return file_deny(format!(
            "`{}` has {} names (hard links), and a mask covers one",
            object.path.display(),
            object.nlink
        ));
    }
    masked(taken, object)
}

/// Another granted path that is the same directory as the object or one above it (a bind
/// mount of the host): the object would stay in reach under that name.
pub(super) fn alias<'a>(
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

fn file_deny(why: String) -> Outcome {
    Outcome::Missing {
        protection: FILE_DENY,
        why,
        by_lsm: false,
    }
}

#[cfg(test)]
mod tests {
    use super::OVERLAY;
    use crate::host::Capability;
    use crate::host::Host;
    use crate::plan::testing::{add, directory, file, plan as plan_with_lsm, plan_on, policy};
    use crate::plan::{CompileOptions, Plan, State, TakenTarget, compile};
    use crate::policy::facts::Object;
    use crate::policy::model::{Policy, Target, Verb};

    /// A host that runs no LSM programs.
    fn without_lsm() -> Host {
        Host {
            bpf_lsm: Capability::No {
                why: String::new(),
                remedy: String::new(),
            },
            ..Host::emulated(7)
        }
    }

    fn plan(policy: Policy) -> Plan {
        plan_on(policy, &without_lsm())
    }

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
        let accepted = compile(policy, &without_lsm(), &options).unwrap();
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

    /// What LSM programs hold of a policy that lets `/home/anna/work` be written.
    fn held(verb: Verb, target: Target) -> Plan {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Write,
            Target::Object(directory("/home/anna/work", 1000)),
        );
        add(&mut policy, verb, target);
        plan_with_lsm(policy)
    }

    #[test]
    fn lsm_programs_hold_objects_names_and_plain_patterns() {
        let hooks = directory("/home/anna/work/.git/hooks", 1000);
        let plan = held(Verb::Protect, Target::Object(hooks));
        assert_eq!(gaps(&plan), [""; 0]);
        assert_eq!(plan.state("file-deny"), Some(State::Enforced));
        assert_eq!((plan.taken[0].row, plan.taken[0].read), (1, false));
        assert!(matches!(
            &plan.taken[0].target,
            TakenTarget::Below { path, .. } if path.as_os_str() == ".git/hooks"
        ));
        let plan = held(Verb::Deny, Target::Missing("/home/anna/work/.npmrc".into()));
        assert_eq!(plan.state("file-deny-pattern"), Some(State::Enforced));
        assert!(plan.taken[0].read);
        for pattern in [
            "**/.env",
            "**/.git/hooks",
            "**/*.pem",
            "**/secrets-*",
            "**/a/b*/c",
            "/home/anna/work/**/x",
            "/home/anna/work/keys/*.key",
            "/home/anna/**/.env",
        ] {
            let plan = held(Verb::Deny, Target::Pattern(pattern.to_owned()));
            assert_eq!(gaps(&plan), [""; 0], "{pattern}");
            assert_eq!(plan.taken.len(), 1, "{pattern}");
            assert_eq!(plan.state("file-deny-pattern"), Some(State::Enforced));
        }
        let elsewhere = held(Verb::Deny, Target::Pattern("/srv/**/x".to_owned()));
        assert_eq!(gaps(&elsewhere), [""; 0]);
        assert!(elsewhere.taken.is_empty(), "nothing gives it");
    }

    #[test]
    fn what_lsm_programs_cannot_hold_stays_a_gap() {
        let side = format!("**/{}*", "n".repeat(32));
        for pattern in [
            "**/.",
            &side,
            "/home/**/work",
            "/home/anna/w*",
            "/tmp/**/x",
            "/**/x",
            // What is below could be moved away, and begins above the grant.
            "/home/anna/work/keys/**/x",
            "/home/**/work/x",
            "/home/**/anna/wor*/x",
        ] {
            let plan = held(Verb::Deny, Target::Pattern(pattern.to_owned()));
            assert_eq!(gaps(&plan), ["file-deny-pattern"], "{pattern}");
            assert!(plan.taken.is_empty());
        }
        let long = format!("**/{}", "n".repeat(64));
        let plan = held(Verb::Deny, Target::Pattern(long));
        assert_eq!(gaps(&plan), ["file-deny-pattern"]);
        let mut policy = policy();
        let mut work = directory("/home/anna/work", 1000);
        "nfs".clone_into(&mut work.filesystem);
        add(&mut policy, Verb::Write, Target::Object(work));
        let hooks = directory("/home/anna/work/.git/hooks", 1000);
        add(&mut policy, Verb::Protect, Target::Object(hooks));
        let plan = plan_with_lsm(policy);
        assert_eq!(gaps(&plan), ["file-deny"]);
        assert!(plan.gaps[0].why.contains("nfs"), "{}", plan.gaps[0].why);
    }

    #[test]
    fn on_an_overlay_one_name_is_one_object() {
        let on_overlay = |nlink| {
            let mut policy = policy();
            let mut work = directory("/home/anna/work", 1000);
            let mut key = file("/home/anna/work/key", 1000);
            for object in [&mut work, &mut key] {
                OVERLAY.clone_into(&mut object.filesystem);
            }
            key.nlink = nlink;
            add(&mut policy, Verb::Write, Target::Object(work));
            add(&mut policy, Verb::Deny, Target::Object(key));
            plan_with_lsm(policy)
        };
        assert_eq!(on_overlay(1).state("file-deny"), Some(State::Enforced));
        let linked = on_overlay(2);
        assert_eq!(gaps(&linked), ["file-deny"]);
        let why = &linked.gaps[0].why;
        assert!(why.contains("`/home/anna/work/key` has 2 names"), "{why}");
    }

    #[test]
    fn a_gap_that_lsm_programs_would_close_says_how() {
        let host = Host {
            bpf_lsm: Capability::No {
                why: String::new(),
                remedy: "add lsm=landlock,bpf".to_owned(),
            },
            ..Host::emulated(7)
        };
        let long = format!("**/{}*", "n".repeat(32));
        for (pattern, helps) in [("**/*.pem", true), (long.as_str(), false)] {
            let mut policy = policy();
            let work = Target::Object(directory("/home/anna/work", 1000));
            add(&mut policy, Verb::Write, work);
            add(&mut policy, Verb::Deny, Target::Pattern(pattern.to_owned()));
            let plan = plan_on(policy, &host);
            let remedy = &plan.gaps[0].remedy;
            assert_eq!(remedy.starts_with("add lsm="), helps, "{remedy}");
            assert!(remedy.contains("fallback = \"mask-existing\""), "{remedy}");
        }
    }

    #[test]
    fn another_way_to_a_directory_above_stays_a_gap() {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Write,
            Target::Object(directory("/home/anna/work", 1000)),
        );
        let mut elsewhere = directory("/mnt/anna", 0);
        elsewhere.ino = directory("/home/anna", 0).ino;
        add(&mut policy, Verb::Write, Target::Object(elsewhere));
        add(
            &mut policy,
            Verb::Protect,
            Target::Missing("/home/anna/work/.npmrc".into()),
        );
        assert_eq!(gaps(&plan_with_lsm(policy)), ["file-deny-pattern"]);
    }

    #[test]
    fn a_mask_that_holds_is_kept() {
        let plan = plan_with_lsm(ticket(file("/srv/tickets/42/payment.json", 0)));
        assert_eq!(plan.view.masks.len(), 1);
        assert!(plan.taken.is_empty());
    }
}
