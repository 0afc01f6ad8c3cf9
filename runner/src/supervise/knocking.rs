// SPDX-License-Identifier: MIT OR Apache-2.0
//! An agent that keeps knocking: how many refusals it earned within a span of time.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::policy::model::{DenialLimit, OnDenials};

/// Most totals that are kept of one span.
const SAMPLES: u32 = 60;

/// Counts against `limits.denials`.
#[derive(Debug)]
pub struct Knocking {
    limit: DenialLimit,
    /// Totals since the start of the span, and the newest one before it.
    totals: VecDeque<(Instant, u64)>,
    over: bool,
}

impl Knocking {
    /// Of a run that starts now.
    pub fn new(limit: &DenialLimit) -> Self {
        Self {
            limit: limit.clone(),
            totals: VecDeque::from([(Instant::now(), 0)]),
            over: false,
        }
    }

    /// Takes in how many refusals there were so far. What has to be done, once each time that the
    /// limit is reached, and how many they were.
    pub fn note(&mut self, total: u64, now: Instant) -> Option<(OnDenials, u64)> {
        let start = now.checked_sub(self.limit.per);
        while let (Some(start), Some((next, _))) = (start, self.totals.get(1))
            && *next <= start
        {
            self.totals.pop_front();
        }
        let (_, before) = *self.totals.front()?;
        let count = total.saturating_sub(before);
        let step = self.step();
        if self
            .totals
            .back()
            .is_none_or(|(last, _)| now - *last >= step)
        {
            self.totals.push_back((now, total));
        }
        let was_over = self.over;
        self.over = count >= self.limit.count;
        (self.over && !was_over).then_some((self.limit.action, count))
    }

    fn step(&self) -> Duration {
        self.limit.per / SAMPLES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knocking(count: u64, per: u64) -> (Knocking, Instant) {
        let knocking = Knocking::new(&DenialLimit {
            count,
            per: Duration::from_secs(per),
            action: OnDenials::Report,
            place: Default::default(),
        });
        let start = knocking.totals[0].0;
        (knocking, start)
    }

    #[test]
    fn so_many_within_the_span_are_told_once() {
        let (mut knocking, start) = knocking(10, 60);
        let at = |second| start + Duration::from_secs(second);
        assert_eq!(knocking.note(4, at(1)), None);
        assert_eq!(knocking.note(9, at(2)), None);
        assert_eq!(knocking.note(10, at(3)), Some((OnDenials::Report, 10)));
        assert_eq!(knocking.note(40, at(4)), None);
        // Quiet for a while, and again.
        assert_eq!(knocking.note(40, at(100)), None);
        assert_eq!(knocking.note(49, at(101)), None);
        assert_eq!(knocking.note(50, at(102)), Some((OnDenials::Report, 10)));
    }

    #[test]
    fn what_is_older_than_the_span_does_not_count() {
        let (mut knocking, start) = knocking(10, 60);
        // One every ten seconds: six in a minute.
        for step in 1..1000 {
            let now = start + Duration::from_secs(step * 10);
            assert_eq!(knocking.note(step, now), None, "{step}");
            assert!(knocking.totals.len() <= SAMPLES as usize + 2);
        }
    }

    #[test]
    fn a_long_span_keeps_few_totals() {
        let (mut knocking, start) = knocking(1_000_000, 86_400);
        for second in 1..200_000 {
            knocking.note(second, start + Duration::from_secs(second));
        }
        assert!(knocking.totals.len() <= SAMPLES as usize + 2);
        let (_, before) = knocking.totals[0];
        let span = 199_999 - before;
        assert!(
            (86_400..=86_400 + 86_400 / 60 + 1).contains(&span),
            "{span}"
        );
    }
}
