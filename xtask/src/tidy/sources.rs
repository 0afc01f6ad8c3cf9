// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every Rust file of the house has and has not: a licence line, a paragraph that says what
//! it is for, `unsafe` only at its one address, no leftovers, nothing that only its author's
//! machine or tracker explains.

use super::Finding;

const LICENCE: &str = "// SPDX-License-Identifier: MIT OR Apache-2.0";

/// Where `unsafe` may stand, each with the reason.
const UNSAFE: &[&str] = &[
    // The one home of system calls in the program.
    "runner/src/sys/",
    // Every eBPF helper is unsafe to call.
    "runner-ebpf/",
    // Marks of plain data for aya's maps.
    "runner-common/",
    // It tries system calls that no library would make.
    "tests/probe.rs",
    // The floor of the benchmark makes the fewest system calls that confine a program.
    "xtask/src/bench/floor.rs",
    // This file, which looks for the word.
    "xtask/src/tidy/sources.rs",
];

/// What no file may contain, and why. The halves are joined here, so that this file passes.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    (
        "TO",
        "DO",
        "finish it, or say what is not done where the reader looks for it",
    ),
    ("FIX", "ME", "fix it"),
    (
        "#[ig",
        "nore",
        "a test runs, or it is skipped by `needs!` and says why",
    ),
    (
        "iss",
        "ue #",
        "the reason belongs here, not behind a number",
    ),
];

/// Checks one file; `root` is where the repository lies on this machine.
pub fn check(root: &str, name: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    if lines.next() != Some(LICENCE) {
        found.push(Finding {
            line: 1,
            what: format!("the first line must be `{LICENCE}`"),
        });
    }
    if !lines.next().is_some_and(|line| line.starts_with("//!")) {
        let what = "the second line must open a `//!` paragraph: what is this file for".to_owned();
        found.push(Finding { line: 2, what });
    }
    let may_be_unsafe = UNSAFE.iter().any(|place| name.starts_with(place));
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or(line);
        if !may_be_unsafe && has_unsafe(code) {
            let what = "`unsafe` stands only in runner/src/sys".to_owned();
            found.push(Finding {
                line: index + 1,
                what,
            });
        }
        if line.contains(root) {
            let what = "a path of this machine".to_owned();
            found.push(Finding {
                line: index + 1,
                what,
            });
        }
        for (start, end, instead) in FORBIDDEN {
            if line.contains(&format!("{start}{end}")) {
                found.push(Finding {
                    line: index + 1,
                    what: format!("`{start}{end}`: {instead}"),
                });
            }
        }
    }
    found
}

/// `unsafe` as a keyword: before a block, a function, an impl, or in an attribute.
fn has_unsafe(code: &str) -> bool {
    [
        "unsafe {",
        "unsafe fn",
        "unsafe impl",
        "unsafe extern",
        "unsafe(",
    ]
    .iter()
    .any(|form| code.contains(form))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "/srv/source";
    const GOOD: &str = "// SPDX-License-Identifier: MIT OR Apache-2.0\n//! A file.\n";

    #[test]
    fn a_good_file_has_no_findings() {
        assert_eq!(check(ROOT, "runner/src/plan/mod.rs", GOOD), []);
    }

    #[test]
    fn licence_and_paragraph_are_asked_for() {
        let lines: Vec<usize> = check(ROOT, "x.rs", "fn main() {}\n")
            .iter()
            .map(|f| f.line)
            .collect();
        assert_eq!(lines, [1, 2]);
    }

    #[test]
    fn unsafe_is_found_outside_its_home_only() {
        let text = format!("{GOOD}fn f() {{ unsafe {{ g() }} }}\n");
        assert_eq!(check(ROOT, "runner/src/plan/mod.rs", &text)[0].line, 3);
        assert_eq!(check(ROOT, "runner/src/sys/mount.rs", &text), []);
        let comment = format!("{GOOD}// unsafe {{ is bad\n");
        assert_eq!(check(ROOT, "runner/src/plan/mod.rs", &comment), []);
    }

    #[test]
    fn leftovers_and_foreign_paths_are_found() {
        let text = format!("{GOOD}const FILE: &str = \"{ROOT}/x\";\n");
        assert_eq!(check(ROOT, "tests/x.rs", &text).len(), 1);
        for (start, end, _) in FORBIDDEN {
            let text = format!("{GOOD}fn f() {{ {start}{end} }}\n");
            assert_eq!(
                check(ROOT, "runner/src/plan/mod.rs", &text).len(),
                1,
                "{start}{end}"
            );
        }
    }
}
