// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text of a path: what is refused, with its replacement, and what a pattern may look like.

use std::path::{Path, PathBuf};

use super::super::error::quote;

/// Longest path, bytes (`PATH_MAX` with its NUL).
const LONGEST: usize = 4095;
/// Longest component (`NAME_MAX`).
const LONGEST_NAME: usize = 255;

/// An absolute path without `.`, `..` and double slashes.
pub fn absolute(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("is empty; write an absolute path".to_owned());
    }
    if text.contains('\0') {
        return Err("has a NUL byte; remove it".to_owned());
    }
    if text == "~" || text.starts_with("~/") {
        let replacement = format!("${{CALLER_HOME}}{}", &text[1..]);
        return Err(format!(
            "{}: ~ is not replaced; write {}",
            quote(text),
            quote(&replacement)
        ));
    }
    if text.starts_with('~') {
        return Err(format!(
            "{}: ~ is not replaced; write the home directory itself",
            quote(text)
        ));
    }
    if !text.starts_with('/') {
        let bare = text.strip_prefix("./").unwrap_or(text);
        let (here, there) = (
            format!("${{WORKDIR}}/{bare}"),
            format!("${{POLICY_DIR}}/{bare}"),
        );
        return Err(format!(
            "{} is relative; write {} or {}",
            quote(text),
            quote(&here),
            quote(&there)
        ));
    }
    let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
    if names.iter().any(|name| *name == ".." || *name == ".") {
        return Err(format!(
            "{} has . or .. in it; write the path it means",
            quote(text)
        ));
    }
    if text.len() > LONGEST || names.iter().any(|name| name.len() > LONGEST_NAME) {
        return Err(format!(
            "{} is longer than a path can be; shorten it",
            quote(text)
        ));
    }
    Ok(Path::new("/").join(names.join("/")))
}

/// Whether the text is a pattern of a rule that takes away.
pub fn is_pattern(text: &str) -> bool {
    text.contains('*')
}

/// Most names of a pattern, one in the other.
const MOST_NAMES: usize = 8;

/// `**/NAME` or `/DIRECTORY/**/NAME`, of up to eight names with at most one `*` each, or an
/// absolute path with one `*` in its last name.
pub fn pattern(text: &str) -> Result<String, String> {
    const SHAPE: &str = "write \"**/NAME\", \"**/NAME/SUB\" or \"/DIRECTORY/**/NAME\", with at \
                         most one * in a name, or an absolute path with one * in its last name";
    let wrong = || Err(format!("{} is not a pattern; {SHAPE}", quote(text)));
    if text.contains('\0') || text.len() > LONGEST {
        return wrong();
    }
    let fine = |name: &&str| {
        let stars = name.matches('*').count();
        !["", ".", "..", "*"].contains(name) && name.len() <= LONGEST_NAME && stars <= 1
    };
    let (directory, names) = match (text.strip_prefix("**/"), text.split_once("/**/")) {
        (Some(names), _) => ("", names),
        (None, Some(parts)) => parts,
        (None, None) => match text.rsplit_once('/') {
            Some((directory, name)) if name.contains('*') => (directory, name),
            _ => return wrong(),
        },
    };
    let above = match directory.split_at_checked(1) {
        None => Vec::new(),
        Some(("/", directory)) => directory.split('/').collect(),
        Some(_) => return wrong(),
    };
    let names: Vec<&str> = names.split('/').collect();
    let plain = above.iter().all(|name| fine(name) && !name.contains('*'));
    let rooted = !directory.is_empty() || text.starts_with(['*', '/']);
    if !plain || !rooted || names.len() > MOST_NAMES || !names.iter().all(fine) {
        return wrong();
    }
    Ok(text.to_owned())
}

/// The same pattern of another directory.
pub fn pattern_in(directory: &Path, text: &str) -> String {
    let (above, names) = match text.split_once("/**/") {
        Some((_, names)) => ("/**/", names),
        None => ("/", text.rsplit_once('/').map_or(text, |parts| parts.1)),
    };
    let directory = directory.to_string_lossy();
    format!("{}{above}{names}", directory.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_plain() {
        assert_eq!(absolute("/srv//kb/").unwrap(), Path::new("/srv/kb"));
        for (text, expected) in [
            ("", "empty"),
            ("~/kb", "write \"${CALLER_HOME}/kb\""),
            ("~bob/kb", "home directory itself"),
            ("kb", "write \"${WORKDIR}/kb\""),
            ("./kb", "write \"${WORKDIR}/kb\""),
            ("/srv/../etc", ". or .."),
            ("/srv/./kb", ". or .."),
            ("/a\0b", "NUL"),
        ] {
            let what = absolute(text).unwrap_err();
            assert!(what.contains(expected), "{text}: {what}");
        }
        assert!(absolute(&format!("/{}", "x".repeat(256))).is_err());
    }

    #[test]
    fn a_pattern_follows_its_directory() {
        let to = |text| pattern_in(Path::new("/v/u"), text);
        assert_eq!(to("/w/**/a/b*"), "/v/u/**/a/b*");
        assert_eq!(to("/w/x/*.key"), "/v/u/*.key");
        assert_eq!(pattern_in(Path::new("/"), "/w/*.key"), "/*.key");
    }

    #[test]
    fn patterns_have_three_shapes() {
        for text in [
            "**/.env",
            "**/.git/hooks",
            "**/*.pem",
            "/srv/kb/*.key",
            "**/.git/hook*",
            "**/a/b/c",
            "**/a*/b*c/*d",
            "/srv/**/x",
            "/srv/kb/**/a/*.pem",
            "/**/x",
            "/*.key",
        ] {
            assert!(pattern(text).is_ok(), "{text}");
        }
        for text in [
            "*",
            "**",
            "**/",
            "**/*",
            "**/1/2/3/4/5/6/7/8/9",
            "/srv/*/kb",
            "/s*v/**/x",
            "srv/**/x",
            "/srv/**/",
            "/srv/**/x/**/y",
            "//**/x",
            "a*",
            "**/a*b*",
            "**/../x",
            "**/a/*",
            "/srv/x",
        ] {
            assert!(pattern(text).is_err(), "{text}");
        }
    }
}
