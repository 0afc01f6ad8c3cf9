// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a rule takes away: an object, or the place where its name would appear.

use std::path::{Path, PathBuf};

use super::super::error::quote;
use super::super::facts::{FactError, Facts};
use super::super::model::Target;
use super::super::source::reason;
use super::{Resolver, paths};

impl Resolver<'_> {
    pub(super) fn taken_away(&mut self, held: bool, path: &Path) -> Result<Target, String> {
        match self.open(held, path, &self.trusted()) {
            Ok(object) => Ok(Target::Object(object)),
            Err(FactError::Missing(_)) => self.later_name(held, path).map(Target::Missing),
            // Whether it exists is not for him to know.
            Err(error) if held && error.is_permission() => Ok(Target::Missing(path.to_owned())),
            Err(error) => Err(unusable(path, &error)),
        }
    }

    /// A pattern of a directory: of where that leads, or a grant of the place would not be seen to
    /// lie in it.
    pub(super) fn pattern_in(
        &mut self,
        held: bool,
        directory: &Path,
        text: &str,
    ) -> Result<String, String> {
        Ok(match self.taken_away(held, directory)? {
            Target::Object(object) => paths::pattern_in(&object.path, text),
            Target::Missing(path) => paths::pattern_in(&path, text),
            _ => text.to_owned(),
        })
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
            // A link that is there and cannot be opened leads nowhere yet.
            let link =
                |facts: &dyn Facts| Ok(first.is_some_and(|name| facts.is_link(&parent, name)));
            let dangling = self.look(held, link);
            if dangling.map_err(|error| unusable(path, &error))? {
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
}

fn unusable(path: &Path, error: &FactError) -> String {
    format!("{} {}", quote(&path.to_string_lossy()), reason(error))
}
