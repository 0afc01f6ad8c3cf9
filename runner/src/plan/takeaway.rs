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
use crate::policy::facts::{Kind, Object};
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
            let mut covering = rules
                .grants
                .iter()
                .filter(|grant| path.starts_with(&grant.path));
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
