// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernel time (nanoseconds since boot, suspend included) as wall-clock time.

use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};

/// The wall-clock time at which the machine booted, as seen when the run started: a clock that
/// is set later does not move events of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    boot: Timestamp,
}

impl Clock {
    /// Reads both clocks.
    pub fn now() -> Self {
        Self::at(Timestamp::now() - since_boot())
    }

    /// What the clock would show if nobody had set it since.
    pub fn steady(&self) -> Timestamp {
        self.boot + since_boot()
    }

    /// A machine that booted at `boot`.
    pub fn at(boot: Timestamp) -> Self {
        Self { boot }
    }

    /// When `nanoseconds` had passed since boot. A value no clock can have becomes the boot.
    pub fn timestamp(&self, nanoseconds: u64) -> Timestamp {
        i64::try_from(nanoseconds)
            .ok()
            .and_then(|ns| self.boot.checked_add(SignedDuration::from_nanos(ns)).ok())
            .unwrap_or(self.boot)
    }

    /// As [`Self::timestamp`], where 0 means never.
    pub fn stamp(&self, nanoseconds: u64) -> Option<Timestamp> {
        (nanoseconds != 0).then(|| self.timestamp(nanoseconds))
    }
}

/// The time since the machine booted, with that in which it slept.
fn since_boot() -> SignedDuration {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(|time| SignedDuration::new(time.tv_sec(), time.tv_nsec() as i32))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_time_counts_from_boot() {
        let clock = Clock::at("2026-11-24T00:00:00Z".parse().unwrap());
        assert_eq!(
            clock.timestamp(1_500_000_000).to_string(),
            "2026-11-24T00:00:01.5Z"
        );
        assert_eq!(clock.stamp(0), None);
        assert_eq!(clock.timestamp(u64::MAX), clock.boot);
    }

    #[test]
    fn now_is_now() {
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
        let nanoseconds = since_boot.tv_sec() as u64 * 1_000_000_000 + since_boot.tv_nsec() as u64;
        let off = Timestamp::now().duration_since(Clock::now().timestamp(nanoseconds));
        assert!(off.abs() < SignedDuration::from_secs(1), "{off:?}");
    }
}
