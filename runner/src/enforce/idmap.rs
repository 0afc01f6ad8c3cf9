// SPDX-License-Identifier: MIT OR Apache-2.0
//! Id maps for mounts: the tree's owner appears as the agent, and what the agent makes
//! belongs to the tree's owner. Everybody else keeps their number.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::plan::IdMap;
use crate::sys::{SysError, userns};

/// Namespaces made so far: one for each owner, shared by all mounts of a run.
#[derive(Debug, Default)]
pub struct Namespaces(BTreeMap<(u32, u32), Rc<OwnedFd>>);

impl Namespaces {
    /// The namespace that swaps `owner` and the agent.
    pub fn swapping(
        &mut self,
        owner: IdMap,
        (uid, gid): (u32, u32),
    ) -> Result<Rc<OwnedFd>, SysError> {
        if let Some(known) = self.0.get(&(owner.uid, owner.gid)) {
            return Ok(Rc::clone(known));
        }
        let made = userns::with_maps(&swap(owner.uid, uid), &swap(owner.gid, gid))?;
        let made = Rc::new(made);
        self.0.insert((owner.uid, owner.gid), Rc::clone(&made));
        Ok(made)
    }
}

/// The map of user_namespaces(7) that is the identity on all ids but `a` and `b`, which it
/// swaps. (`u32::MAX` is no id.)
fn swap(a: u32, b: u32) -> String {
    let (low, high) = (a.min(b), a.max(b));
    let ranges = match low == high {
        true => vec![(0, 0, u32::MAX)],
        false => vec![
            (0, 0, low),
            (low, high, 1),
            (low + 1, low + 1, high - low - 1),
            (high, low, 1),
            (high + 1, high + 1, u32::MAX - high - 1),
        ],
    };
    let mut text = String::new();
    for (inside, outside, count) in ranges.into_iter().filter(|range| range.2 > 0) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{inside} {outside} {count}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_maps_each_id_once() {
        assert_eq!(
            swap(1000, 2_000_000_000),
            "0 0 1000\n1000 2000000000 1\n1001 1001 1999998999\n2000000000 1000 1\n\
             2000000001 2000000001 2294967294\n"
        );
        assert_eq!(swap(5, 0), "0 5 1\n1 1 4\n5 0 1\n6 6 4294967289\n");
        assert_eq!(swap(7, 8), "0 0 7\n7 8 1\n8 7 1\n9 9 4294967286\n");
        assert_eq!(swap(7, 7), "0 0 4294967295\n");
    }
}
