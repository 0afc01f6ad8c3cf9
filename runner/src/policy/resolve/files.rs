// SPDX-License-Identifier: MIT OR Apache-2.0
//! `[files]`: every entry becomes a rule, every path an open object.

use super::super::error::{NOT_EXECUTABLE, quote};
use super::super::facts::{FactError, Object};
use super::super::layers::Layer;
use super::super::model::{FileRule, HomeChoice, RuleInfo, Target, Verb};
use super::super::pattern::Pattern;
use super::super::schema::FileText;
use super::super::source::reason;
use super::super::variables::{Failure, Part, SEVERAL, split};
use super::{Resolver, paths};

impl Resolver<'_> {
    /// The rules of all layers, kits first, and what `identity.home` needs.
    pub(super) fn files(&mut self) -> Vec<FileRule> {
        let mut rules = Vec::new();
        for layer in self.layers {
            for text in &layer.schema.files {
                self.rules_of(layer, text, &mut rules);
            }
        }
        if self.identity.home == HomeChoice::State {
            rules.extend(self.kept_home());
        }
        self.drop_planted_libraries(&mut rules);
        self.check_links(&rules);
        rules
    }

    fn rules_of(&mut self, layer: &Layer, text: &FileText, rules: &mut Vec<FileRule>) {
        let found = match split(&text.path.value) {
            Ok(parts) => self.targets(layer, text, &parts),
            Err(what) => Err(what),
        };
        let targets = match found {
            Ok(targets) => targets,
            Err(what) => {
                if !what.is_empty() {
                    self.errors.add(&text.path.place, &text.path.key, what);
                }
                return;
            }
        };
        let normal = self
            .values
            .replace(&text.path.value)
            .unwrap_or_else(|_| text.path.value.clone());
        let info = self.info(layer, &text.path, &text.rule, normal);
        let loaders = (text.path.value == "${BASE}" && text.verb == Verb::Read)
            .then(|| self.base().1.clone());
        let rule = FileRule {
            info,
            verb: text.verb,
            targets,
            exec: text.exec,
            dangerous: text.dangerous.as_ref().map(|reason| reason.value.clone()),
            mask_fallback: text.mask_fallback,
        };
        if let Some(loaders) = loaders {
            let info = RuleInfo {
                key: format!("{}.loader", rule.info.key),
                id: None,
                text: "${BASE} loader".to_owned(),
                ..rule.info.clone()
            };
            let targets = loaders.into_iter().map(Target::Object).collect();
            rules.push(rule);
            let verb = Verb::Exec;
            rules.push(FileRule {
                info,
                verb,
                targets,
                exec: false,
                dangerous: None,
                mask_fallback: false,
            });
        } else {
            rules.push(rule);
        }
    }

    /// What an entry names. An empty error stands for a parameter without a value in a check.
    fn targets(
        &mut self,
        layer: &Layer,
        text: &FileText,
        parts: &[Part],
    ) -> Result<Vec<Target>, String> {
        let several =
            |part: &Part| matches!(part, Part::Variable(name) if SEVERAL.contains(&name.as_str()));
        if !parts.iter().any(several) {
            let value = self.values.join(&text.path.value, parts).map_err(words)?;
            return Ok(vec![self.target(layer, text, parts, &value)?]);
        }
        let Some((Part::Variable(name), rest)) = parts.split_first() else {
            return Err(format!(
                "{} has text before the variable; remove it",
                quote(&text.path.value)
            ));
        };
        if rest.iter().any(several) {
            return Err(format!(
                "{} has two variables of several values; write two entries",
                quote(&text.path.value)
            ));
        }
        if name == "GIT_DIR" {
            return self.git_targets(layer, text, parts, rest);
        }
        if !rest.is_empty() {
            return Err(format!(
                "${{{name}}} is files of the system; write it alone"
            ));
        }
        if !matches!(text.verb, Verb::Read | Verb::Exec) {
            return Err(format!(
                "${{{name}}} is for read and exec; name the path itself"
            ));
        }
        let objects = match name.as_str() {
            "BASE" => self.base().0.clone(),
            "COMMAND" => self.command_objects(),
            "PYTHON" => self.pythons(layer),
            _ => self.python_libraries(),
        };
        if let Some(object) = objects
            .iter()
            .find(|object| name == "COMMAND" && !self.may_be_typed(layer, object))
        {
            let what = format!(
                "{} may not run and read {}, and ${{COMMAND}} lends nothing; name it in [files] or \
                 under [command]",
                self.caller.name,
                quote(&object.path.to_string_lossy())
            );
            self.errors.add_unplaced("command", what, NOT_EXECUTABLE);
        }
        if objects.is_empty() && !text.optional && name.starts_with("PYTHON") {
            return Err(format!(
                "${{{name}}}: no python is found in PATH; install one, or add optional = true"
            ));
        }
        Ok(objects.into_iter().map(Target::Object).collect())
    }

    fn command_objects(&self) -> Vec<Object> {
        let Some(command) = &self.command else {
            return Vec::new();
        };
        command
            .program
            .iter()
            .chain(&command.interpreters)
            .cloned()
            .collect()
    }

    fn git_targets(
        &mut self,
        layer: &Layer,
        text: &FileText,
        parts: &[Part],
        rest: &[Part],
    ) -> Result<Vec<Target>, String> {
        let suffix = self.values.join(&text.path.value, rest).map_err(words)?;
        if !suffix.is_empty() && !suffix.starts_with('/') {
            return Err(format!(
                "{}: write a / after ${{GIT_DIR}}",
                quote(&text.path.value)
            ));
        }
        let dirs = self.git_dirs()?;
        if dirs.is_empty() && !text.optional {
            return Err(format!(
                "${{GIT_DIR}}: {} is in no git repository; add optional = true",
                quote(&self.workdir.to_string_lossy())
            ));
        }
        let mut targets = Vec::new();
        for dir in dirs {
            let value = format!("{}{suffix}", dir.to_string_lossy());
            targets.push(self.target(layer, text, parts, &value)?);
        }
        Ok(targets)
    }

    /// One path.
    fn target(
        &mut self,
        layer: &Layer,
        text: &FileText,
        parts: &[Part],
        value: &str,
    ) -> Result<Target, String> {
        let takes_away = matches!(text.verb, Verb::Protect | Verb::Deny);
        if paths::is_pattern(value) {
            if !takes_away {
                return Err(format!(
                    "{}: a grant names one place; write the directory",
                    quote(value)
                ));
            }
            let pattern = paths::pattern(value)?;
            let Some(directory) = Pattern::new(&pattern).directory() else {
                return Ok(Target::Pattern(pattern));
            };
            self.check_kept_way(directory)?;
            let held = self.holds(layer, &text.path.value) && !self.is_kept(directory);
            let pattern = self.pattern_in(held, directory, &pattern)?;
            return Ok(Target::Pattern(pattern));
        }
        let path = paths::absolute(value)?;
        self.check_kept_way(&path)?;
        let held = self.holds(layer, &text.path.value) && !self.is_kept(&path);
        if takes_away {
            return self.taken_away(held, &path);
        }
        if let Some(target) = self.private(text, parts, &path)? {
            return Ok(target);
        }
        match self.open(held, &path, &self.trusted()) {
            Ok(object) => self.granted(layer, text, value, object),
            Err(FactError::Missing(_)) => self.missing(layer, text, parts, value, path),
            Err(error) => {
                let what = match held && error.is_permission() {
                    true => self.not_his(&quote(value)),
                    false => format!("{} {}", quote(value), reason(&error)),
                };
                let refused = held && error.is_permission();
                if !text.optional || !refused && !matches!(error, FactError::UntrustedLink { .. }) {
                    return Err(what);
                }
                // Nothing is granted, which is what `optional` says of a path that is not there.
                let what = format!("{}: {what}", text.path.key);
                self.warnings.push((text.path.place.clone(), what));
                Ok(Target::Missing(path))
            }
        }
    }
}

fn words(failure: Failure) -> String {
    match failure {
        Failure::Mistake(what) => what,
        Failure::Unset => String::new(),
    }
}
