// SPDX-License-Identifier: MIT OR Apache-2.0
//! The name of one run: eight characters that are easy to read out, random, so that two runs
//! on one host do not meet and nobody can guess the next one.

use std::fs::File;
use std::io::{self, Read};

/// The alphabet of RFC 4648 base32 in small letters: no 0, 1, 8 or 9 to mistake.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// 40 bits.
const LENGTH: usize = 8;

/// A fresh id.
pub fn fresh() -> io::Result<String> {
    let mut random = [0_u8; LENGTH];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect())
}

/// Whether a text can be a run's id: what is asked for on the command line becomes part of a
/// path.
pub fn valid(text: &str) -> bool {
    text.len() == LENGTH && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_valid_and_differ() {
        let (a, b) = (fresh().unwrap(), fresh().unwrap());
        assert!(valid(&a) && valid(&b));
        assert_ne!(a, b);
    }

    #[test]
    fn what_could_climb_is_no_id() {
        for text in [
            "",
            "../../ab",
            "ABCDEFGH",
            "abcdefg",
            "abcdefgh2",
            "abcdef/g",
        ] {
            assert!(!valid(text), "{text}");
        }
    }
}
