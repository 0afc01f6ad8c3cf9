// SPDX-License-Identifier: MIT OR Apache-2.0
//! Symbolic links that led to a grant: which are followed, and which an agent could have placed.

use std::path::Path;

use super::super::error::quote;
use super::super::model::{FileRule, Place, Target, Verb};
use super::{Resolver, settings};

impl Resolver<'_> {
    /// Uids whose symbolic links a rule follows, besides root's.
    pub(super) fn trusted(&self) -> Vec<u32> {
        if self.owner == 0 {
            Vec::new()
        } else {
            vec![self.owner]
        }
    }

    /// Libraries of a python that were reached through a link in a tree that this policy lets be
    /// written, and that lead out of it, are not granted: the agent of an earlier run could have
    /// placed the link, to read in this run what it likes.
    pub(super) fn drop_planted_libraries(&self, rules: &mut [FileRule]) {
        let written: Vec<FileRule> = rules
            .iter()
            .filter(|rule| rule.verb == Verb::Write)
            .cloned()
            .collect();
        let planted = |target: &Target| {
            let Target::Object(object) = target else {
                return false;
            };
            written.iter().any(|writer| {
                let within = |path: &Path| settings::covers(writer, path);
                object.links.iter().any(|(link, _)| within(link)) && !within(&object.path)
            })
        };
        for rule in rules {
            if rule.info.text == "${PYTHON_LIB}" {
                rule.targets.retain(|target| !planted(target));
            }
        }
    }

    /// Refuses a grant that was reached through a link inside the work directory, or inside a
    /// tree that this policy lets be written: the agent of an earlier run, under this policy or
    /// another, could have placed the link. A program is exempt: the caller typed its name, and
    /// it is executable or refused.
    pub(super) fn check_links(&mut self, rules: &[FileRule]) {
        let mut mistakes: Vec<(Place, String, String)> = Vec::new();
        let written: Vec<&FileRule> = rules
            .iter()
            .filter(|rule| rule.verb == Verb::Write)
            .collect();
        for rule in rules {
            let program =
                ["${COMMAND}", "${PYTHON}", "${PYTHON_LIB}"].contains(&rule.info.text.as_str());
            if program || matches!(rule.verb, Verb::Protect | Verb::Deny) {
                continue;
            }
            let objects = rule.targets.iter().filter_map(|target| match target {
                Target::Object(object) => Some(object),
                _ => None,
            });
            for (link, _) in objects.flat_map(|object| &object.links) {
                let writer = written.iter().find(|writer| settings::covers(writer, link));
                let link_text = quote(&link.to_string_lossy());
                let what = match writer {
                    Some(writer) => format!(
                        "{link_text} is a symbolic link where {} writes; write the path it leads to",
                        writer.info.key
                    ),
                    // Nobody was ever lent `/` as a whole.
                    None if link.starts_with(&self.workdir) && self.workdir != Path::new("/") => {
                        format!(
                            "{link_text} is a symbolic link in the work directory; write the path it \
                         leads to"
                        )
                    }
                    None => continue,
                };
                mistakes.push((rule.info.place.clone(), rule.info.key.clone(), what));
            }
        }
        for (place, key, what) in mistakes {
            self.errors.add(&place, &key, what);
        }
    }
}
