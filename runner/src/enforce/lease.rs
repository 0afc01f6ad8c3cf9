// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dynamic uids: a number of the host's block that nobody else uses, held by a lock on
//! `uids/NUMBER` that lp-run and the shim share. The lock goes with its last holder, however
//! that ends; a file without a lock is a leftover.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::EnforceError;
use super::strangers::Strangers;
use crate::sys::{lock_file, process};

/// Beside the directory of the leases: what is noted of uids that nobody has, and what a crash left
/// of its writing begins with the same.
pub const NOTES: &str = "uids.free";

/// A uid that is this run's alone as long as the descriptor is open anywhere.
#[derive(Debug)]
pub struct Lease {
    uid: u32,
    path: PathBuf,
    file: File,
}

impl Lease {
    /// The uid, which is the gid too.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The lock file, for the state of the run.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the uid back and removes the file. Only once no process of the run is left.
    pub fn release(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Leases a uid of `block` (first, how many). The search starts at a place that depends on the
/// policy's name only, so that a policy mostly has the same uid.
pub fn acquire(directory: &Path, block: (u32, u32), name: &str) -> Result<Lease, EnforceError> {
    let state = |source| EnforceError::State {
        path: directory.to_owned(),
        source,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(state)?;
    let mut strangers = Strangers::read(directory.with_file_name(NOTES));
    for uid in candidates(block, name) {
        // A run whose uid is someone's would be that someone.
        if process::exists_of(uid) || !strangers.include(uid) {
            continue;
        }
        let path = directory.join(uid.to_string());
        if let Some(file) = lock_file::try_hold(&path).map_err(state)? {
            return Ok(Lease { uid, path, file });
        }
    }
    let (first, count) = block;
    Err(EnforceError::NoUid {
        first,
        last: first.saturating_add(count.saturating_sub(1)),
    })
}

/// Removes the files of leases that nobody holds any more; says how many.
pub fn sweep(directory: &Path) -> io::Result<usize> {
    let mut removed = 0;
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    for entry in entries {
        let path = entry?.path();
        if lock_file::try_hold(&path)?.is_some() {
            fs::remove_file(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Every uid of the block, from the policy's own place on and round.
fn candidates((first, count): (u32, u32), name: &str) -> impl Iterator<Item = u32> {
    let digest = Sha256::digest(name.as_bytes());
    let start = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let start = start.checked_rem(count).unwrap_or(0);
    (0..count)
        .map(move |step| first + ((u64::from(start) + u64::from(step)) % u64::from(count)) as u32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const BLOCK: (u32, u32) = (2_000_000_000, 16);

    #[test]
    fn a_policy_gets_the_same_uid_again_and_a_second_run_another() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("uids");
        let first = acquire(&dir, BLOCK, "ticket-summary").unwrap();
        let uid = first.uid();
        let second = acquire(&dir, BLOCK, "ticket-summary").unwrap();
        assert_ne!(uid, second.uid());
        first.release().unwrap();
        assert_eq!(acquire(&dir, BLOCK, "ticket-summary").unwrap().uid(), uid);
    }

    #[test]
    fn a_lease_lives_as_long_as_any_holder() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("uids");
        let lease = acquire(&dir, (2_000_000_000, 1), "one").unwrap();
        let shim = lease.as_fd().try_clone_to_owned().unwrap();
        drop(lease);
        assert!(matches!(
            acquire(&dir, (2_000_000_000, 1), "one"),
            Err(EnforceError::NoUid {
                first: 2_000_000_000,
                last: 2_000_000_000
            })
        ));
        assert_eq!(sweep(&dir).unwrap(), 0);
        drop(shim);
        assert_eq!(sweep(&dir).unwrap(), 1);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn a_thousand_leases_at_once_are_a_thousand_uids_and_all_come_back() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("uids");
        let block = (2_000_100_000, 4_000);
        let lease = |n: usize| acquire(&dir, block, &format!("policy-{}", n / 10)).unwrap();
        let share = |of: usize| (0..125).map(|n| lease(of * 125 + n)).collect::<Vec<_>>();
        let share = &share;
        let leases: Vec<Lease> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|of| scope.spawn(move || share(of))).collect();
            let found = threads.into_iter().map(|thread| thread.join().unwrap());
            found.flatten().collect()
        });
        let uids: BTreeSet<u32> = leases.iter().map(Lease::uid).collect();
        assert_eq!(uids.len(), 1000);
        assert_eq!(sweep(&dir).unwrap(), 0, "all are held");
        // Every second one crashes: its lock goes and its file stays.
        for (n, lease) in leases.into_iter().enumerate() {
            match n % 2 {
                0 => lease.release().unwrap(),
                _ => drop(lease),
            }
        }
        assert_eq!(sweep(&dir).unwrap(), 500);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn a_uid_that_owns_a_process_is_not_leased() {
        let own = nix::unistd::getuid().as_raw();
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("uids");
        let error = acquire(&dir, (own, 1), "x").unwrap_err();
        assert!(matches!(error, EnforceError::NoUid { .. }), "{error}");
        assert!(acquire(&dir, BLOCK, "x").is_ok());
    }

    #[test]
    fn the_search_covers_the_block_once() {
        let all: BTreeSet<u32> = candidates(BLOCK, "x").collect();
        assert_eq!(all.len(), 16);
        assert_eq!(all.first(), Some(&2_000_000_000));
        assert_eq!(all.last(), Some(&2_000_000_015));
    }
}
