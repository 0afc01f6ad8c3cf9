// SPDX-License-Identifier: MIT OR Apache-2.0
//! Environment, limits, audit, system calls, and what a policy accepts to miss.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::error::{nearest, quote};
use super::super::model::{
    Audit, DEGRADABLE, Degrade, DenialLimit, FileRule, Limits, NO_WALL_TIME, OnDenials, Store, Verb,
};
use super::super::quantity;
use super::super::schema::DenialsText;
use super::super::schema::Schema;
use super::super::tree::At;
use super::{Resolver, paths};

/// Passed when `[env] pass` is not written.
const PASS: [&str; 6] = ["LANG", "LC_*", "TERM", "COLORTERM", "TZ", "NO_COLOR"];
/// Set by lp-run itself.
const OURS: [&str; 7] = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "PWD"];
/// Prefixes that a wildcard never covers: they change what a program is.
const SPELLED_OUT: [&str; 3] = ["LD_", "GIT_", "BASH_FUNC_"];
/// Bytes of the private `/tmp`.
const TMP: Store = Store::Tmpfs(512 << 20);
/// The smallest ext4 that is of any use.
const LEAST_DISK: u64 = 8 << 20;
/// Bytes of the private `/dev/shm`.
const SHM: u64 = 64 << 20;
/// Between the request to end and the kill.
const GRACE: Duration = Duration::from_secs(10);
/// With fewer a program cannot even be loaded; `fs.nr_open` is the most that RLIMIT_NOFILE can be.
const FILES: RangeInclusive<i64> = 16..=1 << 20;
/// `PID_MAX_LIMIT` (`include/linux/threads.h`) is the most.
const PROCESSES: RangeInclusive<i64> = 1..=1 << 22;

impl Resolver<'_> {
    /// `[env]`: patterns that pass, and variables that are set.
    pub(super) fn env(&mut self) -> (Vec<String>, BTreeMap<String, String>) {
        let mut pass = Vec::new();
        let mut written = false;
        let mut set = BTreeMap::new();
        for layer in self.layers {
            for pattern in layer.schema.env_pass.iter().flatten() {
                self.check_pass(pattern);
                pass.push(pattern.value.clone());
            }
            written |= layer.schema.env_pass.is_some();
            for (name, value) in &layer.schema.env_set {
                if let Err(what) = check_variable(&name.value) {
                    self.errors.add(
                        &name.place,
                        &super::super::error::escape(&name.key, 80),
                        what,
                    );
                } else if value.value.contains('\0') {
                    self.errors
                        .add(&value.place, &value.key, "has a NUL byte; remove it");
                } else if let Some(value) = self.replaced(value) {
                    set.insert(name.value.clone(), value);
                }
            }
            for dir in &layer.schema.env_path {
                let Some(text) = self.replaced(dir) else {
                    continue;
                };
                match paths::absolute(&text) {
                    Ok(_) if text.contains(':') => {
                        self.errors
                            .add(&dir.place, &dir.key, "has a colon; write one directory");
                    }
                    Ok(path) => self.path_dirs.push(path),
                    Err(what) => self.errors.add(&dir.place, &dir.key, what),
                }
            }
        }
        if !written {
            pass = PASS.map(str::to_owned).to_vec();
            self.default("env.pass", PASS.join(" "));
        }
        (pass, set)
    }

    fn check_pass(&mut self, pattern: &At<String>) {
        let text = pattern.value.as_str();
        let name = text.strip_suffix('*').unwrap_or(text);
        let wrong = if text == "*" {
            Some("`*` is the whole environment; name the variables".to_owned())
        } else if let Err(what) = check_variable(name) {
            Some(what)
        } else if text.ends_with('*') && SPELLED_OUT.iter().any(|prefix| name.starts_with(prefix)) {
            Some(format!(
                "{} reaches variables that change programs; spell each in full",
                quote(text)
            ))
        } else {
            None
        };
        if let Some(what) = wrong {
            self.errors.add(&pattern.place, &pattern.key, what);
        }
    }

    /// `[limits]`.
    pub(super) fn limits(&mut self) -> Limits {
        let wall_time = self.scalar(|schema| schema.limits.wall_time.as_ref());
        let wall_time = wall_time.and_then(|text| self.measured(&text, quantity::duration));
        if wall_time.is_none() {
            let place = self
                .layers
                .last()
                .map(|layer| layer.source.place())
                .unwrap_or_default();
            self.warnings.push((place, NO_WALL_TIME.to_owned()));
            self.default("limits.wall_time", "none");
        }
        let file_size = self.scalar(|schema| schema.limits.file_size.as_ref());
        let file_size = file_size.and_then(|text| self.measured(&text, quantity::size));
        let tmp = self.scalar(|schema| schema.limits.tmp.as_ref());
        let tmp = self.or_default("limits.tmp", "tmpfs:512M", tmp, store, TMP);
        let shm = self.scalar(|schema| schema.limits.shm.as_ref());
        let shm = self.or_default("limits.shm", "64M", shm, quantity::size, SHM);
        let signal = self.scalar(|schema| schema.limits.stop_signal.as_ref());
        let stop_signal = self.or_default(
            "limits.stop_signal",
            "TERM",
            signal,
            quantity::signal,
            libc::SIGTERM,
        );
        let grace = self.scalar(|schema| schema.limits.stop_grace.as_ref());
        let stop_grace =
            self.or_default("limits.stop_grace", "10s", grace, quantity::duration, GRACE);
        let open_files = self.count(|schema| schema.limits.open_files.as_ref(), FILES);
        let processes = self.count(|schema| schema.limits.processes.as_ref(), PROCESSES);
        let memory = self.scalar(|schema| schema.limits.memory.as_ref());
        let memory = memory.and_then(|text| self.measured(&text, quantity::memory));
        let cpu = self.scalar(|schema| schema.limits.cpu.as_ref());
        let cpu = cpu.and_then(|text| self.measured(&text, quantity::percent));
        let denials = self.scalar(|schema| schema.limits.denials.as_ref());
        let denials = denials.and_then(|text| self.denials(&text));
        Limits {
            wall_time,
            memory,
            processes,
            cpu,
            open_files,
            file_size,
            tmp,
            shm,
            stop_signal,
            stop_grace,
            denials,
        }
    }

    fn denials(&mut self, text: &At<DenialsText>) -> Option<DenialLimit> {
        let DenialsText { count, per, action } = &text.value;
        if count.value < 1 {
            let what = format!("{} is out of range; write 1 or more", count.value);
            self.errors.add(&count.place, &count.key, what);
        }
        if action.is_none() {
            self.default("limits.denials.action", "kill");
        }
        Some(DenialLimit {
            count: u64::try_from(count.value).ok()?,
            per: self.measured(per, quantity::duration)?,
            action: match action.as_ref().map(|word| word.value.as_str()) {
                Some("report") => OnDenials::Report,
                Some("freeze") => OnDenials::Freeze,
                _ => OnDenials::Kill,
            },
            place: text.place.clone(),
        })
    }

    fn count(
        &mut self,
        key: impl Fn(&Schema) -> Option<&At<i64>>,
        range: RangeInclusive<i64>,
    ) -> Option<u64> {
        let limit = self.scalar(key)?;
        if !range.contains(&limit.value) {
            let [least, most] = [range.start(), range.end()];
            let what = format!("{} is out of range; write {least} to {most}", limit.value);
            self.errors.add(&limit.place, &limit.key, what);
        }
        u64::try_from(limit.value).ok()
    }

    fn or_default<T>(
        &mut self,
        key: &str,
        written: &str,
        text: Option<At<String>>,
        read: impl Fn(&str) -> Result<T, String>,
        default: T,
    ) -> T {
        match text {
            Some(text) => self.measured(&text, read).unwrap_or(default),
            None => {
                self.default(key, written);
                default
            }
        }
    }

    pub(super) fn measured<T>(
        &mut self,
        text: &At<String>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        read(&text.value)
            .map_err(|what| {
                let what = format!("{} {what}", quote(&text.value));
                self.errors.add(&text.place, &text.key, what);
            })
            .ok()
    }

    /// `[audit]`; the log may not lie where the agent writes.
    pub(super) fn audit(&mut self, files: &[FileRule]) -> Audit {
        let log = self.scalar(|schema| schema.audit.log.as_ref());
        let log = log.and_then(|text| self.log(&text, files));
        if log.is_none() {
            self.default("audit.log", "none");
        }
        let on_failure = self.scalar(|schema| schema.audit.on_failure.as_ref());
        let tell_agent = self.scalar(|schema| schema.audit.tell_agent.as_ref());
        let count_files = self.scalar(|schema| schema.audit.count_files.as_ref());
        let require = self.scalar(|schema| schema.audit.require_counts.as_ref());
        for (key, missing, value) in [
            ("audit.on_failure", on_failure.is_none(), "stop"),
            ("audit.tell_agent", tell_agent.is_none(), "true"),
            ("audit.count_files", count_files.is_none(), "auto"),
            ("audit.require_counts", require.is_none(), "false"),
        ] {
            if missing {
                self.default(key, value);
            }
        }
        let count = count_files.is_none_or(|value| value.value == "auto");
        if let Some(require) = &require
            && require.value
            && !count
        {
            let what = "needs counts, and count_files = \"off\" has none; remove one";
            self.errors.add(&require.place, &require.key, what);
        }
        Audit {
            log,
            stop_on_failure: on_failure.is_none_or(|value| value.value == "stop"),
            tell_agent: tell_agent.is_none_or(|value| value.value),
            count_files: count,
            require_counts: require.is_some_and(|value| value.value),
        }
    }

    fn log(&mut self, text: &At<String>, files: &[FileRule]) -> Option<PathBuf> {
        let value = self.replaced(text)?;
        let path = match paths::absolute(&value) {
            Ok(path) => path,
            Err(what) => {
                self.errors.add(&text.place, &text.key, what);
                return None;
            }
        };
        let writer = files
            .iter()
            .find(|rule| rule.verb == Verb::Write && covers(rule, &path));
        if let Some(rule) = writer {
            let what = format!(
                "{} lies where {} writes; choose another place",
                quote(&value),
                rule.info.key
            );
            self.errors.add(&text.place, &text.key, what);
        }
        if let Err(what) = self.check_log(&text.value, &path) {
            self.errors.add(&text.place, &text.key, what);
        }
        Some(path)
    }

    /// lp-run opens the log with rights that a caller may not have: a policy of his own has it
    /// where the caller could have made it; so has one whose place the caller chose.
    fn check_log(&self, text: &str, path: &Path) -> Result<(), String> {
        let main = self.layers.last();
        if !main.is_some_and(|main| self.holds(main, text)) {
            return Ok(());
        }
        let own = |path: &Path| match self.open(true, path, &[]) {
            Ok(object) => Some(object.uid == self.caller.uid),
            Err(_) => None,
        };
        let directory = path.parent().and_then(own) == Some(true);
        match directory && own(path) != Some(false) {
            true => Ok(()),
            false => Err(format!(
                "{} is not in a directory of {}; choose another",
                quote(&path.to_string_lossy()),
                self.caller.name
            )),
        }
    }

    /// `enforcement.degrade`.
    pub(super) fn degrade(&mut self) -> Vec<Degrade> {
        let mut degrade = Vec::new();
        for layer in self.layers {
            for entry in &layer.schema.degrade {
                let name = entry.protection.value.as_str();
                if !DEGRADABLE.contains(&name) {
                    let what = match name {
                        "network" | "identity" => format!("{name} is never missed; remove it"),
                        _ => match nearest(name, DEGRADABLE) {
                            Some(near) => format!(
                                "{} is no protection; did you mean \"{near}\"?",
                                quote(name)
                            ),
                            None => format!(
                                "{} is no protection; write one of {}",
                                quote(name),
                                DEGRADABLE.join(" ")
                            ),
                        },
                    };
                    self.errors
                        .add(&entry.protection.place, &entry.protection.key, what);
                }
                degrade.push(Degrade {
                    protection: name.to_owned(),
                    because: entry.because.as_ref().map(|because| because.value.clone()),
                });
            }
        }
        degrade
    }

    /// Whether `syscalls.profile` is `strict`.
    pub(super) fn syscalls_strict(&mut self) -> bool {
        let profile = self.scalar(|schema| schema.profile.as_ref());
        if profile.is_none() {
            self.default("syscalls.profile", "default");
        }
        profile.is_some_and(|profile| profile.value == "strict")
    }
}

/// Whether a file rule names `path` or a directory above it.
pub fn covers(rule: &FileRule, path: &Path) -> bool {
    use super::super::model::Target;
    rule.targets.iter().any(|target| match target {
        Target::Object(object) => path.starts_with(&object.path),
        Target::Create { path: made, .. } => path.starts_with(made),
        Target::Private(place) => path.starts_with(place),
        Target::Missing(_) | Target::Pattern(_) => false,
    })
}

fn store(text: &str) -> Result<Store, String> {
    match text.split_once(':') {
        Some(("tmpfs", size)) => quantity::size(size).map(Store::Tmpfs),
        Some(("disk", size)) => match quantity::size(size)? {
            size if size < LEAST_DISK => {
                Err("is too small for a file system; write at least \"disk:8M\"".to_owned())
            }
            size => Ok(Store::Disk(size)),
        },
        Some(_) => Err("is no kind of store; write \"tmpfs:512M\" or \"disk:10G\"".to_owned()),
        None => quantity::size(text).map(Store::Tmpfs),
    }
}

/// Whether a variable may be passed or set.
pub(super) fn check_variable(name: &str) -> Result<(), String> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.starts_with(first) || !name.chars().all(fine) {
        return Err(format!(
            "{} is not a variable's name; write letters, digits and _",
            quote(name)
        ));
    }
    if OURS.contains(&name) || name.starts_with("LP_RUN") {
        let instead = match name {
            "PATH" => "write directories under env.path",
            "HOME" => "write identity.home",
            _ => "remove it",
        };
        return Err(format!("{name} is always set by lp-run; {instead}"));
    }
    Ok(())
}
