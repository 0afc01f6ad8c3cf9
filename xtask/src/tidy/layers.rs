// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may know whom: a module of the program uses only those that stand in its line of the
//! table. An arrow that is not in there is a design decision, so it is made here first.

use super::Finding;

/// Module, and the modules that it may use. From the top floor to the ground.
const TABLE: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &["control", "host", "plan", "policy", "record", "supervise"],
    ),
    (
        "supervise",
        &[
            "control", "enforce", "host", "launch", "names", "plan", "policy", "record", "sys",
            "watch",
        ],
    ),
    ("control", &["enforce", "host", "record", "sys", "watch"]),
    ("launch", &["enforce", "record", "sys"]),
    ("enforce", &["host", "plan", "policy", "sys"]),
    ("watch", &["plan", "policy", "record", "sys"]),
    ("names", &["plan", "policy", "record", "sys"]),
    // A report has a row for every rule of the plan, used or not.
    ("record", &["plan", "policy", "sys"]),
    ("plan", &["host", "policy"]),
    // Through the trait of facts alone, and in the file that implements it.
    ("policy", &["sys"]),
    ("host", &["sys"]),
    ("sys", &[]),
];

/// Modules that may use every other: they exist in tests, and in fuzzers, only.
const TEST_SUPPORT: &[&str] = &["testing", "fuzzing"];

/// Checks one file of the program; files elsewhere have no layers.
pub fn check(name: &str, text: &str) -> Vec<Finding> {
    let Some(module) = module(name) else {
        return Vec::new();
    };
    if module == "lib" || TEST_SUPPORT.contains(&module) {
        return Vec::new();
    }
    let Some((_, allowed)) = TABLE.iter().find(|(row, _)| *row == module) else {
        let what = format!("module `{module}` has no line in the table of layers");
        return vec![Finding { line: 1, what }];
    };
    uses(text)
        .into_iter()
        .filter(|(_, used)| TABLE.iter().any(|(row, _)| row == used))
        .filter(|(_, used)| *used != module && !allowed.contains(used))
        .map(|(line, used)| Finding {
            line,
            what: format!("`{module}` may not use `{used}`"),
        })
        .collect()
}

/// The top module that a file of the program belongs to.
fn module(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("runner/src/")?;
    rest.split('/')
        .next()?
        .strip_suffix(".rs")
        .or_else(|| rest.split('/').next())
}

/// Every `crate::NAME` outside comments, with its line; of `crate::{a, b::{c, d}}` a and b.
fn uses(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (start, matched) in text.match_indices("crate::") {
        let line_start = text[..start].rfind('\n').map_or(0, |end| end + 1);
        let before = &text[line_start..start];
        // `$crate::` in a macro and another_crate:: are not paths of this program.
        let part_of_a_word =
            before.ends_with(|c: char| c == '$' || c == '_' || c.is_alphanumeric());
        if before.contains("//") || part_of_a_word {
            continue;
        }
        let line = text[..start].matches('\n').count() + 1;
        let rest = &text[start + matched.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_names(group).into_iter().map(|name| (line, name))),
            None => found.extend(identifier(rest).map(|name| (line, name))),
        }
    }
    found
}

/// The first identifiers of each path in a `use` group whose opening brace is already read.
fn group_names(group: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut depth = 1;
    let mut at_start = true;
    for (place, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => at_start = true,
            _ if letter.is_whitespace() => {}
            _ if at_start => {
                names.extend(identifier(&group[place..]));
                at_start = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn identifier(text: &str) -> Option<&str> {
    let end = text
        .find(|c: char| c != '_' && !c.is_alphanumeric())
        .unwrap_or(text.len());
    (end > 0).then_some(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_upwards_is_found_with_its_line() {
        let text = "use std::fs;\nuse crate::policy::model;\nuse crate::supervise;\n";
        let found = check("runner/src/plan/compile.rs", text);
        assert_eq!(
            found,
            [Finding {
                line: 3,
                what: "`plan` may not use `supervise`".into()
            }]
        );
    }

    #[test]
    fn groups_and_paths_in_code_are_read() {
        let text = "use crate::{policy::{model, facts}, cli};\nfn f() { crate::watch::g() }\n";
        let used: Vec<&str> = uses(text).into_iter().map(|(_, name)| name).collect();
        assert_eq!(used, ["policy", "cli", "watch"]);
    }

    #[test]
    fn comments_macros_and_types_at_the_top_are_no_arrows() {
        let text = "// see crate::cli\nuse my_crate::cli;\n$crate::cli!();\nuse crate::Thing;\n";
        assert_eq!(check("runner/src/sys/mod.rs", text), []);
    }

    #[test]
    fn a_module_without_a_line_is_found() {
        assert_eq!(check("runner/src/utils.rs", "").len(), 1);
        assert_eq!(check("xtask/src/main.rs", "use crate::anything;").len(), 0);
    }

    #[test]
    fn every_arrow_of_the_table_points_down() {
        for (place, (module, allowed)) in TABLE.iter().enumerate() {
            for used in *allowed {
                let below = TABLE[place..].iter().any(|(row, _)| row == used);
                assert!(below, "{module} uses {used}, which stands above it");
            }
        }
    }
}
