// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attempts to reach what no rule grants, each in three arms: bare it works, or the attempt
//! proves nothing; refused it gives exactly the errno that is promised; granted it works again,
//! so that it was the grant and not an accident. What no policy grants has two arms. Several
//! attempts share a run, each in a process of its own.

mod escape;
mod files;
mod network;
mod process;

use crate::support::{Jail, probe};

/// One act and the answers that it must give.
struct Attempt {
    /// The probe's words; `@DIR@` is the jail's folder.
    act: &'static str,
    /// Without a sandbox; `None`: found wrong by the kernel, in whatever way but the refusal's.
    bare: Option<&'static str>,
    /// Where no rule grants it.
    refused: &'static str,
}

/// An act that works bare.
const fn works(act: &'static str, refused: &'static str) -> Attempt {
    Attempt {
        act,
        bare: Some("ok"),
        refused,
    }
}

/// An act that reaches the kernel and is found wrong there, because doing it would do harm.
const fn reaches(act: &'static str, refused: &'static str) -> Attempt {
    Attempt {
        act,
        bare: None,
        refused,
    }
}

/// Tries all attempts bare and under `policy`, each arm in a jail made by `prepare`.
fn refused(attempts: &[Attempt], policy: &str, prepare: impl Fn() -> Jail) {
    let bare = prepare();
    let outcome = bare.bare(&words(&bare, attempts));
    compare("bare", attempts, &outcome.stdout, |attempt, answer| {
        attempt
            .bare
            .map_or(answer != attempt.refused, |bare| answer == bare)
    });
    let confined = prepare();
    let outcome = run(&confined, policy, &words(&confined, attempts));
    compare("refused", attempts, &outcome, |attempt, answer| {
        answer == attempt.refused
    });
}

/// Tries all attempts under a policy that grants them.
fn granted(attempts: &[Attempt], policy: &str, prepare: impl Fn() -> Jail) {
    let jail = prepare();
    let outcome = run(&jail, policy, &words(&jail, attempts));
    compare("granted", attempts, &outcome, |_, answer| answer == "ok");
}

fn run(jail: &Jail, policy: &str, words: &[String]) -> String {
    let store = jail.folder("store").to_string_lossy().into_owned();
    let outcome = jail.run_with(policy, &["--workdir", &store], words);
    assert_eq!(outcome.code(), 0, "{outcome:#?}");
    outcome.stdout
}

fn words(jail: &Jail, attempts: &[Attempt]) -> Vec<String> {
    let folder = jail.path().to_string_lossy();
    let mut words = probe(["each"]);
    for (index, attempt) in attempts.iter().enumerate() {
        if index > 0 {
            words.push("--".to_owned());
        }
        let act = attempt.act.replace("@DIR@", &folder);
        words.extend(act.split_whitespace().map(str::to_owned));
    }
    words
}

/// Holds every answer to what is expected, and names all that differ at once.
fn compare(
    arm: &str,
    attempts: &[Attempt],
    answers: &str,
    as_expected: impl Fn(&Attempt, &str) -> bool,
) {
    let answers: Vec<&str> = answers.lines().collect();
    assert_eq!(answers.len(), attempts.len(), "{arm}: {answers:#?}");
    let wrong: Vec<String> = attempts
        .iter()
        .zip(answers)
        .filter(|(attempt, answer)| !as_expected(attempt, answer))
        .map(|(attempt, answer)| format!("{}: {answer}", attempt.act))
        .collect();
    assert!(wrong.is_empty(), "{arm}:\n{}", wrong.join("\n"));
}
