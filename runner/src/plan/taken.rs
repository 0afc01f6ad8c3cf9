// SPDX-License-Identifier: MIT OR Apache-2.0
//! What LSM programs take away inside what is granted.

use std::path::{Path, PathBuf};

use super::{Anchor, Row};
use crate::policy::facts::Object;
use crate::policy::pattern::Pattern;

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
    /// A pattern of all that is granted.
    Pattern(String),
    /// A pattern of a directory, in one granted root.
    Inside {
        /// The root.
        root: Object,
        /// From the root on; the directory is there.
        directory: PathBuf,
        /// As the policy has it.
        pattern: String,
    },
}

impl Taken {
    /// Whether the rule is about `path`, which has no link in it; `anchors` are the plan's.
    pub fn covers(&self, path: &Path, anchors: &[Anchor]) -> bool {
        match &self.target {
            TakenTarget::Below { root, path: below } => path.starts_with(root.path.join(below)),
            TakenTarget::Pattern(pattern) => anchors
                .iter()
                .filter(|anchor| anchor.object.is_some() && path.starts_with(&anchor.path))
                .min_by_key(|anchor| anchor.path.components().count())
                .is_some_and(|top| Pattern::new(pattern).covers(&top.path, path)),
            TakenTarget::Inside { root, pattern, .. } => {
                Pattern::new(pattern).covers(&root.path, path)
            }
        }
    }
}
