// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text of a policy file: found, checked for who could have changed it, read once through
//! one descriptor.

use std::path::{Path, PathBuf};

use super::error::{PolicyErrors, quote};
use super::facts::{FactError, Facts, Kind, Object, User};
use super::model::Place;
use super::schema::check_name;

/// Largest policy file, bytes.
const LARGEST: usize = 1 << 20;
/// Policies that root installed.
const INSTALLED: &str = "/etc/lp-run/policies";
/// What is below belongs to root.
const ETC: &str = "/etc/lp-run";
/// Policies of a user, below the home directory.
const OWN: &str = ".config/lp-run/policies";

/// A policy file or kit.
#[derive(Clone, Debug)]
pub struct Source {
    /// How it was named; `@git` for a kit.
    pub label: String,
    /// Prefix of its rules' keys: empty for the policy itself, else `label` and a slash.
    pub prefix: String,
    /// Its content.
    pub text: String,
    /// Where it is; `None` for a kit inside the program.
    pub path: Option<PathBuf>,
    /// Its owner; root for a kit.
    pub owner: u32,
    /// A kit.
    pub kit: bool,
}

impl Source {
    /// The first character of the file.
    pub fn place(&self) -> Place {
        Place {
            file: self.label.clone(),
            line: 1,
            column: 1,
        }
    }
}

/// Finds the policy that `-p` named: a path, or a name in `~/.config/lp-run/policies` (the
/// caller's own runs) and `/etc/lp-run/policies`.
pub fn locate(
    named: &str,
    directory: &Path,
    caller: &User,
    facts: &dyn Facts,
    errors: &mut PolicyErrors,
) -> Option<Source> {
    let owners = [0, caller.uid];
    if check_name(named).is_err() {
        let path = directory.join(named);
        return match is_installed(&path) {
            true => read(named, &path, &owners, facts, errors),
            false => read_as(caller, named, &path, facts, errors),
        };
    }
    let own = caller.home.join(OWN).join(format!("{named}.toml"));
    let mut there = false;
    let look = &mut || there = !matches!(facts.open(&own, &owners), Err(FactError::Missing(_)));
    if let Err(error) = facts.with_rights_of(caller, look) {
        errors.add_unplaced(
            &format!("--policy {named}"),
            reason(&error),
            super::error::REFUSED,
        );
        return None;
    }
    if there {
        return read_as(caller, &own.to_string_lossy(), &own, facts, errors);
    }
    let installed = Path::new(INSTALLED).join(format!("{named}.toml"));
    if !matches!(facts.open(&installed, &[0]), Err(FactError::Missing(_))) {
        return read(
            &installed.to_string_lossy(),
            &installed,
            &[0],
            facts,
            errors,
        );
    }
    let what = format!(
        "no policy of this name in ~/{OWN} or {INSTALLED}; for a file write its path: \"./{named}\""
    );
    errors.add_unplaced(&format!("--policy {named}"), what, super::error::REFUSED);
    None
}

/// Whether a path is written as one of root's installed policies, which every caller may run.
/// Other files below `/etc/lp-run`, secrets among them, are no policies.
fn is_installed(path: &Path) -> bool {
    let climbs = path.components().any(|part| part.as_os_str() == "..");
    path.starts_with(ETC) && !climbs && path.extension().is_some_and(|end| end == "toml")
}

/// The same as [`read`] for what the caller names: with his own rights, so that no message tells
/// him what is in a file that he may not read, or whether it exists.
pub fn read_as(
    caller: &User,
    label: &str,
    path: &Path,
    facts: &dyn Facts,
    errors: &mut PolicyErrors,
) -> Option<Source> {
    let owners = [0, caller.uid];
    let mut found = None;
    let act = &mut || found = read(label, path, &owners, facts, errors);
    if let Err(error) = facts.with_rights_of(caller, act) {
        errors.add_unplaced(label, reason(&error), super::error::REFUSED);
    }
    found
}

/// Whose policy a file is. An agent can leave files of root's behind, in a tree that it was lent:
/// for a caller who is not root, only what was installed is root's word; everything else is held
/// to the caller's own rights.
fn owner_in_effect(object: &Object, owners: &[u32]) -> u32 {
    let installed = object.path.starts_with(ETC);
    let caller = owners.iter().copied().find(|uid| *uid != 0);
    match caller {
        Some(caller) if object.uid == 0 && !installed => caller,
        _ => object.uid,
    }
}

/// Reads the file at `path`, which nobody but `owners` may have been able to change.
pub fn read(
    label: &str,
    path: &Path,
    owners: &[u32],
    facts: &dyn Facts,
    errors: &mut PolicyErrors,
) -> Option<Source> {
    let place = Place {
        file: label.to_owned(),
        line: 0,
        column: 0,
    };
    let object = match facts.open(path, owners) {
        Ok(object) => object,
        Err(error) => {
            errors.add(&place, "", reason(&error));
            return None;
        }
    };
    if object.kind != Kind::File {
        errors.add(&place, "", "is not a regular file; name a policy file");
        return None;
    }
    if let Err(what) = unchanged_by_others(&object, owners) {
        errors.add(&place, "", what);
        return None;
    }
    let bytes = match facts.read_object(&object, LARGEST + 1) {
        Ok(bytes) if bytes.len() <= LARGEST => bytes,
        Ok(_) => {
            errors.add(&place, "", "is larger than 1 MiB; write a shorter policy");
            return None;
        }
        Err(error) => {
            errors.add(&place, "", reason(&error));
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(Source {
            label: label.to_owned(),
            prefix: String::new(),
            text,
            path: Some(object.path.clone()),
            owner: owner_in_effect(&object, owners),
            kit: false,
        }),
        Err(_) => {
            errors.add(&place, "", "is not UTF-8; save it as UTF-8");
            None
        }
    }
}

/// A failed look at a path, in one line.
pub fn reason(error: &FactError) -> String {
    match error {
        FactError::Missing(_) => "does not exist; fix the path".to_owned(),
        FactError::UntrustedLink { link, uid } => format!(
            "{} is a symbolic link that uid {uid} could have placed; write the path it leads to",
            quote(&link.to_string_lossy())
        ),
        FactError::Caller(what) => what.clone(),
        FactError::Call { path, source } => {
            format!(
                "cannot be opened ({}: {source})",
                quote(&path.to_string_lossy())
            )
        }
    }
}

/// Whether nobody but root and `owners` can change the file or a directory above it.
fn unchanged_by_others(object: &Object, owners: &[u32]) -> Result<(), String> {
    let known = |uid: u32| uid == 0 || owners.contains(&uid);
    if !known(object.uid) {
        return Err(format!(
            "belongs to uid {}; it must be root's or the caller's",
            object.uid
        ));
    }
    if object.mode & 0o022 != 0 {
        return Err("group or others may write it; chmod go-w it".to_owned());
    }
    for above in &object.ancestors {
        let directory = quote(&above.path.to_string_lossy());
        if !known(above.uid) {
            let what = "move the policy below a directory of root or the caller";
            return Err(format!(
                "its directory {directory} belongs to uid {}; {what}",
                above.uid
            ));
        }
        let sticky = above.uid == 0 && above.mode & 0o1000 != 0;
        if above.mode & 0o022 != 0 && !sticky {
            let what = "chmod go-w it, or move the policy";
            return Err(format!(
                "group or others may write its directory {directory}; {what}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::facts::fake::FakeFacts;
    use super::*;

    fn refusal(facts: &FakeFacts, path: &str) -> String {
        let mut errors = PolicyErrors::new();
        let caller = facts.caller().unwrap();
        let found = locate(
            path,
            Path::new("/home/anna/work"),
            &caller,
            facts,
            &mut errors,
        );
        assert_eq!(found.is_none(), !errors.is_empty());
        errors.to_string()
    }

    #[test]
    fn a_file_that_others_could_have_changed_is_refused() {
        let mut facts = FakeFacts::usual();
        facts
            .called_by(1000)
            .file("/home/anna/work/p.toml", 1000, "version = 1");
        assert_eq!(refusal(&facts, "p.toml"), "");
        facts.mode("/home/anna/work/p.toml", 0o664);
        assert!(refusal(&facts, "p.toml").contains("group or others may write it"));
        facts
            .mode("/home/anna/work/p.toml", 0o644)
            .own("/home/anna/work/p.toml", 900);
        assert!(refusal(&facts, "p.toml").contains("belongs to uid 900"));
        facts
            .own("/home/anna/work/p.toml", 0)
            .mode("/home/anna/work", 0o775);
        assert!(refusal(&facts, "p.toml").contains("may write its directory"));
    }

    #[test]
    fn a_sticky_directory_of_root_is_fine() {
        let mut facts = FakeFacts::usual();
        facts
            .called_by(1000)
            .file("/tmp/p.toml", 1000, "version = 1");
        assert_eq!(refusal(&facts, "/tmp/p.toml"), "");
        facts.mode("/tmp", 0o777);
        assert!(refusal(&facts, "/tmp/p.toml").contains("may write its directory"));
    }

    #[test]
    fn a_name_is_looked_up_at_home_and_then_in_etc() {
        let mut facts = FakeFacts::usual();
        facts.called_by(1000);
        assert!(refusal(&facts, "sync").contains("no policy of this name"));
        facts.file("/etc/lp-run/policies/sync.toml", 0, "version = 1");
        assert_eq!(refusal(&facts, "sync"), "");
        facts.own("/etc/lp-run/policies/sync.toml", 1000);
        assert!(refusal(&facts, "sync").contains("belongs to uid 1000"));
    }

    #[test]
    fn what_is_no_text_file_is_refused() {
        let mut facts = FakeFacts::usual();
        facts.put("/etc/fifo", Kind::Other, 0, 0o600, b"");
        assert!(refusal(&facts, "/etc/fifo").contains("not a regular file"));
        facts.put("/etc/bin", Kind::File, 0, 0o600, b"\xff\xfe");
        assert!(refusal(&facts, "/etc/bin").contains("not UTF-8"));
        facts.put("/etc/big", Kind::File, 0, 0o600, &vec![b' '; LARGEST + 1]);
        assert!(refusal(&facts, "/etc/big").contains("larger than 1 MiB"));
    }
}
