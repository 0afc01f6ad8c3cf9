// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program: which one the policy allows, where it is, and what interprets it.

use std::path::{Path, PathBuf};

use super::super::LoadRequest;
use super::super::error::{NOT_EXECUTABLE, NOT_FOUND, REFUSED, quote};
use super::super::facts::{FactError, Facts, Kind, Need, Object};
use super::super::model::{Command, FileRule, Verb};
use super::super::schema::Schema;
use super::{PATH, Resolver, settings};

/// Longest chain of `#!` interpreters: execve(2) follows as many.
const DEEPEST: usize = 5;
/// `BINPRM_BUF_SIZE`: what the kernel reads of a `#!` line.
const FIRST_LINE: usize = 256;
/// Most arguments and longest of them (`MAX_ARG_STRLEN`).
const LONGEST_ARGUMENT: usize = 131_072;

/// A program that was found.
#[derive(Clone)]
pub(super) struct Program {
    /// As the agent names it.
    pub(super) path: PathBuf,
    pub(super) object: Object,
    /// Root did not choose it: it is held to the caller's own rights.
    pub(super) held: bool,
}

impl Resolver<'_> {
    /// The command line, allowed by `[command]` and resolved.
    pub(super) fn command(&mut self, request: &LoadRequest, main: &Schema) -> Option<Command> {
        let argv = self.argv(request, main)?;
        let first = argv.first()?.clone();
        if argv
            .iter()
            .any(|argument| argument.contains('\0') || argument.len() >= LONGEST_ARGUMENT)
        {
            self.errors.add_unplaced(
                "command",
                "an argument has a NUL byte or is too long",
                REFUSED,
            );
            return None;
        }
        match self.program(&first) {
            Ok(found) => {
                let interpreters = self.interpreters(&found)?;
                let all = [&found].into_iter().chain(&interpreters);
                let held = all.filter(|program| program.held);
                self.held_programs = held.map(|program| program.object.path.clone()).collect();
                Some(Command {
                    argv,
                    program: Some(found.object),
                    path: found.path,
                    interpreters: interpreters
                        .into_iter()
                        .map(|program| program.object)
                        .collect(),
                })
            }
            Err((what, exit)) => {
                self.errors.add_unplaced("command", what, exit);
                None
            }
        }
    }

    fn argv(&mut self, request: &LoadRequest, main: &Schema) -> Option<Vec<String>> {
        let Some(allowed) = &main.command else {
            if request.command.is_empty() && request.needs_command {
                let what = "no program given; write it after --, or run = [\"…\"] under [command]";
                self.errors.add_unplaced("command", what, REFUSED);
            }
            return (!request.command.is_empty()).then(|| request.command.clone());
        };
        let mut run = Vec::new();
        for part in &allowed.run {
            run.push(self.replaced(part)?);
        }
        if request.command.is_empty() || request.command == run {
            return Some(run);
        }
        if allowed.append && request.command.starts_with(&run) {
            return Some(request.command.clone());
        }
        let rule = if allowed.append {
            "it may only be followed by arguments"
        } else {
            "nothing else may be run"
        };
        let what = format!(
            "the policy runs {}, {rule}; leave the command out",
            quote(&run.join(" "))
        );
        self.errors.add(&allowed.place, "command.run", what);
        None
    }

    /// The program file that `name` means, as the agent names it and as it is.
    fn program(&mut self, name: &str) -> Result<Program, (String, u8)> {
        if name.is_empty() {
            return Err(("the program's name is empty".to_owned(), NOT_FOUND));
        }
        if !name.contains('/') {
            return self.in_path(name, false).ok_or_else(|| {
                let what = format!(
                    "{} is not found in the agent's PATH ({}); if it is elsewhere, give its \
                     full path",
                    quote(name),
                    self.search_path()
                );
                (what, NOT_FOUND)
            });
        }
        let typed: PathBuf = self.workdir.join(name).components().collect();
        match self.open_program(&typed, false) {
            Ok(found) if is_program(&found.object) => {
                let climbs = typed.components().any(|part| part.as_os_str() == "..");
                Ok(match climbs {
                    true => Program {
                        path: found.object.path.clone(),
                        ..found
                    },
                    false => found,
                })
            }
            Ok(_) => Err((
                format!("{} is not an executable file", quote(name)),
                NOT_EXECUTABLE,
            )),
            Err(FactError::Missing(_)) => {
                Err((format!("{} does not exist", quote(name)), NOT_FOUND))
            }
            Err(error) => {
                let what = format!("{} {}", quote(name), super::super::source::reason(&error));
                Err((what, NOT_EXECUTABLE))
            }
        }
    }

    /// The first program of that name in the directories of `PATH`.
    pub(super) fn in_path(&self, name: &str, held: bool) -> Option<Program> {
        let dirs = self
            .path_dirs
            .iter()
            .map(PathBuf::as_path)
            .chain(PATH.iter().map(Path::new));
        for dir in dirs {
            let path = dir.join(name);
            if let Ok(found) = self.open_program(&path, held)
                && is_program(&found.object)
            {
                return Some(found);
            }
        }
        None
    }

    fn search_path(&self) -> String {
        let dirs = self
            .path_dirs
            .iter()
            .map(|dir| dir.to_string_lossy().into_owned());
        dirs.chain(PATH.iter().map(|dir| (*dir).to_owned()))
            .collect::<Vec<_>>()
            .join(":")
    }

    /// The interpreters of a `#!` script, outermost first; also the program that `env` finds.
    fn interpreters(&mut self, program: &Program) -> Option<Vec<Program>> {
        let mut found: Vec<Program> = Vec::new();
        let mut script = program.clone();
        while let Some(line) = self.first_line(&script) {
            if found.len() >= DEEPEST {
                let what = "the #! lines lead through more than 5 interpreters";
                self.errors.add_unplaced("command", what, NOT_EXECUTABLE);
                return None;
            }
            let mut words = line.split_ascii_whitespace();
            let name = words.next().unwrap_or_default();
            // What a script of somebody else says is not root's word, even where root named it.
            let held = script.held || script.object.uid != 0 || self.is_kept(&script.object.path);
            let opened = match name.starts_with('/') {
                true => self.open_program(Path::new(name), held).ok(),
                false => None,
            };
            let Some(interpreter) = opened.filter(|found| is_program(&found.object)) else {
                let what = format!("its #! line names {}, which is no program", quote(name));
                self.errors.add_unplaced("command", what, NOT_EXECUTABLE);
                return None;
            };
            let through_env = interpreter
                .object
                .path
                .file_name()
                .is_some_and(|name| name == "env");
            found.push(interpreter.clone());
            script = interpreter;
            if through_env && let Some(name) = named_by_env(words) {
                let Some(named) = self.in_path(name, held) else {
                    let what = format!(
                        "its #! line asks env for {}, which is not in PATH ({})",
                        quote(name),
                        self.search_path()
                    );
                    self.errors.add_unplaced("command", what, NOT_FOUND);
                    return None;
                };
                found.push(named.clone());
                script = named;
            }
        }
        Some(found)
    }

    /// What follows `#!`; `None` for anything but a script.
    fn first_line(&self, script: &Program) -> Option<String> {
        let read = |facts: &dyn Facts| facts.read_object(&script.object, FIRST_LINE);
        let bytes = self.look(script.held, read).ok()?;
        let rest = bytes.strip_prefix(b"#!")?;
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        Some(String::from_utf8_lossy(line).trim().to_owned())
    }

    /// Whether program and interpreters are granted for execution, by a first look: what is
    /// taken away again is the plan's to say.
    pub(super) fn check_program(&mut self, files: &[FileRule]) {
        let Some(command) = self.command.clone() else {
            return;
        };
        let runs =
            |rule: &&FileRule| rule.verb == Verb::Exec || rule.verb == Verb::Write && rule.exec;
        let rules: Vec<_> = files.iter().filter(runs).collect();
        for object in command.program.iter().chain(&command.interpreters) {
            if !rules
                .iter()
                .any(|rule| settings::covers(rule, &object.path))
            {
                let what = format!(
                    "{} is not granted for execution; add exec = [\"${{COMMAND}}\"] to [files]",
                    quote(&object.path.to_string_lossy())
                );
                self.errors.add_unplaced("command", what, NOT_EXECUTABLE);
            }
            let held = self.layers.last().is_some_and(|main| self.held(main));
            if held && !self.caller_may(object, Need::Run) {
                let what = format!(
                    "{} may not run {}",
                    self.caller.name,
                    quote(&object.path.to_string_lossy())
                );
                self.errors.add_unplaced("command", what, NOT_EXECUTABLE);
            }
        }
    }

    /// The `#!` line of a script that this policy lets be written is the word of whoever wrote it
    /// last, which may have been an agent, whoever owns the script: `${COMMAND}` grants nothing by
    /// it.
    pub(super) fn check_interpreters(&mut self, files: &[FileRule]) {
        let Some(command) = &self.command else {
            return;
        };
        let chain = || command.program.iter().chain(&command.interpreters);
        let writer = |object: &Object| {
            let mut writers = files.iter().filter(|rule| rule.verb == Verb::Write);
            writers.find(|rule| settings::covers(rule, &object.path))
        };
        let written = chain().enumerate();
        let Some((at, script, rule)) = written
            .filter_map(|(at, object)| Some((at, object, writer(object)?)))
            .next()
        else {
            return;
        };
        let granted = |object: &Object| {
            let exec = |rule: &&FileRule| match rule.verb {
                Verb::Exec => rule.info.text != "${COMMAND}",
                verb => verb == Verb::Write && rule.exec,
            };
            let mut rules = files.iter().filter(exec);
            rules.any(|rule| settings::covers(rule, &object.path))
        };
        if let Some(interpreter) = chain().skip(at + 1).find(|object| !granted(object)) {
            let interpreter = quote(&interpreter.path.to_string_lossy());
            let what = format!(
                "{} lies where {} writes, so its #! line may be an agent's word, and only that asks \
                 for {interpreter}; add exec = [{interpreter}] to [files]",
                quote(&script.path.to_string_lossy()),
                rule.info.key,
            );
            self.errors.add_unplaced("command", what, NOT_EXECUTABLE);
        }
    }

    /// Opens a program. Links of the caller lead to it too: he typed it, and what is found is
    /// executable or refused. Where a link is not root's, what it leads to is his choice.
    pub(super) fn open_program(&self, path: &Path, held: bool) -> Result<Program, FactError> {
        let found = |object, held| Program {
            path: path.to_owned(),
            object,
            held,
        };
        if !held && !self.chosen(path) {
            match self.facts.open(path, &[]) {
                Err(FactError::UntrustedLink { .. }) => {}
                opened => return opened.map(|object| found(object, false)),
            }
        }
        let trusted = [self.owner, self.caller.uid, self.workdir_owner];
        let object = self.open(true, path, &trusted)?;
        Ok(found(object, true))
    }
}

/// Whether it is a file that somebody may run.
pub(super) fn is_program(object: &Object) -> bool {
    object.kind == Kind::File && object.mode & 0o111 != 0
}

/// The program that `env` is asked for: its first word that is neither option nor assignment.
fn named_by_env<'t>(words: impl Iterator<Item = &'t str>) -> Option<&'t str> {
    let mut value_follows = false;
    for word in words {
        if std::mem::take(&mut value_follows) {
            continue;
        }
        match word {
            "-u" | "-C" | "--unset" | "--chdir" => value_follows = true,
            _ if word.starts_with("-S") && word.len() > 2 => return Some(&word[2..]),
            _ if word.starts_with('-') || word.contains('=') => {}
            _ => return Some(word),
        }
    }
    None
}
