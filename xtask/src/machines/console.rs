// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a machine's console says about its tests.

use super::matrix::{Machine, SKIPS};

/// What the script says at the end of each program.
const ENDS: [&str; 2] = ["mechanisms-ended: ", "integration-ended: "];

/// Fewest tests that each program passes in a whole boot.
pub const WHOLE: usize = 1;

/// The same when only some tests were asked for: one program may have none of them.
pub const SOME: usize = 0;

/// How many tests passed, or why the boot counts as failed.
pub fn judge(machine: &Machine, console: &str, least: usize) -> Result<usize, String> {
    for line in console.lines().filter(|line| line.contains("SKIPPED")) {
        if !SKIPS
            .iter()
            .any(|(name, test, _)| *name == machine.name && line.contains(test))
        {
            return Err(format!("a skip that is not listed: {}", line.trim()));
        }
    }
    let modules = console
        .lines()
        .find_map(|line| line.split("security-modules: ").nth(1))
        .ok_or("the machine did not say which security modules it has")?;
    if modules.trim().split(',').any(|module| module == "bpf") != machine.bpf_lsm {
        return Err(format!("the security modules are {}", modules.trim()));
    }
    for end in ENDS {
        let status = console.lines().find_map(|line| line.split(end).nth(1));
        match status.map(str::trim) {
            None => return Err(format!("the machine did not reach `{end}`")),
            Some("0") => {}
            Some(status) => return Err(format!("tests failed ({end}{status})")),
        }
    }
    let counts: Vec<usize> = console.lines().filter_map(passed).collect();
    let sum = counts.iter().sum();
    if counts.len() != ENDS.len() || counts.iter().any(|count| *count < least) || sum == 0 {
        return Err(format!("a program ran no test: {counts:?}"));
    }
    Ok(sum)
}

/// What is printed of a console that is not well: what each program says of its failed tests, and
/// the last lines, where a machine that stopped says why.
pub fn of_failure(console: &str) -> Vec<&str> {
    let lines: Vec<&str> = console.lines().collect();
    let tail = lines.len().saturating_sub(60);
    let mut failing = false;
    let mut told = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        failing |= *line == "failures:";
        if failing || number >= tail {
            told.push(*line);
        }
        failing &= !line.starts_with("test result: ");
    }
    told
}

/// The count in `test result: ok. 12 passed; …`.
fn passed(line: &str) -> Option<usize> {
    let counts = line.split("test result: ok. ").nth(1)?;
    counts.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::matrix::MATRIX;
    use super::*;

    const GOOD: &str = "[ 9.1] boot\nsecurity-modules: lockdown,landlock,bpf\n\
        test result: ok. 30 passed; 0 failed\n\
        mechanisms-ended: 0\ntest smoke::a ... ok\ntest result: ok. 3 passed; 0 failed\n\
        integration-ended: 0\n[12.0] reboot";

    fn judged(console: &str) -> Result<usize, String> {
        judge(&MATRIX[0], console, WHOLE)
    }

    #[test]
    fn a_boot_that_ends_well_counts_its_tests() {
        assert_eq!(judged(GOOD), Ok(33));
    }

    #[test]
    fn a_boot_that_stops_halfway_fails() {
        for end in ENDS {
            assert!(judged(&GOOD.replace(&format!("{end}0"), "Kernel panic")).is_err());
        }
        assert!(judged("").is_err());
    }

    #[test]
    fn a_failed_test_and_no_test_at_all_fail() {
        assert!(judged(&GOOD.replace("integration-ended: 0", "integration-ended: 101")).is_err());
        let none = GOOD.replace(". 3 passed", ". 0 passed");
        assert!(judged(&none).is_err());
        assert_eq!(
            judge(&MATRIX[0], &none, SOME),
            Ok(30),
            "some were asked for"
        );
        let nothing = none.replace(". 30 passed", ". 0 passed");
        assert!(judge(&MATRIX[0], &nothing, SOME).is_err());
    }

    #[test]
    fn what_failed_is_told_wherever_the_console_says_it() {
        let said = "failures:\n---- a stdout ----\nwhy\ntest result: FAILED. 1 passed; 1 failed";
        let console = format!("first\n{said}\n{}last", "test b ... ok\n".repeat(90));
        let told = of_failure(&console);
        assert_eq!(told[..4].join("\n"), said);
        assert_eq!((told.len(), *told.last().expect("a line")), (64, "last"));
        assert_eq!(of_failure(GOOD).len(), GOOD.lines().count());
    }

    #[test]
    fn a_skip_that_is_not_listed_fails() {
        let skipped = format!("SKIPPED: this test needs luck\n{GOOD}");
        assert!(judged(&skipped).expect_err("skip").contains("luck"));
    }

    #[test]
    fn a_machine_with_other_security_modules_fails() {
        assert!(judged(&GOOD.replace(",bpf", "")).is_err());
        assert!(judged(&GOOD.replace("security-modules", "x")).is_err());
        assert!(judge(&MATRIX[2], GOOD, WHOLE).is_err());
    }
}
