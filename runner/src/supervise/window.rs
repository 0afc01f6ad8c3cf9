// SPDX-License-Identifier: MIT OR Apache-2.0
//! The window of a run that goes on: when it is left, and when it is entered again.

use jiff::Timestamp;

use crate::policy::window::{Closed, Leaving, Window};
use crate::watch::Clock;

/// Looks at the clocks.
#[derive(Debug)]
pub struct Watch {
    window: Window,
    clock: Clock,
    inside: bool,
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// The window was left: why, and what becomes of the run.
    Left(String, Leaving),
    /// It was entered again.
    Entered,
}

impl Watch {
    /// Of a run that starts now, inside.
    pub fn new(window: &Window) -> Self {
        Self {
            window: window.clone(),
            clock: Clock::now(),
            inside: true,
        }
    }

    /// What has changed since the last look.
    pub fn turn(&mut self) -> Option<Turn> {
        let closed = closed(&self.window, Timestamp::now(), self.clock.steady());
        let inside = closed.is_none();
        if inside == self.inside {
            return None;
        }
        self.inside = inside;
        Some(match closed {
            Some(Closed { key, why, .. }) => {
                Turn::Left(format!("{key}: {why}"), self.window.action)
            }
            None => Turn::Entered,
        })
    }
}

/// Why the run is outside. It is inside only where the clock of the wall and the one that nobody
/// sets agree that it is: a clock that jumps closes a window and opens none.
fn closed(window: &Window, wall: Timestamp, steady: Timestamp) -> Option<Closed> {
    window.closed(wall).or_else(|| window.closed(steady))
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::policy::model::Place;
    use crate::policy::window::Hours;

    #[test]
    fn a_clock_that_jumps_opens_nothing() {
        let window = Window {
            not_before: None,
            not_after: Some(jiff::civil::date(2026, 11, 30)),
            hours: Some(Hours::parse("08:00-18:00").unwrap()),
            zone: TimeZone::UTC,
            zone_name: "UTC".to_owned(),
            action: Leaving::Kill,
            place: Place::default(),
        };
        let key = |wall: &str, steady: &str| {
            let found = closed(&window, wall.parse().unwrap(), steady.parse().unwrap());
            found.map(|closed| closed.key)
        };
        let (day, night) = ("2026-11-24T12:00:00Z", "2026-11-24T19:00:00Z");
        assert_eq!(key(day, day), None);
        assert_eq!(key("2026-11-24T12:00:01Z", day), None);
        // Set back into the hours, set forward out of them, and the night as it is.
        assert_eq!(key(day, night), Some("valid.hours"));
        assert_eq!(key(night, day), Some("valid.hours"));
        assert_eq!(key(night, night), Some("valid.hours"));
        // A year that is over does not come back.
        assert_eq!(key(day, "2027-11-24T12:00:00Z"), Some("valid.not_after"));
        assert_eq!(key("2027-11-24T12:00:00Z", day), Some("valid.not_after"));
    }
}
