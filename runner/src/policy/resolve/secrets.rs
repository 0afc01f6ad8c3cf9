// SPDX-License-Identifier: MIT OR Apache-2.0
//! `[[secret]]`: where a credential comes from, and as what the agent gets it. Its value is never
//! here: it is read when everything else is ready, through the descriptor that was opened here.

use super::super::error::quote;
use super::super::facts::{Kind, Need, Object};
use super::super::layers::Layer;
use super::super::model::{Secret, SecretForm, SecretSource};
use super::super::quantity;
use super::super::schema::{SecretText, check_name};
use super::super::tree::At;
use super::settings::check_variable;
use super::{Resolver, paths};

const SOURCES: &str = "write from = \"file:/path\", \"env:NAME\" or \"credential:NAME\"";

impl Resolver<'_> {
    /// `[[secret]]`.
    pub(super) fn secrets(&mut self, main: &Layer) -> Vec<Secret> {
        let layers = self.layers;
        for layer in &layers[..layers.len() - 1] {
            if let Some(secret) = layer.schema.secrets.first() {
                let what = "holds only in the policy itself; write it there";
                self.errors.add(&secret.name.place, "secret", what);
            }
        }
        let mut secrets: Vec<Secret> = Vec::new();
        for text in &main.schema.secrets {
            let Some(secret) = self.secret(main, text) else {
                continue;
            };
            let same = |other: &Secret| match (&other.form, &secret.form) {
                (SecretForm::Variable(one), SecretForm::Variable(two)) => one == two,
                _ => false,
            };
            if secrets
                .iter()
                .any(|other| other.name == secret.name || same(other))
            {
                let what = format!("{} is given already; remove one", quote(&secret.name));
                self.errors.add(&text.name.place, &text.name.key, what);
            }
            secrets.push(secret);
        }
        secrets
    }

    fn secret(&mut self, main: &Layer, text: &SecretText) -> Option<Secret> {
        if let Err(what) = check_name(&text.name.value) {
            self.errors.add(&text.name.place, &text.name.key, what);
        }
        let max_age = text.max_age.as_ref();
        let max_age = max_age.and_then(|age| self.measured(age, quantity::duration));
        let form = text
            .form
            .as_ref()
            .map_or(Some(SecretForm::File), |form| self.form(form));
        let source = self.source(main, &text.from);
        if let (Some(age), Some(SecretSource::Variable(_) | SecretSource::Credential(_))) =
            (&text.max_age, &source)
        {
            let what = "needs from = \"file:…\": nobody knows the age of another source; remove it";
            self.errors.add(&age.place, &age.key, what);
        }
        Some(Secret {
            name: text.name.value.clone(),
            source: source?,
            form: form?,
            max_age,
            place: text.name.place.clone(),
        })
    }

    fn form(&mut self, text: &At<String>) -> Option<SecretForm> {
        let result = match (text.value.as_str(), text.value.strip_prefix("env:")) {
            ("file", _) => Ok(SecretForm::File),
            (_, Some(name)) => check_variable(name).map(|()| SecretForm::Variable(name.to_owned())),
            _ => Err(format!(
                "{} is no form; write \"file\" or \"env:NAME\"",
                quote(&text.value)
            )),
        };
        result
            .map_err(|what| self.errors.add(&text.place, &text.key, what))
            .ok()
    }

    fn source(&mut self, main: &Layer, text: &At<String>) -> Option<SecretSource> {
        let value = self.replaced(text)?;
        let result = match value.split_once(':') {
            Some(("file", path)) => self.secret_file(main, text, path).map(SecretSource::File),
            Some(("env", name)) => {
                check_variable(name).map(|()| SecretSource::Variable(name.to_owned()))
            }
            Some(("credential", name)) => {
                let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
                match !name.is_empty() && !name.starts_with('.') && name.chars().all(fine) {
                    true => Ok(SecretSource::Credential(name.to_owned())),
                    false => Err(format!(
                        "{} is no credential's name; {SOURCES}",
                        quote(name)
                    )),
                }
            }
            _ => Err(format!("is no source; {SOURCES}")),
        };
        result
            .map_err(|what| self.errors.add(&text.place, &text.key, what))
            .ok()
    }

    /// A file that nobody but its owner, root or the caller, may have changed, and not everybody read.
    fn secret_file(&self, main: &Layer, text: &At<String>, path: &str) -> Result<Object, String> {
        let shown = quote(path);
        let path = paths::absolute(path)?;
        let held = self.holds(main, &text.value);
        let object = self
            .open(held, &path, &[self.owner])
            .map_err(|error| format!("{shown} {}", super::super::source::reason(&error)))?;
        let owners = if held {
            [0, self.caller.uid]
        } else {
            [0, self.owner]
        };
        if object.kind != Kind::File {
            return Err(format!("{shown} is not a regular file; name one"));
        }
        if !owners.contains(&object.uid) {
            let uid = object.uid;
            return Err(format!(
                "{shown} belongs to uid {uid}, who can change it; chown it"
            ));
        }
        if object.mode & 0o027 != 0 {
            return Err(format!(
                "{shown} is open to others (mode {:04o}); chmod 600",
                object.mode
            ));
        }
        if held && !self.caller_may(&object, Need::Read) {
            return Err(format!("{shown} may not be read by {}", self.caller.name));
        }
        Ok(object)
    }
}
