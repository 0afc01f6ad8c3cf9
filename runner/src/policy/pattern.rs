// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a pattern of a rule that takes away matches, by names alone.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A pattern that [`super::resolve`] has let through.
#[derive(Clone, Debug)]
pub struct Pattern<'a> {
    /// What it is told of a directory, or of all that is granted.
    directory: Option<&'a Path>,
    /// Only of what stands in the directory itself.
    direct: bool,
    /// Names, one in the other, each with at most one `*`.
    parts: Vec<&'a str>,
}

impl<'a> Pattern<'a> {
    /// `**/NAME/…`, `/DIRECTORY/**/NAME/…` or `/DIRECTORY/NAME`.
    pub fn new(text: &'a str) -> Self {
        let (directory, names, direct) = match (text.strip_prefix("**/"), text.split_once("/**/")) {
            (Some(names), _) => (None, names, false),
            (None, Some((directory, names))) => (Some(directory), names, false),
            (None, None) => {
                let (directory, name) = text.rsplit_once('/').unwrap_or(("", text));
                (Some(directory), name, true)
            }
        };
        let rooted = |directory: &'a str| match directory {
            "" => Path::new("/"),
            directory => Path::new(directory),
        };
        Self {
            directory: directory.map(rooted),
            direct,
            parts: names.split('/').collect(),
        }
    }

    /// The directory that it is told of; `None`: all that is granted.
    pub fn directory(&self) -> Option<&'a Path> {
        self.directory
    }

    /// Whether it is told of what stands in the directory itself alone.
    pub fn direct(&self) -> bool {
        self.direct
    }

    /// Its names, the outermost first.
    pub fn parts(&self) -> &[&'a str] {
        &self.parts
    }

    /// Whether `path`, which is `root` or lies below it, is one of the names itself. The name of
    /// the root counts, those above it do not.
    pub fn matches(&self, root: &Path, path: &Path) -> bool {
        if !path.starts_with(root) {
            return false;
        }
        let above = root.parent().unwrap_or(root);
        let from = match self.directory {
            Some(directory) if directory.starts_with(root) => directory,
            Some(directory) if !root.starts_with(directory) => return false,
            _ => above,
        };
        if self.direct && path.parent() != self.directory {
            return false;
        }
        let Ok(names) = path.strip_prefix(from) else {
            return false;
        };
        let mut names = names.iter().rev();
        let mut parts = self.parts.iter().rev();
        parts.all(|part| names.next().is_some_and(|name| fits(part, name)))
    }

    /// Whether the last names of `above` are the first of its names, so that what is below may be the
    /// rest: at most `most` names of it.
    pub fn begins_with(&self, above: &Path, most: usize) -> bool {
        let names: Vec<&OsStr> = above.iter().collect();
        (1..=most.min(names.len()).min(self.parts.len())).any(|count| {
            let last = &names[names.len() - count..];
            let mut pairs = self.parts.iter().zip(last);
            pairs.all(|(part, name)| fits(part, name))
        })
    }

    /// Whether `path` or something above it, from `root` on, is one of the names.
    pub fn covers(&self, root: &Path, path: &Path) -> bool {
        let mut above = path.ancestors().take_while(|at| at.starts_with(root));
        above.any(|at| self.matches(root, at))
    }
}

/// Whether a name is what a part with at most one `*` says.
fn fits(part: &str, name: &OsStr) -> bool {
    let name = name.as_bytes();
    match part.split_once('*') {
        None => name == part.as_bytes(),
        Some((first, last)) => {
            name.len() >= first.len() + last.len()
                && name.starts_with(first.as_bytes())
                && name.ends_with(last.as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern).matches(Path::new("/w"), Path::new(path))
    }

    #[test]
    fn a_name_matches_at_any_depth_and_nothing_like_it() {
        for path in ["/w/.env", "/w/a/b/.env"] {
            assert!(matches("**/.env", path), "{path}");
        }
        for path in ["/w/.envrc", "/w/.env/x", "/v/.env", "/w/a.env"] {
            assert!(!matches("**/.env", path), "{path}");
        }
        assert!(matches("**/w", "/w"), "the root's own name");
    }

    #[test]
    fn the_first_names_may_stand_above() {
        let begins =
            |above: &str, most| Pattern::new("**/a/b*/c").begins_with(above.as_ref(), most);
        assert!(begins("x/a", 2) && begins("x/a/b1", 2) && begins("a", 1));
        assert!(!begins("x/a/b1", 1) && !begins("a/b1/c", 2) && !begins("x", 2));
        assert!(!begins("", 2) && !begins("b1", 2));
    }

    #[test]
    fn names_match_together_from_the_root_on() {
        assert!(matches("**/.git/hooks", "/w/a/.git/hooks"));
        assert!(matches("**/a/b/c", "/w/a/b/c") && matches("**/a/b*/c", "/w/x/a/bb/c"));
        assert!(matches("**/w/hooks", "/w/hooks"));
        for path in ["/w/hooks", "/w/.git/a/hooks", "/w/x.git/hooks"] {
            assert!(!matches("**/.git/hooks", path), "{path}");
        }
        assert!(!matches("**/a/b/c", "/w/a/x/c") && !matches("**/a/b/c", "/w/b/c"));
        let above = Pattern::new("**/.git/hooks");
        let hooks = Path::new("/v/.git/hooks");
        assert!(!above.matches(hooks, hooks), "names above do not count");
    }

    #[test]
    fn one_star_stands_for_any_part_of_a_name() {
        assert!(matches("**/*.pem", "/w/a/key.pem"));
        assert!(matches("**/secrets-*", "/w/secrets-1"));
        assert!(matches("**/.env.*", "/w/.env.local"));
        assert!(!matches("**/.env.*", "/w/.env"));
        assert!(!matches("**/a*a", "/w/a"), "the parts do not overlap");
        assert!(matches("/w/keys/*.key", "/w/keys/a.key"));
        assert!(!matches("/w/keys/*.key", "/w/keys/b/a.key"));
    }

    #[test]
    fn below_a_directory_only_what_lies_below_it_matches() {
        assert!(matches("/w/a/**/x", "/w/a/x") && matches("/w/a/**/x", "/w/a/b/x"));
        assert!(!matches("/w/a/**/x", "/w/x") && !matches("/w/a/**/x/y", "/w/x/a/y"));
        assert!(!matches("/w/a/**/a", "/w/a"), "its own name does not count");
        let above = Pattern::new("/v/**/x");
        let covers = |path: &str| above.covers(Path::new("/v/u/w"), Path::new(path));
        assert!(covers("/v/u/w/x") && covers("/v/u/w/a/x/y") && !covers("/v/u/w/a"));
    }

    #[test]
    fn what_lies_below_a_match_is_covered() {
        let pattern = Pattern::new("**/.git/hooks");
        let covers = |path: &str| pattern.covers(Path::new("/w"), Path::new(path));
        assert!(covers("/w/.git/hooks") && covers("/w/.git/hooks/pre-commit"));
        assert!(!covers("/w/.git/config") && !covers("/v/.git/hooks"));
    }
}
