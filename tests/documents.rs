// SPDX-License-Identifier: MIT OR Apache-2.0
//! What documents say of these tests: each that is named is there.

use crate::support::{is_there, text};

#[test]
fn each_attack_of_the_threat_model_names_tests_that_are_there() {
    let page = text("docs/threat-model.md");
    let table = page
        .split("| attack |")
        .nth(1)
        .expect("the table of attacks");
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with("| "));
    let mut named = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let [_, refuses, tests] = cells[..] else {
            panic!("three columns: {row}");
        };
        assert!(!refuses.is_empty(), "nothing refuses: {row}");
        for test in tests.split("<br>") {
            let test = test.trim_matches('`');
            assert!(is_there(test), "there is no test `{test}`");
            named += 1;
        }
    }
    assert!(named >= 60, "only {named} tests are named");
    assert!(!is_there("documents.rs no_such_test"));
}
