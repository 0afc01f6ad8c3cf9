// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the file system's own permissions (owner, mode) let the agent use what a rule
//! grants, and where an idmapped mount makes the agent the owner.
//!
//! A write grant on a tree of somebody else is idmapped, so that what the agent makes belongs
//! to the tree's owner. A read grant is idmapped only where the granted object's own mode
//! keeps the agent out: within a tree that others may read, files that they may not read stay
//! closed (`/etc/shadow` below a granted `/etc`). An id map lends the owner's rights, so it is
//! made only for owners whose rights the policy's author may lend: every owner when the policy
//! belongs to root, else the author's own files.

use super::error::CompileError;
use super::files::{Grant, Origin};
use super::{IdMap, Rights};
use crate::host::{Capability, Host, Means};
use crate::policy::facts::{Kind, Object, User};
use crate::policy::model::{Policy, RuleInfo, UserChoice, ViewChoice};

const READ: u32 = 4;
const WRITE: u32 = 2;
const SEARCH: u32 = 1;

/// What a grant needs beyond a plain mount.
#[derive(Clone, Debug, Default)]
pub(super) struct Lent {
    pub idmap: Option<IdMap>,
    /// Why this host cannot make that id map.
    pub gap: Option<String>,
}

/// The id map that a grant needs, or why no id map helps.
pub(super) fn check(
    policy: &Policy,
    host: &Host,
    grant: &Grant,
    info: &RuleInfo,
) -> Result<Lent, CompileError> {
    // It belongs to root, and is lent to the policy for which it is kept.
    let kept = policy.kept.iter().any(|kept| grant.path.starts_with(kept));
    match &grant.origin {
        Origin::Own => Ok(Lent::default()),
        Origin::Host(object) | Origin::Create(object) if kept => {
            let owns = agent_ids(policy).is_some_and(|user| user.uid == object.uid);
            Ok(if owns {
                Lent::default()
            } else {
                lend_rights(host, object)
            })
        }
        Origin::Host(object) => object_needs(policy, host, object, grant.rights, info),
        Origin::Create(parent) => {
            let rights = Rights {
                read: true,
                write: true,
                exec: false,
            };
            object_needs(policy, host, parent, rights, info)
        }
    }
}

/// The same for an object that is no grant of `[files]`: a Unix socket, which connecting
/// needs to write.
pub(super) fn object_needs(
    policy: &Policy,
    host: &Host,
    object: &Object,
    rights: Rights,
    info: &RuleInfo,
) -> Result<Lent, CompileError> {
    let agent = agent_ids(policy);
    if policy.identity.view == ViewChoice::Host {
        way(policy, object, info)?;
    }
    if agent.is_some_and(|user| user.uid == object.uid) {
        return Ok(Lent::default());
    }
    let needed = needed(object, rights);
    let class = if agent.is_some_and(|user| user.gid == object.gid) {
        3
    } else {
        0
    };
    let permitted = (object.mode >> class) & 7;
    let lend = policy.file_owner == 0 || policy.file_owner == object.uid;
    let maps = host.means == Means::Root;
    let regular = matches!(object.kind, Kind::File | Kind::Directory);
    if permitted & needed == needed && !(rights.write && lend && regular && maps) {
        return Ok(Lent::default());
    }
    let owner = (object.mode >> 6) & 7;
    if !lend || owner & needed != needed {
        return Err(refusal(
            policy,
            object,
            needed & !if lend { owner } else { permitted },
            info,
        ));
    }
    Ok(lend_rights(host, object))
}

/// In the host's view the agent walks the host's directories, which no id map opens.
fn way(policy: &Policy, object: &Object, info: &RuleInfo) -> Result<(), CompileError> {
    let closed = object.ancestors.iter().find(|above| {
        let class = match agent_ids(policy) {
            Some(user) if user.uid == above.uid => 6,
            Some(user) if user.gid == above.gid => 3,
            _ => 0,
        };
        (above.mode >> class) & SEARCH == 0
    });
    let Some(above) = closed else { return Ok(()) };
    Err(CompileError::Permissions {
        key: info.key.clone(),
        place: Box::new(info.place.clone()),
        path: above.path.clone(),
        owner: above.uid,
        mode: above.mode,
        agent: agent_name(policy),
        act: "search",
        remedy: "view = \"private\" binds what is granted past it",
    })
}

fn agent_name(policy: &Policy) -> String {
    match agent_ids(policy) {
        None => "a uid of its own".to_owned(),
        Some(user) => format!("uid {}", user.uid),
    }
}

/// The id map that makes the agent the owner of `object`, and whether the host can make it.
fn lend_rights(host: &Host, object: &Object) -> Lent {
    let gap = match host.idmap.get(&object.filesystem) {
        _ if host.means != Means::Root => Some(format!(
            "`{}` belongs to uid {}, and only root can lend its rights",
            object.path.display(),
            object.uid
        )),
        Some(Capability::No { why, .. }) => Some(format!(
            "`{}` belongs to uid {} and {} has no idmapped mounts ({why})",
            object.path.display(),
            object.uid,
            object.filesystem
        )),
        _ => None,
    };
    Lent {
        idmap: Some(IdMap {
            uid: object.uid,
            gid: object.gid,
        }),
        gap,
    }
}

/// Ids of the agent, where they are known before the start.
pub(super) fn agent_ids(policy: &Policy) -> Option<&User> {
    match &policy.identity.user {
        UserChoice::Dynamic => None,
        UserChoice::Caller => Some(&policy.caller),
        UserChoice::Named(user) => Some(user),
    }
}

fn needed(object: &Object, rights: Rights) -> u32 {
    let search = if object.kind == Kind::Directory {
        SEARCH
    } else {
        0
    };
    let read = if rights.read && object.kind != Kind::Socket {
        READ
    } else {
        0
    };
    // Libraries are mapped without the bit: what its owner may run is meant to be run.
    let run = match object.kind {
        Kind::File if rights.exec => (object.mode >> 6) & SEARCH,
        _ => 0,
    };
    search | read | run | if rights.write { WRITE } else { 0 }
}

fn refusal(policy: &Policy, object: &Object, lacks: u32, info: &RuleInfo) -> CompileError {
    CompileError::Permissions {
        key: info.key.clone(),
        place: Box::new(info.place.clone()),
        path: object.path.clone(),
        owner: object.uid,
        mode: object.mode,
        agent: agent_name(policy),
        act: match lacks {
            lacks if lacks & WRITE != 0 => "write",
            lacks if lacks & READ != 0 => "read",
            _ if object.kind == Kind::File => "run",
            _ => "search",
        },
        remedy: if policy.file_owner == 0 || policy.file_owner == object.uid {
            "change its mode"
        } else {
            "grant what you own, or let root own the policy"
        },
    }
}

#[cfg(test)]
mod tests {
    use crate::host::{Capability, Host};
    use crate::plan::IdMap;
    use crate::plan::error::CompileError;
    use crate::plan::testing::{add, anna, directory, errors, object, plan, plan_on, policy};
    use crate::policy::facts::{Kind, Object};
    use crate::policy::model::{Policy, Target, UserChoice, Verb, ViewChoice};

    fn granting(verb: Verb, object: Object) -> Policy {
        let mut policy = policy();
        add(&mut policy, verb, Target::Object(object));
        policy
    }

    fn idmap(policy: Policy) -> Option<IdMap> {
        let plan = plan(policy);
        plan.view
            .mounts
            .iter()
            .find(|mount| mount.row.is_some())
            .unwrap()
            .idmap
    }

    #[test]
    fn writing_somebodys_tree_is_mapped_and_reading_is_not() {
        let work = directory("/home/anna/work", 1000);
        let mapped = Some(IdMap {
            uid: 1000,
            gid: 1000,
        });
        assert_eq!(idmap(granting(Verb::Write, work.clone())), mapped);
        assert_eq!(idmap(granting(Verb::Read, work)), None);
    }

    #[test]
    fn reading_what_the_mode_closes_is_mapped() {
        let closed = object("/home/anna/work", Kind::Directory, 1000, 0o700);
        assert!(idmap(granting(Verb::Read, closed)).is_some());
    }

    #[test]
    fn a_program_that_only_its_owner_may_run_is_mapped() {
        let tool = object("/opt/tool", Kind::File, 0, 0o744);
        let mapped = Some(IdMap { uid: 0, gid: 0 });
        assert_eq!(idmap(granting(Verb::Exec, tool.clone())), mapped);
        assert_eq!(idmap(granting(Verb::Read, tool)), None);
        let library = object("/opt/lib.so", Kind::File, 0, 0o644);
        assert_eq!(idmap(granting(Verb::Exec, library)), None);
    }

    #[test]
    fn the_callers_own_tree_needs_no_map() {
        let mut policy = granting(Verb::Write, directory("/home/anna/work", 1000));
        policy.identity.user = UserChoice::Caller;
        assert_eq!(idmap(policy), None);
    }

    #[test]
    fn an_author_lends_only_their_own_rights() {
        let theirs = object("/srv/shared", Kind::Directory, 1001, 0o700);
        let mut policy = granting(Verb::Read, theirs);
        policy.file_owner = anna().uid;
        assert!(matches!(
            &errors(policy)[..],
            [CompileError::Permissions {
                owner: 1001,
                act: "read",
                ..
            }]
        ));
        let open = object("/srv/shared", Kind::Directory, 1001, 0o777);
        let mut policy = granting(Verb::Write, open);
        policy.file_owner = anna().uid;
        assert_eq!(idmap(policy), None);
    }

    #[test]
    fn a_closed_directory_above_matters_in_the_hosts_view_only() {
        let mut work = directory("/home/anna/work", 1000);
        work.ancestors.last_mut().unwrap().mode = 0o700;
        let mut policy = granting(Verb::Read, work);
        assert_eq!(idmap(policy.clone()), None);
        policy.identity.view = ViewChoice::Host;
        assert!(matches!(
            &errors(policy)[..],
            [CompileError::Permissions {
                act: "search",
                owner: 1000,
                ..
            }]
        ));
    }

    #[test]
    fn what_is_kept_for_a_policy_is_lent_whoever_wrote_it() {
        let mut policy = policy();
        policy.file_owner = anna().uid;
        let parent = directory("/var/lib/lp-run/state", 0);
        let path = "/var/lib/lp-run/state/test/home".into();
        add(&mut policy, Verb::Write, Target::Create { parent, path });
        assert_eq!(idmap(policy), Some(IdMap { uid: 0, gid: 0 }));
    }

    #[test]
    fn what_is_kept_for_another_policy_is_not_lent() {
        let mut policy = policy();
        policy.file_owner = anna().uid;
        let other = object("/var/lib/lp-run/state/other", Kind::Directory, 0, 0o700);
        add(&mut policy, Verb::Read, Target::Object(other));
        assert!(matches!(
            &errors(policy)[..],
            [CompileError::Permissions { owner: 0, .. }]
        ));
    }

    #[test]
    fn a_file_system_without_id_maps_is_a_gap_that_nobody_accepts() {
        let mut host = Host::emulated(7);
        let no = Capability::No {
            why: "EINVAL".to_owned(),
            remedy: String::new(),
        };
        host.idmap.insert("overlay".to_owned(), no);
        let mut work = directory("/home/anna/work", 1000);
        work.filesystem = "overlay".to_owned();
        let plan = plan_on(granting(Verb::Write, work), &host);
        let gap = plan.open_gaps().next().unwrap();
        assert_eq!((gap.protection, gap.acceptable), ("identity", false));
        assert_eq!(gap.rule.as_deref(), Some("files.write[0]"));
        assert_eq!(gap.place.as_deref(), Some("test.toml:7:1"));
    }
}
