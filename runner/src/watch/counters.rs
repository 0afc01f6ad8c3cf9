// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counter rows of all CPUs as one [`Usage`] a rule.

use lp_run_common::counters::CounterRow;

use super::Clock;
use crate::record::event::Usage;

/// What is counted of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Verdicts and bytes.
    Network,
    /// Successful opens and execs.
    Files,
    /// Refusals alone: it lets nothing pass.
    Refusals,
    /// Nothing: the numbers are unknown.
    Nothing,
}

/// One rule's usage.
pub(super) fn usage(counted: Counted, cpus: &[CounterRow], clock: &Clock) -> Usage {
    let sum = |field: fn(&CounterRow) -> u64| cpus.iter().map(field).fold(0, u64::wrapping_add);
    let first = cpus
        .iter()
        .map(|cpu| cpu.first)
        .filter(|time| *time != 0)
        .min();
    let last = cpus.iter().map(|cpu| cpu.last).max();
    let stamps = Usage {
        first: first.and_then(|time| clock.stamp(time)),
        last: last.and_then(|time| clock.stamp(time)),
        ..Usage::default()
    };
    match counted {
        Counted::Nothing => Usage::default(),
        Counted::Refusals => Usage {
            allowed: Some(0),
            denied: Some(sum(|cpu| cpu.denied)),
            ..stamps
        },
        Counted::Files => Usage {
            allowed: Some(sum(|cpu| cpu.allowed)),
            denied: Some(sum(|cpu| cpu.denied)),
            ..stamps
        },
        Counted::Network => Usage {
            allowed: Some(sum(|cpu| cpu.allowed)),
            denied: Some(sum(|cpu| cpu.denied)),
            bytes_out: Some(sum(|cpu| cpu.bytes_out)),
            bytes_in: Some(sum(|cpu| cpu.bytes_in)),
            ..stamps
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_added_up() {
        let clock = Clock::at("2026-11-24T00:00:00Z".parse().unwrap());
        let row = |allowed, first, last| CounterRow {
            allowed,
            bytes_out: 10,
            first,
            last,
            ..CounterRow::default()
        };
        let cpus = [
            row(2, 0, 0),
            row(3, 2_000_000_000, 9_000_000_000),
            row(0, 1_000_000_000, 0),
        ];
        let network = usage(Counted::Network, &cpus, &clock);
        assert_eq!(network.allowed, Some(5));
        assert_eq!(network.denied, Some(0));
        assert_eq!(network.bytes_out, Some(30));
        assert_eq!(network.first.unwrap().to_string(), "2026-11-24T00:00:01Z");
        assert_eq!(network.last.unwrap().to_string(), "2026-11-24T00:00:09Z");
        let files = usage(Counted::Files, &cpus, &clock);
        assert_eq!((files.allowed, files.bytes_out), (Some(5), None));
        assert_eq!(usage(Counted::Nothing, &cpus, &clock), Usage::default());
    }
}
