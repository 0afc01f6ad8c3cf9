// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking through a hash map that other runs change meanwhile. Where the key that was read last
//! is gone, the kernel starts again at the front (`htab_map_get_next_key`, kernel/bpf/hashtab.c):
//! nothing is left out, and an entry may come twice.

use std::collections::HashMap as Collected;
use std::hash::Hash;

use aya::Pod;
use aya::maps::{HashMap, MapData, MapError};

/// The entries that are `own`, each once, as they were when they were read last.
pub(super) fn entries<K: Pod + Eq + Hash, V: Pod>(
    table: &HashMap<MapData, K, V>,
    own: impl Fn(&K) -> bool,
) -> Result<Collected<K, V>, MapError> {
    collect(table.iter(), own)
}

fn collect<K: Eq + Hash, V>(
    all: impl Iterator<Item = Result<(K, V), MapError>>,
    own: impl Fn(&K) -> bool,
) -> Result<Collected<K, V>, MapError> {
    all.filter(|entry| entry.as_ref().map_or(true, |(key, _)| own(key)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_comes_twice_is_one_and_others_are_left_out() {
        let seen = [(1, 5), (2, 7), (1, 6)].map(Ok);
        let own = collect(seen.into_iter(), |key| *key == 1).unwrap();
        assert_eq!(own, Collected::from([(1, 6)]));
    }

    #[test]
    fn an_error_is_not_taken_for_the_end() {
        let seen = [Ok((1, 5)), Err(MapError::KeyNotFound)];
        assert!(collect(seen.into_iter(), |_| true).is_err());
    }
}
