// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a path lies below another, by their bytes. A plan asks this some thousand times, and
//! `Path::starts_with` takes both apart each time; here that is done only where the same path could
//! have been written in two ways (`a//b`, `a/./b`, `a/`). The answer is always that of `Path`.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `path.starts_with(root)`.
pub fn is_below(path: &Path, root: &Path) -> bool {
    by_bytes(bytes(path), bytes(root)).unwrap_or_else(|| path.starts_with(root))
}

/// `path == other`.
pub fn is_same(path: &Path, other: &Path) -> bool {
    let (a, b) = (bytes(path), bytes(other));
    a == b || (by_bytes(a, b) != Some(false) && path == other)
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// `None` where bytes alone do not tell.
fn by_bytes(path: &[u8], root: &[u8]) -> Option<bool> {
    let common = path.iter().zip(root).take_while(|(a, b)| a == b).count();
    let (path_rest, root_rest) = (&path[common..], &root[common..]);
    let last = root[..common].last().copied();
    match (path_rest.first(), root_rest.first()) {
        (None | Some(b'/'), None) => Some(true),
        (Some(_), None) if last == Some(b'/') => Some(true),
        (Some(_), None) if matches!(last, None | Some(b'.')) => None,
        (Some(_), None) => Some(false),
        // `a` and `a/`: what follows may be nothing.
        (None, Some(b'/')) if root_rest.iter().all(|byte| matches!(byte, b'/' | b'.')) => None,
        // Here a name begins in one of them, or goes on, and is another: unless one of the two has
        // a name that stands for nothing.
        _ if !matches!(last, None | Some(b'/' | b'.')) => Some(false),
        _ if is_nothing(path_rest) || is_nothing(root_rest) => None,
        _ => Some(false),
    }
}

/// Whether no name begins here, or `.`.
fn is_nothing(rest: &[u8]) -> bool {
    matches!(rest, [] | [b'/', ..] | [b'.'] | [b'.', b'/', ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn the_answer_is_that_of_path(path in "[/.ab]{0,7}", root in "[/.ab]{0,7}", more in "[/.ab]{0,4}") {
            let longer = format!("{root}{more}");
            for (path, root) in [(&path, &root), (&longer, &root), (&root, &longer)] {
                let (path, root) = (Path::new(path), Path::new(root));
                prop_assert_eq!(is_below(path, root), path.starts_with(root), "{:?} {:?}", path, root);
                prop_assert_eq!(is_same(path, root), path == root, "{:?} {:?}", path, root);
            }
        }
    }

    #[test]
    fn ordinary_paths_are_told_apart_by_bytes() {
        for (path, root, below) in [
            ("/usr/lib/x", "/usr/lib", true),
            ("/usr/lib", "/", true),
            ("/usr/lib", "/usr/lib64", false),
            ("/usr/lib64", "/usr/lib", false),
            ("/usr/lib", "/usr/lib/locale", false),
            ("/home/u/.ssh", "/home/u/project", false),
        ] {
            assert_eq!(
                by_bytes(path.as_bytes(), root.as_bytes()),
                Some(below),
                "{path} {root}"
            );
        }
    }
}
