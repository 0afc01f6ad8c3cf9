// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a verb reads: files that were typed. They are opened with the rights of who called:
//! `sudo lp-run` gives a user no file of root's to read.

use std::fs::File;
use std::path::Path;

use anyhow::Context;

use crate::policy::facts::{Facts, SystemFacts, User};

/// Who called.
pub fn caller() -> anyhow::Result<User> {
    Ok(SystemFacts::default().caller()?)
}

/// Opens the file `path`; `what` it is stands in the error.
pub fn open(what: &str, path: &Path) -> anyhow::Result<File> {
    let caller = caller()?;
    let mut opened = None;
    let act = &mut || opened = Some(File::open(path));
    SystemFacts::default().with_rights_of(&caller, act)?;
    let opened = opened.context("nothing was opened")?;
    opened.with_context(|| {
        let path = path.display();
        match caller.uid {
            0 => format!("open {what} `{path}`"),
            _ => format!("open {what} `{path}` with the rights of {}", caller.name),
        }
    })
}
