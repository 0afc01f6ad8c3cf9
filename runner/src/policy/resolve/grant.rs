// SPDX-License-Identifier: MIT OR Apache-2.0
//! A grant of `[files]`: a place of the run's own, an object that exists, a directory that is
//! made.

use std::path::{Path, PathBuf};

use super::super::error::quote;
use super::super::facts::{Kind, Object};
use super::super::layers::Layer;
use super::super::model::{HomeChoice, Target, Verb, ViewChoice};
use super::super::schema::FileText;
use super::super::variables::Part;
use super::Resolver;

/// Places that every run has of its own.
const PRIVATE: [&str; 7] = [
    "/tmp", "/var/tmp", "/dev/shm", "/dev/pts", "/dev", "/run", "/proc",
];
/// Devices that every run has.
const DEVICES: [&str; 10] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/stdin",
    "/dev/stdout",
    "/dev/stderr",
];

impl Resolver<'_> {
    /// A place that the run makes itself.
    pub(super) fn private(
        &self,
        text: &FileText,
        parts: &[Part],
        path: &Path,
    ) -> Result<Option<Target>, String> {
        let first =
            |name: &str| matches!(parts.first(), Some(Part::Variable(first)) if first == name);
        let own_home = self.identity.home == HomeChoice::Temp && path.starts_with(&self.home);
        let exact = PRIVATE.iter().any(|place| path == Path::new(place));
        let device = DEVICES.iter().any(|device| path == Path::new(device));
        if !(own_home || exact || device || first("TMPDIR") || path.starts_with("/proc")) {
            return Ok(None);
        }
        let closed = ["/proc", "/run", "/dev"]
            .iter()
            .any(|place| path == Path::new(place));
        if text.verb == Verb::Write && (closed || path.starts_with("/proc")) {
            return Err(format!(
                "{} is the run's own and set up by lp-run; write below ${{TMPDIR}}",
                quote(&path.to_string_lossy())
            ));
        }
        Ok(Some(Target::Private(path.to_owned())))
    }

    /// A grant on something that exists.
    pub(super) fn granted(
        &mut self,
        layer: &Layer,
        text: &FileText,
        value: &str,
        object: Object,
    ) -> Result<Target, String> {
        let shown = quote(value);
        match object.kind {
            Kind::File | Kind::Directory => {}
            Kind::Socket => {
                return Err(format!("{shown} is a socket; write it under network.unix"));
            }
            Kind::CharDevice => {
                return Err(format!(
                    "{shown} is a device; devices are not in this version"
                ));
            }
            Kind::Other => return Err(format!("{shown} is neither file nor directory; remove it")),
        }
        if text.create && object.kind != Kind::Directory {
            return Err(format!(
                "{shown} is a file, and create = \"dir\" makes a directory; remove create"
            ));
        }
        if text.verb == Verb::Write {
            let verdict = self.judge_write(&object.path, &object);
            self.check_dangerous(layer, text.dangerous.as_ref(), verdict)?;
            if object.kind == Kind::File {
                let what = format!(
                    "{} grants one file; programs that save by renaming need its directory",
                    text.path.key
                );
                self.warnings.push((text.path.place.clone(), what));
            }
        }
        self.check_kept(&object, &shown)?;
        self.check_covered(&object.path, &shown)?;
        if object.path == Path::new("/") {
            let what = format!(
                "{} is the whole machine, as far as the agent's uid may read",
                text.path.key
            );
            self.warnings.push((text.path.place.clone(), what));
        }
        if let Err(what) = self.check_caller(layer, text, text.verb, &object, &shown) {
            if !text.optional {
                return Err(what);
            }
            self.warnings.push((
                text.path.place.clone(),
                format!("{}: {what}", text.path.key),
            ));
            return Ok(Target::Missing(object.path));
        }
        Ok(Target::Object(object))
    }

    /// A grant on something that does not exist.
    pub(super) fn missing(
        &mut self,
        layer: &Layer,
        text: &FileText,
        parts: &[Part],
        value: &str,
        path: PathBuf,
    ) -> Result<Target, String> {
        let kept =
            |name: &str| matches!(parts.first(), Some(Part::Variable(first)) if first == name);
        let keeps = text.verb == Verb::Write && (kept("STATE") || kept("CACHE"));
        if text.create || keeps {
            return self.made(layer, text, value, path, keeps);
        }
        if text.optional {
            return Ok(Target::Missing(path));
        }
        let instead = match text.verb {
            Verb::Write => "fix the path, or add create = \"dir\" or optional = true",
            _ => "fix the path, or add optional = true",
        };
        Err(format!("{} does not exist; {instead}", quote(value)))
    }

    /// A private view has places of its own, for which there must be room: nothing can be made
    /// in a tree of the host that is shown.
    fn check_covered(&self, path: &Path, shown: &str) -> Result<(), String> {
        if self.identity.view == ViewChoice::Host {
            return Ok(());
        }
        if path == Path::new("/") {
            return Err(format!(
                "{shown} is the whole machine; grant the directories that the task needs, or \
                 write view = \"host\" under [identity]"
            ));
        }
        let hides_home = self.identity.home == HomeChoice::Temp
            && self.home.starts_with(path)
            && self.facts.open(&self.home, &[]).is_err();
        if hides_home {
            return Err(format!(
                "{shown} leaves no room for the agent's own home {}; grant a directory inside it",
                quote(&self.home.to_string_lossy())
            ));
        }
        Ok(())
    }

    /// A directory that the start makes.
    fn made(
        &mut self,
        layer: &Layer,
        text: &FileText,
        value: &str,
        path: PathBuf,
        keeps: bool,
    ) -> Result<Target, String> {
        let held = self.holds(layer, &text.path.value) && !keeps;
        let nearest = path.ancestors().skip(1).find_map(|above| {
            let object = self.open(held, above, &self.trusted()).ok()?;
            Some((above.to_owned(), object))
        });
        let Some((above, parent)) = nearest else {
            return Err(format!(
                "{}: no directory above it can be opened; fix the path",
                quote(value)
            ));
        };
        if parent.kind != Kind::Directory || !keeps && path.parent() != Some(above.as_path()) {
            return Err(format!(
                "{}: the directory above it does not exist; make {} first",
                quote(value),
                quote(&path.parent().unwrap_or(&path).to_string_lossy())
            ));
        }
        let below = path.strip_prefix(&above).unwrap_or(&path);
        let path = parent.path.join(below);
        let verdict = self.judge_write(&path, &parent);
        self.check_dangerous(layer, text.dangerous.as_ref(), verdict)?;
        if !keeps {
            self.check_caller(
                layer,
                text,
                Verb::Write,
                &parent,
                &quote(&parent.path.to_string_lossy()),
            )?;
        }
        Ok(Target::Create { parent, path })
    }
}
