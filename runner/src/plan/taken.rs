// SPDX-License-Identifier: MIT OR Apache-2.0
//! What LSM programs take away inside what is granted.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{Anchor, Row};
use crate::policy::facts::Object;

/// Something that LSM programs take away.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The rule.
    pub row: Row,
    /// Whether reading is taken away as well (`deny`), or changing alone (`protect`).
    pub read: bool,
    /// What.
    pub target: TakenTarget,
}

/// What is taken away.
#[derive(Clone, Debug)]
pub enum TakenTarget {
    /// Something below a granted root, there or not; the directory that holds it is there.
    Below {
        /// The root.
        root: Object,
        /// From the root on.
        path: PathBuf,
    },
    /// A name at any depth of what is granted, or a name in a directory of a name.
    Pattern(Vec<String>),
}

impl Taken {
    /// Whether the rule is about `path`, which has no link in it; `anchors` are the plan's.
    pub fn covers(&self, path: &Path, anchors: &[Anchor]) -> bool {
        match &self.target {
            TakenTarget::Below { root, path: below } => path.starts_with(root.path.join(below)),
            TakenTarget::Pattern(parts) => anchors
                .iter()
                .filter(|anchor| anchor.object.is_some() && path.starts_with(&anchor.path))
                .min_by_key(|anchor| anchor.path.components().count())
                .and_then(|top| path.strip_prefix(top.path.parent()?).ok())
                .is_some_and(|names| {
                    let names: Vec<&OsStr> = names.iter().collect();
                    let parts: Vec<&OsStr> = parts.iter().map(OsStr::new).collect();
                    names.windows(parts.len()).any(|some| some == parts)
                }),
        }
    }
}
