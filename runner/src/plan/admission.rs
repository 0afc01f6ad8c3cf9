// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether this host is one that the policy is for: a policy for tests never runs in production,
//! nor the other way round.

use crate::host::Host;
use crate::policy::model::{Place, Refusal, Task};

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
}
