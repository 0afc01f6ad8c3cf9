// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who started lp-run: the real uid, or, where that is root's, the user who became root through
//! sudo, pkexec or doas, by the variable in which each leaves its word.

use std::path::PathBuf;

use super::{FactError, User};

/// The variables, and whether they hold a name in place of a uid.
const WORDS: [(&str, bool); 3] = [
    ("SUDO_UID", false),
    ("PKEXEC_UID", false),
    ("DOAS_USER", true),
];

/// The caller. Only root's word for who called is taken: anybody can set a variable. A word that
/// cannot be read, and two that differ, are nobody's: who it is decides over rights.
pub fn identify(
    real: (u32, u32),
    variable: impl Fn(&str) -> Option<String>,
    by_name: impl Fn(&str) -> Option<User>,
    by_uid: impl Fn(u32) -> Option<User>,
) -> Result<User, FactError> {
    let bare = |uid: u32, gid: u32| User {
        name: uid.to_string(),
        uid,
        gid,
        home: PathBuf::from("/nonexistent"),
    };
    if real.0 != 0 {
        return Ok(by_uid(real.0).unwrap_or_else(|| bare(real.0, real.1)));
    }
    let mut found: Option<(&str, User)> = None;
    for (name, is_name) in WORDS {
        let Some(value) = variable(name) else {
            continue;
        };
        let user = match (is_name, value.parse()) {
            (true, _) => by_name(&value),
            (false, Ok(uid)) => Some(by_uid(uid).unwrap_or_else(|| bare(uid, uid))),
            (false, Err(_)) => None,
        };
        let Some(user) = user else {
            let value = value.escape_default();
            let what = format!("{name} is `{value}`, which is no user; unset it");
            return Err(FactError::Caller(what));
        };
        match &found {
            Some((other, known)) if known.uid != user.uid => {
                return Err(FactError::Caller(format!(
                    "{other} says that uid {} started lp-run, {name} that uid {} did; unset the \
                     one that is wrong",
                    known.uid, user.uid
                )));
            }
            Some(_) => {}
            None => found = Some((name, user)),
        }
    }
    match found {
        Some((_, user)) => Ok(user),
        None => Ok(by_uid(0).unwrap_or_else(|| bare(0, 0))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Facts;
    use super::super::fake::FakeFacts;
    use super::*;

    fn caller(real: u32, words: &[(&str, &str)]) -> Result<u32, String> {
        let facts = FakeFacts::new();
        let variable = |name: &str| {
            let word = words.iter().find(|word| word.0 == name);
            word.map(|word| word.1.to_owned())
        };
        let by_name = |name: &str| facts.user(name);
        let by_uid = |uid| facts.user_by_uid(uid);
        let user = identify((real, real), variable, by_name, by_uid);
        user.map(|user| user.uid).map_err(|error| error.to_string())
    }

    #[test]
    fn each_way_to_root_names_the_caller() {
        assert_eq!(caller(0, &[]), Ok(0));
        assert_eq!(caller(0, &[("SUDO_UID", "1000")]), Ok(1000));
        assert_eq!(caller(0, &[("PKEXEC_UID", "1000")]), Ok(1000));
        assert_eq!(caller(0, &[("DOAS_USER", "anna")]), Ok(1000));
        let twice = [("SUDO_UID", "1000"), ("DOAS_USER", "anna")];
        assert_eq!(caller(0, &twice), Ok(1000));
        // Nobody but root is asked.
        assert_eq!(caller(1000, &[("SUDO_UID", "0")]), Ok(1000));
    }

    #[test]
    fn a_word_that_is_none_and_two_that_differ_are_refused() {
        for words in [
            &[("SUDO_UID", "")][..],
            &[("PKEXEC_UID", "-1")],
            &[("DOAS_USER", "nobody-here")],
            &[("SUDO_UID", "1000"), ("PKEXEC_UID", "900")],
            &[("SUDO_UID", "0"), ("DOAS_USER", "anna")],
        ] {
            let what = caller(0, words).unwrap_err();
            assert!(what.contains("unset"), "{what}");
        }
    }
}
