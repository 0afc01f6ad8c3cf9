// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parameters: whatever the value, it stays in its own place of the policy.

use std::fs;

use crate::needs;
use crate::support::{Jail, root};

/// The widest pattern that can be written.
const POLICY: &str = r#"
version = 1
name = "params"
extends = ["@shell"]
[params]
id = { pattern = "(?s).*" }
[files]
read = [{ path = "@DIR@/tickets/${id}", id = "ticket" }]
"#;

/// A folder with two tickets, of which the first is named, and a file beside them.
fn jail(id: &str) -> Jail {
    let jail = Jail::shared();
    jail.file("tickets/other", "other\n");
    jail.file("secret", "secret\n");
    fs::write(jail.path().join("tickets").join(id), "mine\n").expect("write the ticket");
    jail
}

/// Prints what can be read of the three.
const SCRIPT: &str = r#"cd /; for f in "$1" "$2/tickets/other" "$2/secret"; do
    IFS= read -r line <"$f" && printf '%s ' "$line"; line=; printf . ; done 2>/dev/null"#;

#[test]
fn a_value_that_would_climb_starts_nothing() {
    needs!(root(), "root");
    let long = "a".repeat(256);
    for value in [
        "",
        ".",
        "..",
        "../secret",
        "x/../../secret",
        "/",
        "/etc/shadow",
        "other/",
        "..\n",
        "a\nb",
        "a\tb",
        "\u{1b}[2J",
        "\u{85}",
        "*",
        "**",
        "o*",
        "${HOME}",
        "$HOME",
        "$$",
        "${id}",
        &long,
    ] {
        let jail = jail("mine");
        let set = format!("id={value}");
        let outcome = jail.run_with(POLICY, &["--set", &set], &["echo", "ran"]);
        assert_eq!(
            (outcome.code(), outcome.stdout.as_str()),
            (122, ""),
            "{value:?}: {outcome:?}"
        );
        let said = "can never be a value";
        let words: Vec<_> = outcome.stderr.split_whitespace().collect();
        let words = words.join(" ").replace("lp-run: ", "");
        assert!(words.contains(said), "{value:?}: {outcome:?}");
    }
}

#[test]
fn a_value_that_looks_like_more_is_the_name_of_one_file() {
    needs!(root(), "root");
    let longest = "a".repeat(255);
    for value in [
        "\u{2215}other",
        "\u{ff0f}secret",
        "\u{2044}",
        "\u{202e}x",
        "other\u{200b}",
        "other ",
        "a\", \"@DIR@",
        "\"]",
        "a, b",
        "#",
        "~",
        "-rf",
        "%2e%2e%2f",
        "\\..x".trim_end_matches("..x"),
        "?ther",
        "[o]ther",
        "{other,x}",
        "a:b",
        "@DIR@",
        &longest,
    ] {
        let jail = jail(value);
        let own = jail.path().join("tickets").join(value);
        let words = [
            "sh".as_ref(),
            "-c".as_ref(),
            SCRIPT.as_ref(),
            "sh".as_ref(),
            own.as_os_str(),
            jail.path().as_os_str(),
        ];
        let set = format!("id={value}");
        let outcome = jail.run_with(POLICY, &["--set", &set], &words);
        assert_eq!(
            (outcome.code(), outcome.stdout.as_str()),
            (0, "mine ..."),
            "{value:?}: {outcome:?}"
        );
    }
}
