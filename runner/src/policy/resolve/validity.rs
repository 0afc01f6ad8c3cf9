// SPDX-License-Identifier: MIT OR Apache-2.0
//! `[valid]`: when the policy holds, and whether it does now.

use std::path::Path;

use jiff::tz::TimeZone;

use super::super::error::quote;
use super::super::layers::Layer;
use super::super::model::Refusal;
use super::super::schema::ValidText;
use super::super::tree::At;
use super::super::window::{Hours, Leaving, Window};
use super::Resolver;

/// The machine's time zone: root's word, where `TZ` is anybody's.
const LOCAL: &str = "/etc/localtime";
/// Zones by name; `TZDIR` is anybody's too.
const ZONES: &str = "/usr/share/zoneinfo";
/// Longest file of a time zone.
const LONGEST_ZONE: usize = 1 << 20;

impl Resolver<'_> {
    /// `[valid]`; a policy that does not hold now refuses the run.
    pub(super) fn valid(&mut self, main: &Layer) -> Option<Window> {
        let layers = self.layers;
        for layer in &layers[..layers.len() - 1] {
            if let Some(valid) = &layer.schema.valid {
                let what = "holds only in the policy itself; write it there";
                self.errors.add(&valid.place, "valid", what);
            }
        }
        let text = main.schema.valid.as_ref()?;
        let window = self.window(text)?;
        if let Some(closed) = window.closed(self.facts.now()) {
            self.refusals.push(Refusal {
                place: text.place.clone(),
                key: closed.key,
                what: closed.why,
                passes: closed.passes,
            });
        }
        Some(window)
    }

    fn window(&mut self, text: &ValidText) -> Option<Window> {
        let not_before = text.not_before.as_ref().and_then(|day| self.date(day));
        let not_after = text.not_after.as_ref().and_then(|day| self.date(day));
        if text.not_before.is_none() && text.not_after.is_none() && text.hours.is_none() {
            let what = "says nothing of when; write not_after, not_before or hours";
            self.errors.add(&text.place, "valid", what);
        }
        if let (Some(first), Some(last), Some(day)) = (not_before, not_after, &text.not_after)
            && last < first
        {
            let what = format!("lies before {first}; write a later day");
            self.errors.add(&day.place, &day.key, what);
        }
        let hours = text.hours.as_ref();
        let hours = hours.and_then(|hours| self.measured(hours, Hours::parse));
        let (zone, zone_name) = match &text.tz {
            Some(name) => (self.zone(name)?, name.value.clone()),
            None => (self.local_zone(), "this machine's time zone".to_owned()),
        };
        if text.tz.is_none() {
            self.default("valid.tz", LOCAL);
        }
        if text.action.is_none() {
            self.default("valid.action", "kill");
        }
        let freeze = text
            .action
            .as_ref()
            .is_some_and(|word| word.value == "freeze");
        Some(Window {
            not_before,
            not_after,
            hours,
            zone,
            zone_name,
            action: if freeze {
                Leaving::Freeze
            } else {
                Leaving::Kill
            },
            place: text.place.clone(),
        })
    }

    /// The zone in which the machine tells the time; UTC where it says none.
    pub(super) fn local_zone(&self) -> TimeZone {
        self.read_zone(Path::new(LOCAL)).unwrap_or(TimeZone::UTC)
    }

    fn zone(&mut self, name: &At<String>) -> Option<TimeZone> {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '+');
        let text = name.value.as_str();
        let plain = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(fine);
        let zone = match (text, plain) {
            ("UTC", _) => Some(TimeZone::UTC),
            (_, true) => self.read_zone(&Path::new(ZONES).join(text)),
            _ => None,
        };
        if zone.is_none() {
            let what = format!(
                "{} is no time zone of this machine ({ZONES}); write one such as \"Europe/Berlin\"",
                quote(text)
            );
            self.errors.add(&name.place, &name.key, what);
        }
        zone
    }

    fn read_zone(&self, path: &Path) -> Option<TimeZone> {
        let bytes = self.facts.read(path, LONGEST_ZONE).ok()?;
        TimeZone::tzif("", &bytes).ok()
    }
}
