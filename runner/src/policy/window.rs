// SPDX-License-Identifier: MIT OR Apache-2.0
//! When a policy holds: days, and hours of the week in a time zone.
//!
//! A moment is asked what the clock on the wall of that zone shows, and never the other way round:
//! an hour that the change of summer time repeats counts twice, one that it leaves out never comes.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;

use super::model::Place;

/// Seconds of a day.
const DAY: u32 = 86_400;
/// Most spans of hours; a week has no more reasonable ones.
const MOST_SPANS: usize = 32;

/// What becomes of a run that leaves its window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leaving {
    /// It is ended.
    #[default]
    Kill,
    /// It is frozen, and goes on in the next window.
    Freeze,
}

/// `[valid]`.
#[derive(Clone, Debug)]
pub struct Window {
    /// First day.
    pub not_before: Option<Date>,
    /// Last day.
    pub not_after: Option<Date>,
    /// Hours of the week; `None`: all.
    pub hours: Option<Hours>,
    /// Where the clock hangs.
    pub zone: TimeZone,
    /// What that zone is called.
    pub zone_name: String,
    /// What becomes of a run outside.
    pub action: Leaving,
    /// Where it was written.
    pub place: Place,
}

/// Why a moment lies outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The key that says so.
    pub key: &'static str,
    /// In words.
    pub why: String,
    /// It opens again by itself within a week.
    pub passes: bool,
}

impl Window {
    /// Why the policy does not hold at this moment; `None`: it does.
    pub fn closed(&self, at: Timestamp) -> Option<Closed> {
        let now = self.zone.to_datetime(at);
        let zone = &self.zone_name;
        let closed = |key, why, passes| Some(Closed { key, why, passes });
        if let Some(first) = self.not_before.filter(|first| now.date() < *first) {
            let why = format!("holds from {first} on, and it is {} in {zone}", now.date());
            return closed("valid.not_before", why, false);
        }
        if let Some(last) = self.not_after.filter(|last| now.date() > *last) {
            let why = format!("held until {last}, and it is {} in {zone}", now.date());
            return closed("valid.not_after", why, false);
        }
        match &self.hours {
            Some(hours) if !hours.contain(now) => {
                let day = NAMES[usize::from(index(now.date().weekday()))];
                let time = now.time().strftime("%H:%M");
                let why = format!("{}, and it is {day} {time} in {zone}", hours.text);
                closed("valid.hours", why, true)
            }
            _ => None,
        }
    }

    /// The window in a few words.
    pub fn text(&self) -> String {
        let mut words = Vec::new();
        words.extend(self.not_before.map(|day| format!("from {day}")));
        words.extend(self.not_after.map(|day| format!("until {day}")));
        words.extend(self.hours.as_ref().map(|hours| hours.text.clone()));
        let then = match self.action {
            Leaving::Kill => "then it is ended",
            Leaving::Freeze => "else it is frozen",
        };
        format!("{} in {}; {then}", words.join(" "), self.zone_name)
    }
}

/// `Mon-Fri 08:00-18:00, Sat 09:00-12:00`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    text: String,
    spans: Vec<Span>,
}

/// Hours of some days; those that end before they begin go on into the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    /// A bit for each day, Monday the lowest.
    days: u8,
    /// Seconds after midnight, of which the last does not belong to it.
    from: u32,
    to: u32,
}

const NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

impl Hours {
    /// Reads spans with commas between them; the error says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let spans: Vec<Span> = text
            .split(',')
            .take(MOST_SPANS + 1)
            .map(|part| span(part.trim()))
            .collect::<Result<_, _>>()?;
        match spans.len() > MOST_SPANS {
            true => Err(format!("has more than {MOST_SPANS} spans; join some")),
            false => Ok(Self {
                text: text.trim().to_owned(),
                spans,
            }),
        }
    }

    fn contain(&self, now: DateTime) -> bool {
        let day = index(now.date().weekday());
        let (hour, minute, second) = (now.hour(), now.minute(), now.second());
        let [hour, minute, second] =
            [hour, minute, second].map(|part| u32::try_from(part).unwrap_or(0));
        let at = (hour * 60 + minute) * 60 + second;
        self.spans.iter().any(|span| span.contains(day, at))
    }
}

impl Span {
    fn contains(self, day: u8, at: u32) -> bool {
        let on = |day: u8| self.days & (1 << (day % 7)) != 0;
        match self.from < self.to {
            true => on(day) && (self.from..self.to).contains(&at),
            // What began yesterday is not over yet.
            false => on(day) && at >= self.from || on(day + 6) && at < self.to,
        }
    }
}

/// 0 for Monday.
fn index(day: Weekday) -> u8 {
    u8::try_from(day.to_monday_zero_offset()).unwrap_or(0)
}

fn span(text: &str) -> Result<Span, String> {
    const SHAPE: &str = "write days and hours: \"Mon-Fri 08:00-18:00\", \"Sat 22:00-06:00\"";
    let wrong = || format!("is no span of hours; {SHAPE}");
    let mut words = text.split_whitespace();
    let (first, second, more) = (words.next(), words.next(), words.next());
    let (days, hours) = match (first, second, more) {
        (Some(hours), None, None) => (0x7f, hours),
        (Some(days), Some(hours), None) => (days_of(days).ok_or_else(wrong)?, hours),
        _ => return Err(wrong()),
    };
    let (from, to) = hours.split_once('-').ok_or_else(wrong)?;
    let (from, to) = (
        seconds(from).ok_or_else(wrong)?,
        seconds(to).ok_or_else(wrong)?,
    );
    match from == to || from == DAY {
        true => Err("has no hours; for whole days write 00:00-24:00".to_owned()),
        false => Ok(Span { days, from, to }),
    }
}

/// `Mon`, or `Mon-Fri`; `Sat-Mon` goes over the week's end.
fn days_of(text: &str) -> Option<u8> {
    let number = |name: &str| NAMES.iter().position(|known| *known == name);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    let length = (last + 7 - first) % 7;
    Some((0..=length).fold(0, |days, step| days | 1 << ((first + step) % 7)))
}

/// `08:00`, `08:00:30` or `24:00`.
fn seconds(text: &str) -> Option<u32> {
    let mut parts = [0; 3];
    let mut count = 0;
    for word in text.split(':') {
        if word.len() != 2 || !word.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *parts.get_mut(count)? = word.parse().ok()?;
        count += 1;
    }
    let [hour, minute, second] = parts;
    let total = (hour * 60 + minute) * 60 + second;
    (count >= 2 && minute < 60 && second < 60 && total <= DAY).then_some(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Berlin's rule as it stands since 1996.
    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    fn window(hours: &str) -> Window {
        Window {
            not_before: None,
            not_after: None,
            hours: Some(Hours::parse(hours).unwrap()),
            zone: TimeZone::posix(BERLIN).unwrap(),
            zone_name: "Europe/Berlin".to_owned(),
            action: Leaving::Kill,
            place: Place::default(),
        }
    }

    fn open(window: &Window, at: &str) -> bool {
        window.closed(at.parse().unwrap()).is_none()
    }

    #[test]
    fn hours_are_those_of_the_zone_on_both_sides_of_summer_time() {
        let window = window("Mon-Fri 08:00-18:00");
        for (at, expected) in [
            // Winter: 08:00 is 07:00 UTC; a Tuesday.
            ("2026-11-24T06:59:59Z", false),
            ("2026-11-24T07:00:00Z", true),
            ("2026-11-24T16:59:59Z", true),
            ("2026-11-24T17:00:00Z", false),
            // Summer: an hour earlier.
            ("2026-07-21T05:59:59Z", false),
            ("2026-07-21T06:00:00Z", true),
            ("2026-07-21T16:00:00Z", false),
            // A Sunday, and the last moment of a Friday.
            ("2026-11-22T12:00:00Z", false),
            ("2026-11-27T16:59:59.999Z", true),
        ] {
            assert_eq!(open(&window, at), expected, "{at}");
        }
    }

    #[test]
    fn an_hour_that_is_repeated_counts_twice_and_one_that_is_left_out_never() {
        let night = window("Sun 02:00-03:00");
        // 2026-10-25: 03:00 summer time becomes 02:00.
        for at in [
            "2026-10-25T00:00:00Z",
            "2026-10-25T00:59:59Z",
            "2026-10-25T01:30:00Z",
        ] {
            assert!(open(&night, at), "{at}");
        }
        assert!(!open(&night, "2026-10-24T23:59:59Z"));
        assert!(!open(&night, "2026-10-25T02:00:00Z"));
        // 2027-03-28: after 01:59:59 comes 03:00.
        let first: Timestamp = "2027-03-28T00:00:00Z".parse().unwrap();
        let opened = (0..180).filter(|minute| {
            let at = first + jiff::SignedDuration::from_mins(*minute);
            night.closed(at).is_none()
        });
        assert_eq!(opened.count(), 0);
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let night = window("Fri 22:00-06:00");
        for (at, expected) in [
            ("2026-11-27T20:59:59Z", false),
            ("2026-11-27T21:00:00Z", true),
            ("2026-11-28T04:59:59Z", true),
            ("2026-11-28T05:00:00Z", false),
            // The end of a night that began on Thursday.
            ("2026-11-27T03:00:00Z", false),
        ] {
            assert_eq!(open(&night, at), expected, "{at}");
        }
        // Sunday's night ends on Monday.
        let sunday = window("Sat-Sun 23:00-01:00");
        assert!(open(&sunday, "2026-11-29T23:30:00Z"));
        assert!(!open(&sunday, "2026-11-30T23:30:00Z"));
    }

    #[test]
    fn days_are_whole_and_the_last_one_belongs_to_it() {
        let days = Window {
            not_before: Some(jiff::civil::date(2026, 11, 1)),
            not_after: Some(jiff::civil::date(2027, 3, 1)),
            hours: None,
            ..window("00:00-24:00")
        };
        for (at, key) in [
            ("2026-10-31T22:59:59Z", Some("valid.not_before")),
            ("2026-10-31T23:00:00Z", None),
            ("2027-03-01T22:59:59Z", None),
            ("2027-03-01T23:00:00Z", Some("valid.not_after")),
        ] {
            let closed = days.closed(at.parse().unwrap());
            assert_eq!(closed.as_ref().map(|closed| closed.key), key, "{at}");
            assert!(closed.is_none_or(|closed| !closed.passes), "{at}");
        }
        let hours = window("Mon 08:00-09:00").closed("2026-11-24T07:00:00Z".parse().unwrap());
        let hours = hours.unwrap();
        assert!(hours.passes);
        assert_eq!(
            hours.why,
            "Mon 08:00-09:00, and it is Tue 08:00 in Europe/Berlin"
        );
    }

    #[test]
    fn several_spans_are_joined() {
        let window = window("Mon-Thu 08:00-18:00, Fri 08:00-15:30:30 ,Sat-Mon 00:00-00:01");
        for (at, expected) in [
            ("2026-11-27T14:30:29Z", true),
            ("2026-11-27T14:30:30Z", false),
            ("2026-11-26T16:59:00Z", true),
            ("2026-11-28T23:00:30Z", true),
            ("2026-11-29T23:00:30Z", true),
            ("2026-11-30T23:00:30Z", false),
        ] {
            assert_eq!(open(&window, at), expected, "{at}");
        }
    }

    #[test]
    fn what_is_no_span_is_refused_with_what_to_write() {
        for text in [
            "",
            ",",
            "Mon",
            "08:00",
            "8:00-18:00",
            "08:00-25:00",
            "08:60-09:00",
            "24:00-06:00",
            "08:00-08:00",
            "Mon-Fri",
            "Monday 08:00-18:00",
            "mon 08:00-18:00",
            "Mon 08-18",
            "Mon-Xyz 08:00-18:00",
            "Mon 08:00-18:00 CET",
            "Mon 08:00-18:00,",
            "08:00-24:00:01",
            "-08:00-18:00",
            "08:00:00:00-18:00",
            "+8:00-18:00",
        ] {
            let what = Hours::parse(text).expect_err(text);
            assert!(what.contains("write"), "{text}: {what}");
        }
        assert!(Hours::parse(&["08:00-09:00"; 33].join(",")).is_err());
        assert!(Hours::parse(&["08:00-09:00"; 32].join(",")).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in ".{0,40}") {
            let _ = Hours::parse(&text);
        }

        /// Each second of a week is judged as a list of seconds would.
        #[test]
        fn a_span_is_its_seconds(day in 0_u8..7, from in 0_u32..1440, length in 1_u32..1440, at in 0_u32..10_080) {
            let to = (from + length) % 1440;
            let text = format!(
                "{} {:02}:{:02}-{:02}:{:02}",
                NAMES[usize::from(day)], from / 60, from % 60, to / 60, to % 60
            );
            let start = u32::from(day) * 1440 + from;
            let inside = (0..length).any(|minute| (start + minute) % 10_080 == at);
            let hours = Hours::parse(&text).unwrap();
            let found = hours.spans[0].contains(u8::try_from(at / 1440).unwrap(), at % 1440 * 60);
            prop_assert_eq!(found, inside, "{} {}", text, at);
        }
    }
}
