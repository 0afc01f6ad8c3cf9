// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gaps of single rules: what of a rule this host cannot hold, why, and what to do.

use std::path::Path;

use super::Gap;
use super::takeaway::FILE_DENY;
use crate::host::{Host, Means};
use crate::policy::facts::Kind;
use crate::policy::model::{DenialLimit, FileRule, Policy, RuleInfo, Target, Verb};

/// The gap of a rule that takes away. `closes`: what would let LSM programs hold it.
pub(super) fn file_gap(
    protection: &'static str,
    why: String,
    closes: Option<&str>,
    info: &RuleInfo,
) -> Gap {
    let otherwise = if protection == FILE_DENY {
        "narrow the grant around it, or let only root write the directories above it; or accept \
         less for this rule with fallback = \"mask-existing\""
    } else {
        "name the files that exist, in a tree that the agent may only read; or accept less for \
         this rule with fallback = \"mask-existing\""
    };
    Gap {
        protection,
        rule: Some(info.key.clone()),
        place: info.place.text(),
        why,
        remedy: match closes {
            Some(closes) => format!("{closes}; or {otherwise}"),
            None => otherwise.to_owned(),
        },
        accepted: false,
        existing_held: false,
        acceptable: true,
    }
}

/// The gap of a rule whose fallback holds what exists.
pub(super) fn existing_gap(
    protection: &'static str,
    why: String,
    closes: Option<&str>,
    info: &RuleInfo,
) -> Gap {
    Gap {
        accepted: true,
        existing_held: true,
        remedy: closes.unwrap_or_default().to_owned(),
        ..file_gap(protection, why, None, info)
    }
}

/// The gap of a grant with something mounted below it: an ordinary user cannot leave that out,
/// since the kernel shows nobody what a mount of another's hides.
pub(super) fn mount_gap(at: &Path, grant: &Path, info: &RuleInfo) -> Gap {
    Gap {
        protection: "host",
        rule: Some(info.key.clone()),
        place: info.place.text(),
        why: format!(
            "`{}` is a mount of its own below `{}`, and without root it cannot be left out",
            at.display(),
            grant.display()
        ),
        remedy: "grant what lies beside it; or start it with sudo".to_owned(),
        accepted: false,
        existing_held: false,
        acceptable: false,
    }
}

/// The gap of a grant that needs an id map which the file system, or whoever is not root, does
/// not get.
pub(super) fn idmap_gap(host: &Host, why: String, info: &RuleInfo) -> Gap {
    Gap {
        protection: "identity",
        rule: Some(info.key.clone()),
        place: info.place.text(),
        why,
        remedy: match host.means {
            Means::Root => "[identity] user = \"caller\" runs the agent as the owner",
            Means::UserNamespace | Means::Alone => {
                "grant what you may use yourself; or start it with sudo"
            }
        }
        .to_owned(),
        accepted: false,
        existing_held: false,
        acceptable: false,
    }
}

/// The gap of a policy that counts refusals where nobody sees one.
pub(super) fn denials_gap(limit: Option<&DenialLimit>, host: &Host) -> Option<Gap> {
    let limit = limit.filter(|_| host.means != Means::Root)?;
    Some(Gap {
        protection: "host",
        rule: None,
        place: limit.place.text(),
        why: "limits.denials counts what eBPF sees refused, and that takes root".to_owned(),
        remedy: "leave it out; or start it with sudo".to_owned(),
        accepted: false,
        existing_held: false,
        acceptable: false,
    })
}

/// The gap of a secret that is to be a file where the run has no place of its own.
pub(super) fn secrets_gap(policy: &Policy, host: &Host) -> Option<Gap> {
    if host.means != Means::Alone || !policy.has_secret_files() {
        return None;
    }
    let place = policy.secrets.first().map(|secret| &secret.place)?;
    Some(Gap {
        protection: "host",
        rule: None,
        place: place.text(),
        why: "a secret as a file needs a place of the run's own, and there are no namespaces"
            .to_owned(),
        remedy: "allow user namespaces; or start it with sudo".to_owned(),
        accepted: false,
        existing_held: false,
        acceptable: false,
    })
}

/// Trees of programs, libraries and settings: in what only root changes there, no service
/// keeps a socket.
const WITHOUT_SOCKETS: [&str; 9] = [
    "/bin", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/sbin", "/usr",
];

/// The gap of a rule that grants a directory in which others may keep sockets: another run of the
/// same policy too, in what is kept for it. A hook that sees names could not close it, since what
/// is connected to is found through links.
pub(super) fn socket_gap(rule: &FileRule) -> Option<Gap> {
    if rule.verb > Verb::Write {
        return None;
    }
    let below = |path: &Path, trees: &[&str]| trees.iter().any(|tree| path.starts_with(tree));
    let path = rule.targets.iter().find_map(|target| match target {
        Target::Object(object) if object.kind == Kind::Directory => {
            let held = rule.verb != Verb::Write
                && object.uid == 0
                && below(&object.path, &WITHOUT_SOCKETS);
            (!held).then_some(&object.path)
        }
        Target::Create { path, .. } => Some(path),
        _ => None,
    })?;
    Some(Gap {
        protection: "unix-sockets",
        rule: Some(rule.info.key.clone()),
        place: rule.info.place.text(),
        why: format!(
            "others may have sockets in `{}`, and this run may connect to what its permissions let it",
            path.display()
        ),
        remedy: "grant the files in it, not the directory; or leave network.unix out; or accept \
                 it with [enforcement] degrade = [\"unix-sockets\"]"
            .to_owned(),
        accepted: false,
        existing_held: false,
        acceptable: true,
    })
}
