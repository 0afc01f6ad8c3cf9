// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of a report as a table for people: what was used, how often, and what never was.

use super::escape::visible;
use super::report::{Report, RuleRow};
use super::terminal::fit;

/// Columns of a line.
const COLUMNS: usize = 80;

/// A line for each rule that let something pass or refused something, then how many did not.
/// Empty when the run was refused before it had rules.
pub fn table(report: &Report) -> Vec<String> {
    if report.rules.is_empty() {
        return Vec::new();
    }
    let used = |rule: &&RuleRow| rule.allowed != Some(0) || rule.denied.unwrap_or(0) > 0;
    let mut lines = vec![row("allowed", "denied", "rule")];
    lines.extend(report.rules.iter().filter(used).map(line));
    let unused = report.rules.len() + 1 - lines.len();
    if unused > 0 {
        lines.push(row(
            "0",
            "0",
            &format!("({unused} rules that were not used)"),
        ));
    }
    lines
}

fn line(rule: &RuleRow) -> String {
    let count =
        |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let name = format!("{}  {} {}", rule.id, rule.kind, rule.text);
    row(&count(rule.allowed), &count(rule.denied), &visible(&name))
}

fn row(allowed: &str, denied: &str, name: &str) -> String {
    fit(&format!("  {allowed:>7} {denied:>7}  {name}"), COLUMNS)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn every_rule_stands_in_the_table_or_in_its_last_line() {
        let report = samples::report();
        let lines = table(&report);
        let used = lines
            .iter()
            .filter(|line| !line.contains("rules that"))
            .count()
            - 1;
        let unused = lines
            .last()
            .and_then(|line| line.split('(').nth(1)?.split(' ').next()?.parse().ok())
            .unwrap_or(0);
        assert_eq!(used + unused, report.rules.len(), "{lines:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS));
    }
}
