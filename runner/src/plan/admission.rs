// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether this host is one that the policy is for: a policy for tests never runs in production,
//! nor the other way round; and whether a run can be frozen here when its hours are over.

use super::Gap;
use crate::host::{Host, Means};
use crate::policy::model::{Place, Policy, Refusal, Task};
use crate::policy::window::Leaving;

/// What refuses the run on this host.
pub(super) fn on_host(task: &Task, host: &Host) -> Option<Refusal> {
    let key = "task.environment";
    let refusal = |place: &Place, what: String| Refusal {
        place: place.clone(),
        key,
        what,
        passes: false,
    };
    match (&task.environment, &host.environment) {
        (Some((wanted, place)), Ok(Some(label))) if wanted != label => Some(refusal(
            place,
            format!("this policy is for {wanted:?}, and this host is {label:?}; run it on another"),
        )),
        (Some((wanted, place)), Err(why)) => Some(refusal(
            place,
            format!("nobody knows whether this host is {wanted:?}: {why}"),
        )),
        _ => None,
    }
}

/// The gap of a policy whose agent is to be frozen where there is no cgroup to freeze.
pub(super) fn freezer_gap(policy: &Policy, host: &Host) -> Option<Gap> {
    let window = policy.valid.as_ref()?;
    if window.action != Leaving::Freeze || host.means == Means::Root {
        return None;
    }
    Some(Gap {
        protection: "host",
        rule: None,
        place: window.place.text(),
        why: "valid.action = \"freeze\" needs a cgroup of the run's own, which takes root"
            .to_owned(),
        remedy: "write action = \"kill\"; or start it with sudo".to_owned(),
        accepted: false,
        existing_held: false,
        acceptable: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_of_the_policy_is_the_hosts() {
        let broken = || Err("it is broken".to_owned());
        let label = |text: &str| Some(text.to_owned());
        for (wanted, host, refused) in [
            (None, Ok(label("prod")), None),
            (None, broken(), None),
            (Some("test"), Ok(None), None),
            (Some("test"), Ok(label("test")), None),
            (
                Some("test"),
                Ok(label("prod")),
                Some("\"prod\"; run it on another"),
            ),
            (
                Some("prod"),
                Ok(label("test")),
                Some("\"test\"; run it on another"),
            ),
            (Some("test"), broken(), Some("it is broken")),
        ] {
            let task = Task {
                environment: wanted.map(|text| (text.to_owned(), Place::default())),
                ..Task::default()
            };
            let host = Host {
                environment: host,
                ..Host::emulated(6)
            };
            let found = on_host(&task, &host).map(|refusal| refusal.what);
            match refused {
                None => assert_eq!(found, None),
                Some(words) => assert!(found.unwrap().contains(words)),
            }
        }
    }

    #[test]
    fn without_a_cgroup_nobody_can_be_frozen() {
        let window = |action| crate::policy::window::Window {
            not_before: None,
            not_after: None,
            hours: None,
            zone: jiff::tz::TimeZone::UTC,
            zone_name: "UTC".to_owned(),
            action,
            place: Place::default(),
        };
        let gap = |action, host: &Host| {
            let policy = Policy {
                valid: Some(window(action)),
                ..crate::plan::testing::policy()
            };
            freezer_gap(&policy, host).map(|gap| gap.acceptable)
        };
        let (root, user) = (Host::emulated(6), Host::emulated_without_root(6));
        assert_eq!(gap(Leaving::Freeze, &user), Some(false));
        assert_eq!(gap(Leaving::Kill, &user), None);
        assert_eq!(gap(Leaving::Freeze, &root), None);
    }
}
