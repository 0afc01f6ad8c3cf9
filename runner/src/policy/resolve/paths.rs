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

/// `**/NAME`, `**/NAME/SUB`, each with at most one `*` in its last component, or an absolute
/// path with one `*` in its last component.
pub fn pattern(text: &str) -> Result<String, String> {
    const SHAPE: &str = "write \"**/NAME\", \"**/NAME/SUB\", or one * in the last component";
    let wrong = || Err(format!("{} is not a pattern; {SHAPE}", quote(text)));
    if text.contains('\0') || text.len() > LONGEST {
        return wrong();
    }
    let rest = match text.strip_prefix("**/") {
        Some(rest) => rest,
        None if text.starts_with('/') => &text[1..],
        None => return wrong(),
    };
    let names: Vec<&str> = rest.split('/').collect();
    let anywhere = text.starts_with("**/");
    let Some((last, above)) = names.split_last() else {
        return wrong();
    };
    let fine = |name: &&str| {
        !name.is_empty() && *name != "." && *name != ".." && name.len() <= LONGEST_NAME
    };
    let stars = last.matches('*').count();
    let shape = names.iter().all(fine)
        && !above.iter().any(|name| name.contains('*'))
        && stars <= 1
        && (anywhere && names.len() <= 2 || !anywhere && stars == 1);
    if !shape || *last == "*" {
        return wrong();
    }
    Ok(text.to_owned())
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
    fn patterns_have_three_shapes() {
        for text in [
            "**/.env",
            "**/.git/hooks",
            "**/*.pem",
            "/srv/kb/*.key",
            "**/.git/hook*",
        ] {
            assert!(pattern(text).is_ok(), "{text}");
        }
        for text in [
            "*",
            "**",
            "**/",
            "**/*",
            "**/a/b/c",
            "/srv/*/kb",
            "a*",
            "**/a*b*",
            "**/../x",
            "**/a/*",
            "/srv/**/x",
        ] {
            assert!(pattern(text).is_err(), "{text}");
        }
    }
}
