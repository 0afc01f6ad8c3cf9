// SPDX-License-Identifier: MIT OR Apache-2.0
//! The corpus of good and bad policies in `tests/policy/corpus`: every good one loads, every
//! bad one says exactly what stands beside it. `UPDATE_EXPECT=1` rewrites the messages.

use std::path::{Path, PathBuf};

use super::facts::fake::FakeFacts;
use super::*;

fn corpus(kind: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/policy/corpus")
        .join(kind);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the corpus is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .map(|path| {
            (
                path.clone(),
                std::fs::read_to_string(&path).expect("a text"),
            )
        })
        .collect();
    files.sort();
    files
}

/// Loads a text as the policy of root that anna starts in her work directory.
fn load_text(name: &str, text: &str) -> Result<Policy, PolicyErrors> {
    let mut facts = FakeFacts::usual();
    let file = format!("/etc/lp-run/policies/{name}");
    facts.called_by(1000).file(&file, 0, text);
    let request = LoadRequest {
        policy: format!("./{name}"),
        directory: PathBuf::from("/etc/lp-run/policies"),
        workdir: Some(PathBuf::from("/home/anna/work")),
        ..LoadRequest::default()
    };
    load(&request, &facts)
}

fn name(path: &Path) -> String {
    path.file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned()
}

#[test]
fn every_good_policy_loads() {
    for (path, text) in corpus("ok") {
        if let Err(errors) = load_text(&name(&path), &text) {
            panic!("{}: {errors}", path.display());
        }
    }
}

#[test]
fn every_bad_policy_is_refused_in_the_words_beside_it() {
    let files = corpus("bad");
    assert!(files.len() >= 60, "{} files", files.len());
    for (path, text) in files {
        let errors = match load_text(&name(&path), &text) {
            Ok(_) => panic!("{} loads", path.display()),
            Err(errors) => errors,
        };
        assert_eq!(errors.exit_code(), 122, "{}", path.display());
        expect_test::expect_file![path.with_extension("error")].assert_eq(&format!("{errors}\n"));
    }
}

/// The ready policies of the repository, on the machine that is a table.
#[test]
fn every_shipped_policy_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("the policies are there") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        seen += 1;
        let text = std::fs::read_to_string(&path).expect("a text");
        if let Err(errors) = load_text(&name(&path), &text) {
            panic!("{}: {errors}", path.display());
        }
    }
    assert!(seen > 0);
}

/// The kits on the machine that runs the test: whatever it has installed, they load.
#[test]
fn the_kits_load_on_the_real_machine() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("p.toml");
    let text = "version = 1\nname = \"p\"\nextends = [\"@shell\", \"@git\", \"@python\", \"@node\", \"@rust\"]\n\
                [files]\nexec = [\"${COMMAND}\"]\nwrite = [\"${WORKDIR}\"]\n";
    std::fs::write(&file, text).expect("written");
    let work = tempfile::tempdir().expect("a directory");
    let request = LoadRequest {
        policy: file.to_string_lossy().into_owned(),
        directory: work.path().to_owned(),
        command: vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()],
        needs_command: true,
        ..LoadRequest::default()
    };
    let policy =
        load(&request, &facts::SystemFacts::default()).unwrap_or_else(|errors| panic!("{errors}"));
    let loader = policy
        .files
        .iter()
        .find(|rule| rule.info.key == "@shell/files.read[0].loader");
    assert!(!loader.expect("a loader").targets.is_empty());
    assert!(policy.command.expect("a command").program.is_some());
}
