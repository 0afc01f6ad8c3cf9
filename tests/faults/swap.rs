// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names that lead elsewhere after lp-run has looked at them, and before the program starts: what
//! was looked at is what holds.

use std::fs;
use std::os::unix::fs::symlink;

use super::{DEBUG, Halted, POLICY, jail};
use crate::needs;
use crate::support::root;

#[test]
fn what_is_swapped_after_the_check_is_what_it_was() {
    needs!(root(), "root");
    needs!(DEBUG, "a debug build of lp-run");
    let jail = jail();
    let place = |name: &str| jail.path().join(name);
    jail.file("elsewhere/file", "not granted");
    jail.file("elsewhere/secret", "not granted");
    let script = format!(
        "cat {0}/tree/file; echo; cat {0}/tree/secret 2>&1; cat {0}/elsewhere/file 2>&1",
        jail.path().display()
    );
    let halted = Halted::at(&jail, "Channels", &script);
    // A component of a granted path, and the policy itself.
    fs::rename(place("tree"), place("moved")).expect("move it");
    symlink(place("elsewhere"), place("tree")).expect("make a link");
    let wider = POLICY.replace("@DIR@/tree\"", "@DIR@\"");
    assert_ne!(wider, POLICY);
    let wider = wider.replace("@DIR@", &jail.path().to_string_lossy());
    jail.file("policy.toml", wider);
    halted.resume();
    let (code, out, err) = halted.end();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out} {err}");
    assert_eq!((code, lines[0]), (Some(1), "content"), "{out} {err}");
    assert!(lines[1].ends_with("Permission denied"), "{out}");
    assert!(lines[2].ends_with("No such file or directory"), "{out}");
}
