// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether this run may start at all: who answers for it, and who calls. What refuses it here is no
//! mistake of the file: the policy is valid, and the log gets its record.

use jiff::civil::Date;

use super::super::error::quote;
use super::super::facts::User;
use super::super::layers::Layer;
use super::super::model::{Invoke, Place, Refusal, Task};
use super::super::schema::{Schema, check_name};
use super::super::tree::At;
use super::Resolver;

impl Resolver<'_> {
    /// `[task]`.
    pub(super) fn task(&mut self, main: &Layer) -> Task {
        let schema = &main.schema;
        let strict = schema.strict.as_ref().is_some_and(|strict| strict.value);
        let (review_by, overdue) = self.review_by(schema, strict);
        let empty = |text: &Option<At<String>>| {
            text.as_ref()
                .is_none_or(|text| text.value.trim().is_empty())
        };
        for (key, missing, next) in [
            ("task.purpose", empty(&schema.purpose), "say it"),
            ("task.owner", empty(&schema.owner), "say it"),
            ("task.review_by", schema.review_by.is_none(), "set a day"),
        ] {
            let whole = main.source.place();
            match missing {
                true if strict => {
                    let what = format!("is missing, and task.strict asks for it; {next}");
                    self.errors.add(&whole, key, what);
                }
                true => self
                    .warnings
                    .push((whole, format!("{key} is missing; {next}"))),
                false => {}
            }
        }
        let text = |text: &Option<At<String>>| text.as_ref().map(|text| text.value.clone());
        Task {
            purpose: text(&schema.purpose),
            owner: text(&schema.owner),
            review_by,
            environment: self.environment(schema),
            overdue,
            strict,
        }
    }

    /// The day, and whether it is past.
    fn review_by(&mut self, schema: &Schema, strict: bool) -> (Option<Date>, bool) {
        let Some(day) = &schema.review_by else {
            return (None, false);
        };
        let Some(date) = self.date(day) else {
            return (None, false);
        };
        let today = self.local_zone().to_datetime(self.facts.now()).date();
        if date < today {
            let what = format!("the review was due on {date}");
            match strict {
                true => self.refusals.push(Refusal {
                    place: day.place.clone(),
                    key: "task.review_by",
                    what: format!("{what}; look at the policy again and set a new day"),
                    passes: false,
                }),
                false => self
                    .warnings
                    .push((day.place.clone(), format!("task.review_by: {what}"))),
            }
        }
        (Some(date), date < today)
    }

    /// A day of the calendar.
    pub(super) fn date(&mut self, day: &At<toml::value::Date>) -> Option<Date> {
        let date = Date::new(
            i16::try_from(day.value.year).ok()?,
            i8::try_from(day.value.month).ok()?,
            i8::try_from(day.value.day).ok()?,
        );
        if date.is_err() {
            let what = "is not a day; write one such as 2027-03-01";
            self.errors.add(&day.place, &day.key, what);
        }
        date.ok()
    }

    fn environment(&mut self, schema: &Schema) -> Option<(String, Place)> {
        let label = schema.environment.as_ref()?;
        if let Err(what) = check_name(&label.value) {
            self.errors.add(&label.place, &label.key, what);
        }
        Some((label.value.clone(), label.place.clone()))
    }

    /// `[invoke]`.
    pub(super) fn invoke(&mut self, main: &Layer) -> Option<Invoke> {
        let layers = self.layers;
        for layer in &layers[..layers.len() - 1] {
            if let Some(invoke) = &layer.schema.invoke {
                let what = "holds only in the policy itself; write it there";
                self.errors.add(&invoke.place, "invoke", what);
            }
        }
        let text = main.schema.invoke.as_ref()?;
        if text.users.is_none() && text.groups.is_none() {
            let what = "names nobody; write users = [\"name\"] or groups = [\"name\"]";
            self.errors.add(&text.place, "invoke", what);
        }
        let caller = self.person();
        let mut admitted = false;
        let mut invoke = Invoke::default();
        for name in text.users.iter().flatten() {
            match self.facts.user(&name.value) {
                Some(user) => admitted |= user.uid == caller.uid,
                None => self.nobody(name, "user"),
            }
            invoke.users.push(name.value.clone());
        }
        for name in text.groups.iter().flatten() {
            match self.facts.group(&name.value) {
                Some(gid) => admitted |= self.facts.in_group(&caller, gid),
                None => self.nobody(name, "group"),
            }
            invoke.groups.push(name.value.clone());
        }
        if !admitted {
            let what = format!(
                "{} (uid {}) may not start this policy; ask {}",
                caller.name,
                caller.uid,
                main.schema
                    .owner
                    .as_ref()
                    .map_or("who wrote it".to_owned(), |owner| quote(&owner.value))
            );
            self.refusals.push(Refusal {
                place: text.place.clone(),
                key: "invoke",
                what,
                passes: false,
            });
        }
        Some(invoke)
    }

    /// Who called. `su` leaves no word of it, but the kernel knows who logged in.
    fn person(&self) -> User {
        let login = match self.caller.uid {
            0 => self.facts.login().filter(|uid| *uid != 0),
            _ => None,
        };
        let Some(uid) = login else {
            return self.caller.clone();
        };
        self.facts.user_by_uid(uid).unwrap_or_else(|| User {
            name: uid.to_string(),
            uid,
            gid: uid,
            home: "/nonexistent".into(),
        })
    }

    /// A name that admits nobody here: the policy may be for several machines.
    fn nobody(&mut self, name: &At<String>, kind: &str) {
        let what = format!(
            "{}: {} is no {kind} of this machine and admits nobody",
            name.key,
            quote(&name.value)
        );
        self.warnings.push((name.place.clone(), what));
    }
}
