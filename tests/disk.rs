// SPDX-License-Identifier: MIT OR Apache-2.0
//! `tmp = "disk:SIZE"`: a store on the host's disk that ends where it says and leaves nothing.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::needs;
use crate::support::{Jail, root};

/// `SIZE` of disk for the run's own places; the folder is read.
fn policy(size: &str) -> String {
    format!(
        "version = 1\nname = \"disk\"\nextends = [\"@shell\"]\n\n[files]\nread = [\"${{WORKDIR}}\"]\n\n\
         [limits]\ntmp = \"disk:{size}\"\n"
    )
}

/// Loop devices that lie on lp-run's files, by their backing file.
fn loops() -> Vec<String> {
    let devices = fs::read_dir("/sys/block").expect("list block devices");
    let file = |entry: fs::DirEntry| {
        let backing = entry.path().join("loop/backing_file");
        fs::read_to_string(backing).ok()
    };
    let files = devices.flatten().filter_map(file);
    files
        .filter(|file| file.contains("/var/lib/lp-run/disk/"))
        .collect()
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_disk_ends_where_it_says_and_leaves_nothing() {
    needs!(root(), "root");
    needs!(
        fs::exists("/dev/loop-control").unwrap_or(false),
        "loop devices"
    );
    let jail = Jail::new();
    let script =
        "for place in /tmp /var/tmp; do grep \" $place ext4 \" /proc/mounts | cut -d' ' -f4; done
        ls -A /var/tmp; ls -ld $HOME | cut -c1-10
        echo kept >/var/tmp/a; cat /var/tmp/a; rm /var/tmp/a
        head -c 12M /dev/zero >/tmp/fits && echo fits
        head -c 5M /dev/zero 2>&1 >/tmp/more | sed 's/.*: //'
        rm /tmp/more /tmp/fits; head -c 12M /dev/zero >/tmp/again && echo again
        printf '#!/bin/sh\\n' >/tmp/own; chmod +x /tmp/own; /tmp/own 2>/dev/null || echo $?";
    let outcome = jail.run(&policy("16M"), &["sh", "-c", script]);
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    let options = "rw,nosuid,nodev,noexec,relatime,discard";
    let full = "No space left on device";
    assert_eq!(
        lines,
        [
            options,
            options,
            "drwx------",
            "kept",
            "fits",
            full,
            "again",
            "126"
        ],
        "{outcome:?}"
    );
    wait_until("a loop device is left", || loops().is_empty());

    // However lp-run ends.
    let mut child = Command::new(env!("CARGO_BIN_EXE_lp-run"))
        .args(["--policy", "policy.toml", "--", "sleep", "60"])
        .current_dir(jail.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start lp-run");
    wait_until("no disk was made", || loops().len() >= 2);
    assert!(loops().iter().all(|file| file.contains("(deleted)")));
    thread::sleep(Duration::from_millis(500));
    child.kill().expect("kill -9 lp-run");
    child.wait().expect("wait for it");
    wait_until("a loop device is left after kill -9", || loops().is_empty());
    let left = fs::read_dir("/var/lib/lp-run/disk").expect("list the disks");
    assert_eq!(left.count(), 0);
}

#[test]
fn a_disk_larger_than_the_hosts_is_refused_before_the_start() {
    needs!(root(), "root");
    let jail = Jail::new();
    let outcome = jail.run(&policy("4000T"), &["sh", "-c", "echo ran"]);
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (123, ""));
    for word in ["/var/lib/lp-run/disk", "bytes free"] {
        assert!(outcome.stderr.contains(word), "{outcome:?}");
    }
}
