// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parameters: the values that narrow a run to the task at hand.
//!
//! A value stands in paths and addresses, so one that could climb out of its place never
//! matches, whatever the pattern says.

use std::collections::BTreeMap;

use regex_lite::Regex;

use super::error::{PolicyErrors, REFUSED, nearest, quote};
use super::schema::ParamText;
use super::tree::At;

/// Longest value, bytes.
const LONGEST: usize = 255;
/// Names that variables have already.
const TAKEN: &[&str] = super::variables::NAMES;

/// The value of every declared parameter, from `--set` or its default. With `every` unset (a
/// mere check) a parameter without a value is left out and nothing is missed.
pub fn values(
    declared: &[ParamText],
    sets: &[(String, String)],
    every: bool,
    errors: &mut PolicyErrors,
) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for (index, (name, _)) in sets.iter().enumerate() {
        let option = format!("--set {}", super::error::escape(name, 80));
        if !declared.iter().any(|param| param.name.value == *name) {
            let near = nearest(name, declared.iter().map(|param| param.name.value.as_str()));
            let what = match near {
                Some(near) => {
                    format!("the policy declares no such parameter; did you mean `{near}`?")
                }
                None => {
                    "the policy declares no such parameter; declare it under [params]".to_owned()
                }
            };
            errors.add_unplaced(&option, what, REFUSED);
        }
        if sets[..index].iter().any(|(earlier, _)| earlier == name) {
            errors.add_unplaced(&option, "is given twice; give it once", REFUSED);
        }
    }
    for param in declared {
        let Some(rule) = Rule::new(param, errors) else {
            continue;
        };
        let given = sets.iter().find(|(name, _)| *name == param.name.value);
        match (given, &param.default) {
            (Some((name, value)), _) => match rule.check(value) {
                Ok(()) => {
                    values.insert(name.clone(), value.clone());
                }
                Err(what) => errors.add_unplaced(&format!("--set {name}"), what, REFUSED),
            },
            (None, Some(default)) => {
                values.insert(param.name.value.clone(), default.value.clone());
            }
            (None, None) if every => {
                let what = format!(
                    "has no value; add --set {}=VALUE{}",
                    param.name.value,
                    help(param)
                );
                errors.add(&param.name.place, &param.name.key, what);
            }
            (None, None) => {}
        }
        if let Some(default) = &param.default
            && let Err(what) = rule.check(&default.value)
        {
            errors.add(&default.place, &default.key, what);
        }
    }
    values
}

fn help(param: &ParamText) -> String {
    param
        .help
        .as_ref()
        .map(|help| format!(" ({})", super::error::escape(&help.value, 80)))
        .unwrap_or_default()
}

/// What a value must be.
enum Rule {
    Pattern(Box<Regex>, String),
    Values(Vec<String>),
}

impl Rule {
    fn new(param: &ParamText, errors: &mut PolicyErrors) -> Option<Self> {
        let At {
            value: name,
            place,
            key,
        } = &param.name;
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase())
            || !name.chars().all(fine)
            || name.len() > 63
        {
            let what = "is not a parameter's name; write lower-case letters, digits and _";
            errors.add(place, &super::error::escape(key, 80), what);
            return None;
        }
        if TAKEN.contains(&name.as_str()) {
            errors.add(place, key, "is the name of a variable; choose another");
            return None;
        }
        match (&param.pattern, &param.values) {
            (Some(pattern), None) => Self::pattern(pattern, errors),
            (None, Some(values)) if !values.is_empty() => {
                for value in values {
                    if let Err(what) = climbs(&value.value) {
                        errors.add(&value.place, &value.key, what);
                    }
                }
                Some(Self::Values(
                    values.iter().map(|value| value.value.clone()).collect(),
                ))
            }
            (Some(_), Some(_)) => {
                errors.add(place, key, "has a pattern and values; write one of them");
                None
            }
            _ => {
                let what =
                    "allows no value; write pattern = \"[0-9]{1,8}\" or values = [\"a\", \"b\"]";
                errors.add(place, key, what);
                None
            }
        }
    }

    fn pattern(pattern: &At<String>, errors: &mut PolicyErrors) -> Option<Self> {
        let text = &pattern.value;
        // Compiled alone first: a stray parenthesis must not close the group of the whole match.
        let whole = Regex::new(text).and_then(|_| Regex::new(&format!(r"\A(?:{text})\z")));
        match whole {
            Ok(regex) => Some(Self::Pattern(Box::new(regex), text.clone())),
            Err(_) => {
                let what = format!(
                    "{} is not a regular expression; write one such as \"[0-9]{{1,8}}\"",
                    quote(text)
                );
                errors.add(&pattern.place, &pattern.key, what);
                None
            }
        }
    }

    fn check(&self, value: &str) -> Result<(), String> {
        climbs(value)?;
        match self {
            Self::Pattern(regex, _) if regex.is_match(value) => Ok(()),
            Self::Pattern(_, text) => Err(format!(
                "{} does not match the pattern {}",
                quote(value),
                quote(text)
            )),
            Self::Values(values) if values.iter().any(|allowed| allowed == value) => Ok(()),
            Self::Values(values) => {
                let near: Vec<_> = values.iter().take(8).map(|value| quote(value)).collect();
                Err(format!(
                    "{} is not one of the values; write {}",
                    quote(value),
                    near.join(" or ")
                ))
            }
        }
    }
}

/// A value that would change the shape of a path or an address.
fn climbs(value: &str) -> Result<(), String> {
    let bad = value.is_empty()
        || value == "."
        || value.len() > LONGEST
        || value.contains("..")
        || value.contains(['/', '*', '$'])
        || value.chars().any(char::is_control);
    match bad {
        true => Err(format!(
            "{} can never be a value: empty, too long, or with /, .., *, $ or a control character",
            quote(value)
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::parse;
    use super::*;

    fn run(params: &str, sets: &[(&str, &str)]) -> Result<BTreeMap<String, String>, String> {
        let (schema, mut errors, _) = parse("p.toml", &format!("[params]\n{params}\n"), false);
        let sets: Vec<_> = sets
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        let found = values(&schema.params, &sets, true, &mut errors);
        if errors.is_empty() {
            Ok(found)
        } else {
            Err(errors.to_string())
        }
    }

    #[test]
    fn a_value_must_match_as_a_whole() {
        let ticket = "ticket = { pattern = \"[0-9]{1,8}\" }";
        assert_eq!(run(ticket, &[("ticket", "42")]).unwrap()["ticket"], "42");
        for value in ["42x", "x42", "123456789", "", "4\n2", "42\n"] {
            assert!(run(ticket, &[("ticket", value)]).is_err(), "{value:?}");
        }
    }

    #[test]
    fn alternatives_and_flags_do_not_widen_the_whole_match() {
        for pattern in ["a|b", "(?x)a # note", "(?m)a$"] {
            let params = format!("p = {{ pattern = \"{pattern}\" }}");
            assert!(run(&params, &[("p", "ab")]).is_err(), "{pattern}");
        }
        assert!(
            run("p = { pattern = \"a)|(b\" }", &[("p", "b")])
                .unwrap_err()
                .contains("not a regular")
        );
    }

    #[test]
    fn a_value_that_could_climb_never_matches() {
        for value in ["..", ".", "a/b", "a..b", "*", "$x", "a\u{0}b", "a\nb"] {
            let found = run("p = { pattern = \"(?s).*\" }", &[("p", value)]).unwrap_err();
            assert!(found.contains("can never be a value"), "{value:?}: {found}");
        }
    }

    #[test]
    fn unknown_missing_and_double_values_are_errors() {
        let params = "target = { values = [\"test\", \"prod\"] }";
        assert!(
            run(params, &[])
                .unwrap_err()
                .contains("add --set target=VALUE")
        );
        assert!(
            run(params, &[("targt", "test"), ("target", "test")])
                .unwrap_err()
                .contains("did you mean `target`")
        );
        assert!(
            run(params, &[("target", "dev")])
                .unwrap_err()
                .contains("is not one of the values")
        );
        assert!(
            run(params, &[("target", "test"), ("target", "prod")])
                .unwrap_err()
                .contains("twice")
        );
    }

    #[test]
    fn a_default_is_used_and_checked() {
        let params = "target = { values = [\"test\"], default = \"test\" }";
        assert_eq!(run(params, &[]).unwrap()["target"], "test");
        let bad = "target = { values = [\"test\"], default = \"prod\" }";
        assert!(run(bad, &[]).unwrap_err().contains("params.target.default"));
    }
}
