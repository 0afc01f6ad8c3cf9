// SPDX-License-Identifier: MIT OR Apache-2.0
//! From what was typed to what it means: variables replaced, layers joined, every path opened
//! once.

mod admission;
mod base;
mod command;
mod files;
mod git;
mod grant;
pub(crate) mod guard;
mod identity;
mod kept;
mod links;
pub(super) mod loader;
mod network;
pub(crate) mod paths;
mod python;
mod rights;
mod secrets;
mod settings;
mod taken;
mod validity;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::kept::{CACHE, STATE};
use super::error::{PolicyErrors, REFUSED, quote};
use super::facts::{Ancestor, Facts, Kind, MountPoint, Need, Object, User};
use super::layers::{self, Layer};
use super::model::{Command, Identity, Place, Policy, Refusal, RuleInfo};
use super::schema::{RuleText, Schema, check_name};
use super::tree::At;
use super::variables::{Failure, Values};
use super::{LoadRequest, params};

/// What all parts of the resolver share.
struct Resolver<'a> {
    facts: &'a dyn Facts,
    layers: &'a [Layer],
    caller: User,
    mounts: Vec<MountPoint>,
    /// Owner of the policy itself.
    owner: u32,
    workdir: PathBuf,
    workdir_owner: u32,
    /// The directories above the work directory and itself.
    way: Vec<Ancestor>,
    name: String,
    values: Values,
    identity: Identity,
    home: PathBuf,
    path_dirs: Vec<PathBuf>,
    command: Option<Command>,
    /// Programs of the command that root did not choose.
    held_programs: Vec<PathBuf>,
    base: OnceCell<(Vec<Object>, Vec<Object>)>,
    errors: &'a mut PolicyErrors,
    refusals: Vec<Refusal>,
    warnings: Vec<(Place, String)>,
    defaults: Vec<(String, String)>,
    overridden: Vec<super::model::Overridden>,
}

/// Where the agent finds its secrets.
pub const SECRETS_DIR: &str = "/run/lp-run/secrets";

/// Directories of the agent's `PATH`, after those of `env.path`.
pub const PATH: &[&str] = &["/usr/local/bin", "/usr/bin", "/bin"];

/// Resolves the layers of a policy; the last is the policy itself. Mistakes go to `errors`,
/// and the result means something only while there are none.
pub fn resolve(
    request: &LoadRequest,
    layers: &[Layer],
    caller: User,
    facts: &dyn Facts,
    errors: &mut PolicyErrors,
) -> Option<Policy> {
    let main = layers.last()?;
    let mounts = facts.mounts().unwrap_or_else(|error| {
        let what = format!("cannot be read ({error}); mount /proc");
        errors.add_unplaced("/proc/self/mountinfo", what, REFUSED);
        Vec::new()
    });
    let mut resolver = Resolver {
        facts,
        layers,
        caller,
        mounts,
        owner: main.source.owner,
        workdir: PathBuf::new(),
        workdir_owner: 0,
        way: Vec::new(),
        name: String::new(),
        values: Values::default(),
        identity: identity::default(),
        home: PathBuf::new(),
        path_dirs: Vec::new(),
        command: None,
        held_programs: Vec::new(),
        base: OnceCell::new(),
        errors,
        refusals: Vec::new(),
        warnings: Vec::new(),
        defaults: Vec::new(),
        overridden: Vec::new(),
    };
    resolver.policy(request, main)
}

impl Resolver<'_> {
    fn policy(&mut self, request: &LoadRequest, main: &Layer) -> Option<Policy> {
        self.version_and_name(main);
        self.open_workdir(request);
        let params = self.params(request, &main.schema);
        self.identity();
        self.variables(main);
        let (env_pass, env_set) = self.env();
        self.command = self.command(request, &main.schema);
        let files = self.files();
        self.check_program(&files);
        self.check_interpreters(&files);
        self.check_loaders(&files);
        let (network, listen, unix) = self.network();
        let resolvers = self.resolvers();
        self.check_ids(&files, &network, &listen, &unix);
        let limits = self.limits();
        let audit = self.audit(&files);
        let degrade = self.degrade();
        let syscalls_strict = self.syscalls_strict();
        let task = self.task(main);
        let invoke = self.invoke(main);
        let valid = self.valid(main);
        let secrets = self.secrets(main);
        Some(Policy {
            name: self.name.clone(),
            file: PathBuf::from(&main.source.label),
            sha256: layers::digest(self.layers),
            file_owner: self.owner,
            task,
            command: self.command.clone(),
            invoke,
            valid,
            params,
            identity: self.identity.clone(),
            env_pass,
            env_set,
            path_dirs: self.path_dirs.clone(),
            files,
            existing: BTreeMap::new(),
            network,
            resolvers,
            listen,
            unix,
            limits,
            syscalls_strict,
            degrade,
            audit,
            secrets,
            workdir: self.workdir.clone(),
            way: std::mem::take(&mut self.way),
            home: self.home.clone(),
            caller: self.caller.clone(),
            kept: [STATE, CACHE].map(|base| self.kept(base)),
            mounts: self.mounts.clone(),
            refusals: std::mem::take(&mut self.refusals),
            warnings: std::mem::take(&mut self.warnings),
            defaults: std::mem::take(&mut self.defaults),
            overridden: std::mem::take(&mut self.overridden),
        })
    }

    fn version_and_name(&mut self, main: &Layer) {
        for layer in self.layers {
            let whole = layer.source.place();
            match &layer.schema.version {
                Some(version) if version.value != 1 => {
                    let what = format!("{} is not a version; write version = 1", version.value);
                    self.errors.add(&version.place, "version", what);
                }
                None if layer.source.prefix.is_empty()
                    && !self.errors.mentions(&layer.source.label, "version") =>
                {
                    self.errors
                        .add(&whole, "version", "is missing; write version = 1");
                }
                _ => {}
            }
        }
        match &main.schema.name {
            None if self.errors.mentions(&main.source.label, "name") => {}
            None => {
                let what = "is missing; write name = \"the-agents-name\"";
                self.errors.add(&main.source.place(), "name", what);
            }
            Some(name) => match check_name(&name.value) {
                Ok(()) => self.name = name.value.clone(),
                Err(what) => self.errors.add(&name.place, "name", what),
            },
        }
    }

    fn open_workdir(&mut self, request: &LoadRequest) {
        let asked = match &request.workdir {
            Some(workdir) => request.directory.join(workdir),
            None => request.directory.clone(),
        };
        let trusted = [self.caller.uid, self.owner];
        let option = format!("--workdir {}", asked.display());
        match self.open(true, &asked, &trusted) {
            Ok(object) if object.kind == Kind::Directory => {
                if !self.caller_may(&object, Need::Enter) {
                    let what = format!("{} may not enter it; choose another", self.caller.name);
                    self.errors.add_unplaced(&option, what, REFUSED);
                }
                if let Some((link, _)) = object.links.first() {
                    // An agent of an earlier run could have placed it, in a tree that it was lent.
                    let what = format!(
                        "{} is a symbolic link; write {}",
                        link.display(),
                        object.path.display()
                    );
                    self.errors.add_unplaced(&option, what, REFUSED);
                }
                self.workdir_owner = object.uid;
                self.way = object.ancestors;
                self.way.push(Ancestor {
                    path: object.path.clone(),
                    uid: object.uid,
                    gid: object.gid,
                    mode: object.mode,
                    dev: object.dev,
                    ino: object.ino,
                });
                self.workdir = object.path;
            }
            Ok(_) => self
                .errors
                .add_unplaced(&option, "is not a directory; name one", REFUSED),
            Err(error) => {
                self.errors
                    .add_unplaced(&option, super::source::reason(&error), REFUSED);
            }
        }
        if self.workdir.as_os_str().is_empty() {
            self.workdir = asked;
        }
        if self.workdir.to_str().is_none() {
            self.errors
                .add_unplaced(&option, "is not UTF-8; rename the directory", REFUSED);
        }
    }

    fn params(&mut self, request: &LoadRequest, main: &Schema) -> BTreeMap<String, String> {
        let every = request.needs_command;
        let values = params::values(&main.params, &request.sets, every, self.errors);
        for param in &main.params {
            match values.get(&param.name.value) {
                Some(value) => self.values.set(&param.name.value, value),
                // What is wrong with it has been said, or this is a mere check.
                None => self.values.leave_unset(&param.name.value),
            }
        }
        values
    }

    fn variables(&mut self, main: &Layer) {
        self.values.set("WORKDIR", self.workdir.to_string_lossy());
        self.values.set("HOME", self.home.to_string_lossy());
        self.values
            .set("CALLER_HOME", self.caller.home.to_string_lossy());
        self.values.set("TMPDIR", "/tmp");
        self.values.set("SECRETS", SECRETS_DIR);
        self.values.set("STATE", self.kept(STATE).to_string_lossy());
        self.values.set("CACHE", self.kept(CACHE).to_string_lossy());
        if let Some(dir) = main.source.path.as_deref().and_then(Path::parent) {
            self.values.set("POLICY_DIR", dir.to_string_lossy());
        }
    }

    /// The string with its variables replaced; `None` after a mistake, or where a parameter has
    /// no value in a mere check.
    fn replaced(&mut self, text: &At<String>) -> Option<String> {
        match self.values.replace(&text.value) {
            Ok(value) => Some(value),
            Err(Failure::Unset) => None,
            Err(Failure::Mistake(what)) => {
                self.errors.add(&text.place, &text.key, what);
                None
            }
        }
    }

    /// What every rule has.
    fn info(&mut self, layer: &Layer, at: &At<String>, rule: &RuleText, text: String) -> RuleInfo {
        if let Some(id) = &rule.id {
            let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if id.value.is_empty() || id.value.len() > 63 || !id.value.chars().all(fine) {
                let what = format!(
                    "{} is not an id; write letters, digits, - _ .",
                    quote(&id.value)
                );
                self.errors.add(&id.place, &id.key, what);
            }
        }
        let value = |text: &Option<At<String>>| text.as_ref().map(|text| text.value.clone());
        RuleInfo {
            key: format!("{}{}", layer.source.prefix, at.key),
            id: value(&rule.id),
            text,
            because: value(&rule.because),
            owner: value(&rule.owner),
            quiet: rule.quiet,
            place: at.place.clone(),
        }
    }

    /// The last layer that writes a scalar wins; what it wins over is recorded.
    fn scalar<T: Clone + std::fmt::Debug>(
        &mut self,
        get: impl Fn(&Schema) -> Option<&At<T>>,
    ) -> Option<At<T>> {
        let mut winner: Option<At<T>> = None;
        for layer in self.layers {
            let Some(value) = get(&layer.schema) else {
                continue;
            };
            if let Some(loser) = winner.replace(value.clone()) {
                self.overridden.push(super::model::Overridden {
                    key: value.key.clone(),
                    value: format!("{:?}", value.value),
                    place: value.place.clone(),
                    lost: format!("{:?}", loser.value),
                    lost_place: loser.place,
                });
            }
        }
        winner
    }

    /// Records that a key was not written and what holds instead.
    fn default(&mut self, key: &str, value: impl Into<String>) {
        self.defaults.push((key.to_owned(), value.into()));
    }

    fn check_ids(
        &mut self,
        files: &[super::model::FileRule],
        network: &[super::model::NetworkRule],
        listen: &[super::model::ListenRule],
        unix: &[super::model::UnixRule],
    ) {
        let infos = files.iter().map(|rule| &rule.info);
        let infos = infos.chain(network.iter().map(|rule| &rule.info));
        let infos = infos.chain(listen.iter().map(|rule| &rule.info));
        let infos = infos.chain(unix.iter().map(|rule| &rule.info));
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for info in infos {
            let Some(id) = &info.id else { continue };
            if let Some(earlier) = seen.insert(id, &info.key) {
                let what = format!(
                    "the id {} is {earlier}'s already; choose another",
                    quote(id)
                );
                self.errors.add(&info.place, &info.key, what);
            }
        }
        let rules = files.len() + network.len() + listen.len() + unix.len();
        let most = lp_run_common::counters::MAX_ROWS_PER_RUN as usize;
        if rules > most {
            let what =
                format!("{rules} rules; the kernel maps hold {most} for one run: write fewer");
            self.errors.add_unplaced("", what, REFUSED);
        }
    }
}
