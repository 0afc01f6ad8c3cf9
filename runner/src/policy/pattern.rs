// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a pattern of a rule that takes away matches, by names alone.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A pattern that [`super::resolve`] has let through.
#[derive(Clone, Copy, Debug)]
pub struct Pattern<'a> {
    /// Directory of the name; with `anywhere` one name, at any depth, or none.
    above: &'a str,
    /// The name, with at most one `*`.
    name: &'a str,
    anywhere: bool,
}

impl<'a> Pattern<'a> {
    /// `**/NAME`, `**/NAME/SUB`, or an absolute path; each with at most one `*` at its end.
    pub fn new(text: &'a str) -> Self {
        let anywhere = text.strip_prefix("**/");
        let (above, name) = match anywhere.unwrap_or(text).rsplit_once('/') {
            Some(parts) => parts,
            None => ("", anywhere.unwrap_or(text)),
        };
        Self {
            above,
            name,
            anywhere: anywhere.is_some(),
        }
    }

    /// Whether `path`, which is `root` or lies below it, is one of the names itself. The name of
    /// the root counts, those above it do not.
    pub fn matches(&self, root: &Path, path: &Path) -> bool {
        let Some(name) = path.file_name() else {
            return false;
        };
        if !self.fits(name) || !path.starts_with(root) {
            return false;
        }
        let above = path.parent();
        match (self.anywhere, self.above) {
            (false, directory) => above == Some(Path::new(directory)),
            (true, "") => true,
            (true, first) => above.is_some_and(|above| {
                above.starts_with(root) && above.file_name() == Some(OsStr::new(first))
            }),
        }
    }

    /// Whether `path` or something above it, from `root` on, is one of the names.
    pub fn covers(&self, root: &Path, path: &Path) -> bool {
        let mut above = path.ancestors().take_while(|at| at.starts_with(root));
        above.any(|at| self.matches(root, at))
    }

    fn fits(&self, name: &OsStr) -> bool {
        let name = name.as_bytes();
        match self.name.split_once('*') {
            None => name == self.name.as_bytes(),
            Some((first, last)) => {
                name.len() >= first.len() + last.len()
                    && name.starts_with(first.as_bytes())
                    && name.ends_with(last.as_bytes())
            }
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
    fn two_names_match_together_from_the_root_on() {
        assert!(matches("**/.git/hooks", "/w/a/.git/hooks"));
        assert!(matches("**/w/hooks", "/w/hooks"));
        for path in ["/w/hooks", "/w/.git/a/hooks", "/w/x.git/hooks"] {
            assert!(!matches("**/.git/hooks", path), "{path}");
        }
        let above = Pattern::new("**/.git/hooks");
        let hooks = Path::new("/v/.git/hooks");
        assert!(!above.matches(hooks, hooks), "names above do not count");
    }

    #[test]
    fn one_star_stands_for_any_part_of_the_last_name() {
        assert!(matches("**/*.pem", "/w/a/key.pem"));
        assert!(matches("**/.env.*", "/w/.env.local"));
        assert!(!matches("**/.env.*", "/w/.env"));
        assert!(!matches("**/a*a", "/w/a"), "the parts do not overlap");
        assert!(matches("/w/keys/*.key", "/w/keys/a.key"));
        assert!(!matches("/w/keys/*.key", "/w/keys/b/a.key"));
    }

    #[test]
    fn what_lies_below_a_match_is_covered() {
        let pattern = Pattern::new("**/.git/hooks");
        let covers = |path: &str| pattern.covers(Path::new("/w"), Path::new(path));
        assert!(covers("/w/.git/hooks") && covers("/w/.git/hooks/pre-commit"));
        assert!(!covers("/w/.git/config") && !covers("/v/.git/hooks"));
    }
}
