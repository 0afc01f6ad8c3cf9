// SPDX-License-Identifier: MIT OR Apache-2.0
//! A policy with everything it extends: kits and files, each once, what is extended before
//! what extends it.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::{PolicyErrors, quote};
use super::facts::{FactError, Facts, User};
use super::kits;
use super::schema::{self, Schema};
use super::source::{self, Source};
use super::tree::At;

/// Deepest chain of `extends`.
const DEEPEST: usize = 8;
/// Most files and kits of one policy.
const MOST: usize = 64;
/// Kits with which root replaces those inside the program.
const KITS: &str = "/etc/lp-run/kits";

/// One file, read.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The file.
    pub source: Source,
    /// What was typed in it.
    pub schema: Schema,
    /// It is not TOML.
    pub broken: bool,
}

/// Reads `main` and everything under its `extends`. The last layer is `main` itself.
pub fn read(
    main: Source,
    caller: &User,
    facts: &dyn Facts,
    errors: &mut PolicyErrors,
) -> Vec<Layer> {
    let mut stack = Stack {
        facts,
        caller,
        errors,
        layers: Vec::new(),
        chain: Vec::new(),
    };
    stack.add(main);
    stack.layers
}

/// SHA-256 over the names and texts of all layers, in hexadecimal.
pub fn digest(layers: &[Layer]) -> String {
    let mut hash = Sha256::new();
    for layer in layers {
        // The length keeps two texts from being read as one.
        for text in [&layer.source.label, &layer.source.text] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

struct Stack<'a> {
    facts: &'a dyn Facts,
    caller: &'a User,
    errors: &'a mut PolicyErrors,
    layers: Vec<Layer>,
    chain: Vec<String>,
}

impl Stack<'_> {
    fn add(&mut self, source: Source) {
        let (schema, errors, broken) = schema::parse(&source.label, &source.text, source.kit);
        for error in errors.iter() {
            self.errors.push(error.clone());
        }
        self.chain.push(identity(&source));
        for name in &schema.extends {
            self.extend(&source, name);
        }
        self.chain.pop();
        self.layers.push(Layer {
            source,
            schema,
            broken,
        });
    }

    fn extend(&mut self, by: &Source, name: &At<String>) {
        let Some(source) = self.find(by, name) else {
            return;
        };
        let identity = identity(&source);
        if self.chain.contains(&identity) {
            let what = format!(
                "{} extends itself, through {}; remove one",
                quote(&name.value),
                self.chain.join(", ")
            );
            self.errors.add(&name.place, &name.key, what);
        } else if self.chain.len() >= DEEPEST || self.layers.len() >= MOST {
            let what = "extends too much: at most 8 levels and 64 files; join some";
            self.errors.add(&name.place, &name.key, what);
        } else if !self
            .layers
            .iter()
            .any(|layer| self::identity(&layer.source) == identity)
        {
            self.add(source);
        }
    }

    fn find(&mut self, by: &Source, name: &At<String>) -> Option<Source> {
        let text = &name.value;
        if text.starts_with('@') {
            return self.kit(name);
        }
        let Some(base) = by.path.as_deref().and_then(Path::parent) else {
            self.errors.add(
                &name.place,
                &name.key,
                "a kit extends kits only; write \"@name\"",
            );
            return None;
        };
        if text.is_empty() || text.starts_with('~') || text.contains(['\0', '$']) {
            let what = format!(
                "{} is no file; write a path relative to this file, or \"@name\"",
                quote(text)
            );
            self.errors.add(&name.place, &name.key, what);
            return None;
        }
        let path = base.join(text);
        let mut found = PolicyErrors::new();
        // What root's policy names in root's places is root's word; the rest is read as the caller.
        let source = match by.owner == 0 && self.is_roots(&path) {
            true => {
                let owners = [0, self.caller.uid];
                source::read(text, &path, &owners, self.facts, &mut found)
            }
            false => source::read_as(self.caller, text, &path, self.facts, &mut found),
        };
        for error in found.iter() {
            self.errors.add(
                &name.place,
                &name.key,
                format!("{} {}", quote(text), error.what),
            );
        }
        source.map(|source| Source {
            prefix: format!("{text}/"),
            ..source
        })
    }

    /// Whether nobody but root decides what stands at `path`, links on the way included.
    fn is_roots(&self, path: &Path) -> bool {
        let found = self.facts.open(path, &[]);
        found.is_ok_and(|object| object.ancestors.iter().all(|above| above.uid == 0))
    }

    fn kit(&mut self, name: &At<String>) -> Option<Source> {
        let label = name.value.clone();
        let bare = label.trim_start_matches('@');
        if schema::check_name(bare).is_ok() {
            let path = PathBuf::from(KITS).join(format!("{bare}.toml"));
            if !matches!(self.facts.open(&path, &[]), Err(FactError::Missing(_))) {
                let mut found = PolicyErrors::new();
                let source = source::read(&label, &path, &[0], self.facts, &mut found);
                for error in found.iter() {
                    let what = format!("{} {}", quote(&path.to_string_lossy()), error.what);
                    self.errors.add(&name.place, &name.key, what);
                }
                return source.map(|source| Source {
                    prefix: format!("{label}/"),
                    kit: true,
                    ..source
                });
            }
        }
        let Some(kit) = kits::kit(&label) else {
            let names: Vec<_> = kits::KITS.iter().map(|kit| kit.name).collect();
            let what = match super::error::nearest(&label, names.iter().copied()) {
                Some(near) => format!("{} is not a kit; did you mean \"{near}\"?", quote(&label)),
                None => format!(
                    "{} is not a kit; write one of {}",
                    quote(&label),
                    names.join(" ")
                ),
            };
            self.errors.add(&name.place, &name.key, what);
            return None;
        };
        Some(Source {
            prefix: format!("{label}/"),
            label,
            text: kit.text.to_owned(),
            path: None,
            owner: 0,
            kit: true,
        })
    }
}

/// What makes two mentions the same file.
fn identity(source: &Source) -> String {
    match &source.path {
        Some(path) => path.to_string_lossy().into_owned(),
        None => source.label.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::fake::FakeFacts;
    use super::*;

    fn layers(facts: &FakeFacts) -> (Vec<String>, String) {
        let mut errors = PolicyErrors::new();
        let path = Path::new("/etc/lp-run/policies/p.toml");
        let main = source::read("p.toml", path, &[0], facts, &mut errors).unwrap();
        let found = read(main, &facts.caller().unwrap(), facts, &mut errors);
        (
            found
                .iter()
                .map(|layer| layer.source.label.clone())
                .collect(),
            errors.to_string(),
        )
    }

    fn facts(files: &[(&str, &str)]) -> FakeFacts {
        let mut facts = FakeFacts::usual();
        for (name, text) in files {
            facts.file(&format!("/etc/lp-run/policies/{name}"), 0, text);
        }
        facts
    }

    #[test]
    fn what_is_extended_comes_first_and_once() {
        let facts = facts(&[
            ("p.toml", "extends = [\"@git\", \"team.toml\"]"),
            ("team.toml", "extends = [\"@git\", \"@shell\"]"),
        ]);
        assert_eq!(
            layers(&facts),
            (
                vec![
                    "@git".into(),
                    "@shell".into(),
                    "team.toml".into(),
                    "p.toml".into()
                ],
                String::new()
            )
        );
    }

    #[test]
    fn cycles_and_depth_are_errors() {
        let cycle = facts(&[
            ("p.toml", "extends = [\"a.toml\"]"),
            ("a.toml", "extends = [\"p.toml\"]"),
        ]);
        assert!(
            layers(&cycle)
                .1
                .contains("a.toml:1:12: extends[0]: \"p.toml\" extends itself")
        );
        let names: Vec<_> = (0..10)
            .map(|n| {
                (
                    format!("f{n}.toml"),
                    format!("extends = [\"f{}.toml\"]", n + 1),
                )
            })
            .collect();
        let mut deep = facts(&[("p.toml", "extends = [\"f0.toml\"]"), ("f10.toml", "")]);
        for (name, text) in &names {
            deep.file(&format!("/etc/lp-run/policies/{name}"), 0, text);
        }
        assert!(layers(&deep).1.contains("at most 8 levels"));
    }

    #[test]
    fn root_replaces_a_kit_and_nobody_else() {
        let mut facts = facts(&[("p.toml", "extends = [\"@git\"]")]);
        facts.file("/etc/lp-run/kits/git.toml", 0, "nonsense = 1");
        assert!(layers(&facts).1.contains("@git:1:1: nonsense: unknown key"));
        facts.own("/etc/lp-run/kits/git.toml", 1000);
        assert!(layers(&facts).1.contains("belongs to uid 1000"));
    }

    #[test]
    fn unknown_kits_and_files_are_errors_with_their_place() {
        let facts = facts(&[("p.toml", "extends = [\"@gitt\", \"none.toml\", \"~/x\"]")]);
        let found = layers(&facts).1;
        assert!(
            found.contains("extends[0]: \"@gitt\" is not a kit; did you mean \"@git\"?"),
            "{found}"
        );
        assert!(
            found.contains("extends[1]: \"none.toml\" does not exist"),
            "{found}"
        );
        assert!(found.contains("extends[2]: \"~/x\" is no file"), "{found}");
    }
}
