// SPDX-License-Identifier: MIT OR Apache-2.0
//! `[files]`: every entry becomes a rule, every path an open object.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::super::error::{NOT_EXECUTABLE, quote};
use super::super::facts::{FactError, Kind, Need, Object, mounts};
use super::super::layers::Layer;
use super::super::model::{FileRule, HomeChoice, Place, RuleInfo, Target, Verb, ViewChoice};
use super::super::schema::FileText;
use super::super::source::reason;
use super::super::variables::{Failure, Part, SEVERAL, split};
use super::{CACHE, Resolver, STATE, paths};

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
        let mut objects = match name.as_str() {
            "BASE" => self.base().0.clone(),
            "COMMAND" => self.command_objects(),
            "PYTHON" => self.pythons(),
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
        let lent = name == "PYTHON";
        objects.retain(|object| !lent || self.may_be_typed(layer, object));
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
            return paths::pattern(value).map(Target::Pattern);
        }
        if text.mask_fallback {
            return Err("fallback is for patterns; remove it".to_owned());
        }
        let path = paths::absolute(value)?;
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

    fn taken_away(&mut self, held: bool, path: &Path) -> Result<Target, String> {
        match self.open(held, path, &self.trusted()) {
            Ok(object) => Ok(Target::Object(object)),
            Err(FactError::Missing(_)) => self.later_name(held, path).map(Target::Missing),
            // Whether it exists is not for him to know.
            Err(error) if held && error.is_permission() => Ok(Target::Missing(path.to_owned())),
            Err(error) => Err(unusable(path, &error)),
        }
    }

    /// Where a name that does not exist would appear: links above it are followed, or a grant of
    /// the place that they lead to would not be seen to lie above it.
    fn later_name(&self, held: bool, path: &Path) -> Result<PathBuf, String> {
        for above in path.ancestors().skip(1) {
            let parent = match self.open(held, above, &self.trusted()) {
                Ok(parent) => parent,
                Err(FactError::Missing(_)) => continue,
                Err(error) => return Err(unusable(path, &error)),
            };
            let below = path.strip_prefix(above).unwrap_or(path);
            let first = below.components().next().map(|name| name.as_os_str());
            // What is listed and cannot be opened is a link that leads nowhere yet.
            let dangling = match self.look(held, |facts| facts.list(&parent.path)) {
                Ok(names) => names.iter().any(|name| Some(OsStr::new(name)) == first),
                Err(FactError::Missing(_)) => false,
                Err(error) => return Err(unusable(path, &error)),
            };
            if dangling {
                return Err(format!(
                    "{} is or lies below a symbolic link that leads to nothing; write the path \
                     it leads to",
                    quote(&path.to_string_lossy())
                ));
            }
            return Ok(parent.path.join(below));
        }
        Ok(path.to_owned())
    }

    /// A place that the run makes itself.
    fn private(
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
    fn granted(
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

    /// What lp-run keeps for others, and what it writes down, is nobody's to be granted.
    fn check_kept(&self, object: &Object, shown: &str) -> Result<(), String> {
        let others = mounts::other_names(&self.mounts, object, &object.path);
        let own = [STATE, CACHE].map(|base| self.kept(base));
        let mine = self.facts.own_places().into_iter();
        let mine = mine.flat_map(|places| places.closed.into_iter().chain(places.kept));
        let mine: Vec<PathBuf> = mine.collect();
        let strange = |name: &Path| {
            let ours = ["/var/lib/lp-run", CACHE]
                .iter()
                .any(|place| name.starts_with(place))
                || mine.iter().any(|place| name.starts_with(place));
            ours && (self.name.is_empty() || !own.iter().any(|own| name.starts_with(own)))
        };
        match strange(&object.path) || others.iter().any(|name| strange(name)) {
            true => Err(format!(
                "{shown} is lp-run's own or kept for another policy; write ${{STATE}} or ${{CACHE}}"
            )),
            false => Ok(()),
        }
    }

    /// Whether a path is held to the caller's own rights: by his own policy, or because he chose
    /// it, also under root's policy. What a parameter can be is root's choice: its pattern says.
    pub(super) fn holds(&self, layer: &Layer, text: &str) -> bool {
        let theirs = ["${WORKDIR}", "${GIT_DIR}", "${CALLER_HOME}", "${HOME}"];
        let chosen = theirs.iter().any(|name| text.contains(name));
        self.held(layer) || self.caller.uid != 0 && chosen
    }

    /// Programs that the caller typed, and what follows from their place, are held to his rights
    /// too: a grant reads them with the rights of their owner.
    fn may_be_typed(&self, layer: &Layer, object: &Object) -> bool {
        let chosen = self.held(layer) || self.chosen(&object.path);
        !chosen || self.caller_may(object, Need::Run) && self.caller_may(object, Need::Read)
    }

    /// A caller who is not root gets nothing from his own policy that he could not use himself.
    fn check_caller(
        &self,
        layer: &Layer,
        text: &FileText,
        verb: Verb,
        object: &Object,
        shown: &str,
    ) -> Result<(), String> {
        if self.is_kept(&object.path) || !self.holds(layer, &text.path.value) {
            return Ok(());
        }
        let name = &self.caller.name;
        let may = match verb {
            Verb::Exec => self.caller_may(object, Need::Run),
            _ => self.caller_may(object, Need::Read),
        };
        if !may {
            return Err(self.not_his(shown));
        }
        // A directory that the agent could read only as its owner would lend it all that the owner
        // has below, which a caller who may list the directory himself need not have.
        let open = object.mode & 0o5 == 0o5;
        if object.kind == Kind::Directory && object.uid != self.caller.uid && !open {
            return Err(format!(
                "{shown} belongs to another user and is not open to all, and the policy cannot lend \
                 its owner's rights to {name}; open it to others, or let root name it in the policy"
            ));
        }
        // The agent acts as the owner of what it may write.
        if verb == Verb::Write && object.uid != self.caller.uid {
            return Err(format!(
                "{shown} does not belong to {name}, and the policy cannot lend it; remove it"
            ));
        }
        Ok(())
    }

    /// What the caller's rights do not reach; the same words whether it exists or not.
    fn not_his(&self, shown: &str) -> String {
        let name = &self.caller.name;
        format!("{name} may not use {shown}, and the policy cannot lend it; remove it")
    }

    /// Whether a path is kept for this policy by lp-run.
    fn is_kept(&self, path: &Path) -> bool {
        let mut kept = [STATE, CACHE].into_iter().map(|base| self.kept(base));
        kept.any(|own| path.starts_with(own))
    }

    /// A grant on something that does not exist.
    fn missing(
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

    /// `identity.home = "state"` is a write grant on the kept home.
    fn kept_home(&mut self) -> Option<FileRule> {
        let path = self.home.clone();
        let target = match self.facts.open(&path, &[]) {
            Ok(object) => Target::Object(object),
            Err(_) => {
                let parent = path
                    .ancestors()
                    .skip(1)
                    .find_map(|above| self.facts.open(above, &[]).ok())?;
                Target::Create {
                    parent,
                    path: path.clone(),
                }
            }
        };
        let key = "identity.home".to_owned();
        let text = path.to_string_lossy().into_owned();
        let place = self
            .layers
            .last()
            .map(|main| main.source.place())
            .unwrap_or_default();
        Some(FileRule {
            info: RuleInfo {
                key,
                text,
                place,
                ..RuleInfo::default()
            },
            verb: Verb::Write,
            targets: vec![target],
            exec: false,
            dangerous: None,
            mask_fallback: false,
        })
    }

    /// Libraries of a python that were reached through a link in a tree that this policy lets be
    /// written, and that lead out of it, are not granted: the agent of an earlier run could have
    /// placed the link, to read in this run what it likes.
    fn drop_planted_libraries(&self, rules: &mut [FileRule]) {
        let written: Vec<FileRule> = rules
            .iter()
            .filter(|rule| rule.verb == Verb::Write)
            .cloned()
            .collect();
        let planted = |target: &Target| {
            let Target::Object(object) = target else {
                return false;
            };
            written.iter().any(|writer| {
                let within = |path: &Path| super::settings::covers(writer, path);
                object.links.iter().any(|(link, _)| within(link)) && !within(&object.path)
            })
        };
        for rule in rules {
            if rule.info.text == "${PYTHON_LIB}" {
                rule.targets.retain(|target| !planted(target));
            }
        }
    }

    /// Refuses a grant that was reached through a link inside the work directory, or inside a
    /// tree that this policy lets be written: the agent of an earlier run, under this policy or
    /// another, could have placed the link. A program is exempt: the caller typed its name, and
    /// it is executable or refused.
    fn check_links(&mut self, rules: &[FileRule]) {
        let mut mistakes: Vec<(Place, String, String)> = Vec::new();
        let written: Vec<&FileRule> = rules
            .iter()
            .filter(|rule| rule.verb == Verb::Write)
            .collect();
        for rule in rules {
            let program =
                ["${COMMAND}", "${PYTHON}", "${PYTHON_LIB}"].contains(&rule.info.text.as_str());
            if program || matches!(rule.verb, Verb::Protect | Verb::Deny) {
                continue;
            }
            let objects = rule.targets.iter().filter_map(|target| match target {
                Target::Object(object) => Some(object),
                _ => None,
            });
            for (link, _) in objects.flat_map(|object| &object.links) {
                let writer = written
                    .iter()
                    .find(|writer| super::settings::covers(writer, link));
                let link_text = quote(&link.to_string_lossy());
                let what = match writer {
                    Some(writer) => format!(
                        "{link_text} is a symbolic link where {} writes; write the path it leads to",
                        writer.info.key
                    ),
                    // Nobody was ever lent `/` as a whole.
                    None if link.starts_with(&self.workdir) && self.workdir != Path::new("/") => {
                        format!(
                            "{link_text} is a symbolic link in the work directory; write the path it \
                         leads to"
                        )
                    }
                    None => continue,
                };
                mistakes.push((rule.info.place.clone(), rule.info.key.clone(), what));
            }
        }
        for (place, key, what) in mistakes {
            self.errors.add(&place, &key, what);
        }
    }
}

fn unusable(path: &Path, error: &FactError) -> String {
    format!("{} {}", quote(&path.to_string_lossy()), reason(error))
}

fn words(failure: Failure) -> String {
    match failure {
        Failure::Mistake(what) => what,
        Failure::Unset => String::new(),
    }
}
