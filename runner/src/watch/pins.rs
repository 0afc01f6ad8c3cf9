// SPDX-License-Identifier: MIT OR Apache-2.0
//! The object in the kernel, shared by all runs of one release: loaded by the first, found by
//! its name in a BPF file system of lp-run's own by the others.
//!
//! ```text
//! /run/lp-run/bpf/NAME/…          programs and maps, pinned, and links of tracepoints
//! /run/lp-run/objects/lock        whoever changes any of this holds it
//! /run/lp-run/objects/NAME/       which pins are the right ones, and a lock a slot
//! ```
//!
//! A pin is only a name. What stands behind it is compared with the ids that the loader wrote
//! down, and what differs is not used: the object is loaded anew under another name.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use lp_run_common::run::MAX_RUNS;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};
use serde::{Deserialize, Serialize};

use super::WatchError;
use super::files::{self, PROGRAM_NAMES};
use super::lease::{self, Runs};
use super::load::{Loaded, MAPS, load};
use super::object::HOOKS;
use crate::sys::bpf_pin::{Identity, identity, open, pin};
use crate::sys::lock_file;

/// The release and its object.
const NAME: &str = env!("LP_RUN_OBJECT");
/// `BPF_FS_MAGIC` (linux/magic.h).
const BPF_FS: FsType = FsType(0xcafe_4a11);

/// Where the shared object and its locks are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The lock of all of them.
    lock: PathBuf,
    /// Manifest and slots.
    pub slots: PathBuf,
    /// Pins.
    pub pins: PathBuf,
}

/// What the loader wrote down.
#[derive(Serialize, Deserialize)]
struct Manifest {
    /// Name of the directory of pins.
    directory: String,
    maps: BTreeMap<String, Identity>,
    programs: BTreeMap<String, Identity>,
    no_files: Option<String>,
}

impl Place {
    /// Opens the object below `base` (`/run/lp-run`), or loads it if it is not there; the lock
    /// is held as long as the last of the three is kept.
    pub fn open(base: &Path) -> Result<(Self, Loaded, File), WatchError> {
        Self::open_named(base, NAME)
    }

    fn open_named(base: &Path, name: &str) -> Result<(Self, Loaded, File), WatchError> {
        let objects = base.join("objects");
        for directory in [base, &objects] {
            private(directory)?;
        }
        let lock = objects.join("lock");
        let held = lock_file::hold(&lock).map_err(failed("lock", &lock))?;
        let slots = objects.join(name);
        private(&slots)?;
        let bpf = base.join("bpf");
        mounted(&bpf)?;
        if let Some(known) = Manifest::read(&slots)
            && let pins = bpf.join(&known.directory)
            && let Some(loaded) = find(&pins, known)
        {
            return Ok((Self { lock, slots, pins }, loaded, held));
        }
        let loaded = load()?;
        let pins = pin_all(&loaded, &bpf, name)?;
        describe(&loaded, &pins)?.write(&slots)?;
        Ok((Self { lock, slots, pins }, loaded, held))
    }

    /// Takes down what dead runs left in shared maps and on tracepoints, as [`Lease::take`]
    /// does; of another release only the latter, whose maps this one does not know. Loads
    /// nothing.
    pub fn sweep(base: &Path) -> Result<(), WatchError> {
        let (objects, bpf) = (base.join("objects"), base.join("bpf"));
        let entries = match fs::read_dir(&objects) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed("list", &objects))?,
        };
        let lock = objects.join("lock");
        let _held = lock_file::hold(&lock).map_err(failed("lock", &lock))?;
        for entry in entries.flatten() {
            let slots = entry.path();
            let Some(known) = Manifest::read(&slots) else {
                continue;
            };
            let pins = bpf.join(&known.directory);
            let lock = lock.clone();
            let place = Self { lock, slots, pins };
            if entry.file_name() != NAME {
                place.detach_if_idle()?;
            } else if let Some(loaded) = find(&place.pins, known) {
                let mut runs = Runs::open(&loaded)?;
                let all = runs.all()?;
                lease::sweep(&loaded, &place, &mut runs, &all)?;
            }
        }
        Ok(())
    }

    /// Takes programs off tracepoints when no run holds a slot.
    fn detach_if_idle(&self) -> Result<(), WatchError> {
        for slot in 0..MAX_RUNS {
            let path = self.slots.join(slot.to_string());
            let held = || lock_file::try_hold(&path).map_err(failed("lock", &path));
            if path.exists() && held()?.is_none() {
                return Ok(());
            }
        }
        Ok(files::unlink(self)?)
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Result<File, WatchError> {
        lock_file::hold(&self.lock).map_err(failed("lock", &self.lock))
    }
}

/// Opens what the manifest names; `None` where anything is not what it says.
fn find(pins: &Path, manifest: Manifest) -> Option<Loaded> {
    let expected = |name: &'static str, entries: &BTreeMap<String, Identity>| {
        let wanted = entries.get(name)?;
        let found = open(&pins.join(name)).ok()?;
        (identity(found.as_fd()).ok()? == *wanted).then_some((name, found))
    };
    let files = PROGRAM_NAMES.iter().filter(|_| manifest.no_files.is_none());
    let programs = HOOKS.iter().map(|hook| &hook.program).chain(files);
    Some(Loaded {
        maps: MAPS
            .into_iter()
            .map(|name| expected(name, &manifest.maps))
            .collect::<Option<_>>()?,
        programs: programs
            .map(|name| expected(name, &manifest.programs))
            .collect::<Option<_>>()?,
        no_files: manifest.no_files,
    })
}

/// Pins everything in a directory that appears whole.
fn pin_all(loaded: &Loaded, bpf: &Path, name: &str) -> Result<PathBuf, WatchError> {
    let fresh = bpf.join(format!("new-{name}"));
    // Of somebody who died while loading.
    match fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other.map_err(failed("remove", &fresh))?,
    }
    private(&fresh)?;
    for (name, object) in loaded.maps.iter().chain(&loaded.programs) {
        let path = fresh.join(name);
        pin(object.as_fd(), &path).map_err(|error| failed("pin", &path)(error.source))?;
    }
    // What stands in the way is not what the manifest says, and perhaps somebody's.
    let names = std::iter::once(name.to_owned()).chain((1..).map(|n| format!("{name}-{n}")));
    let free = names.map(|name| bpf.join(name)).find(|path| !path.exists());
    let pins = free.unwrap_or_else(|| bpf.join(name));
    fs::rename(&fresh, &pins).map_err(failed("name", &pins))?;
    Ok(pins)
}

fn describe(loaded: &Loaded, pins: &Path) -> Result<Manifest, WatchError> {
    let identities = |objects: &BTreeMap<&'static str, OwnedFd>| {
        let entry = |(name, object): (&&'static str, &OwnedFd)| {
            identity(object.as_fd())
                .map(|identity| ((*name).to_owned(), identity))
                .map_err(|error| failed("describe", Path::new(name))(error.source))
        };
        objects.iter().map(entry).collect::<Result<_, _>>()
    };
    let directory = pins.file_name().unwrap_or_default();
    Ok(Manifest {
        directory: directory.to_string_lossy().into_owned(),
        maps: identities(&loaded.maps)?,
        programs: identities(&loaded.programs)?,
        no_files: loaded.no_files.clone(),
    })
}

impl Manifest {
    /// The file in the directory of slots.
    const FILE: &str = "manifest.json";

    fn read(slots: &Path) -> Option<Self> {
        let text = fs::read(slots.join(Self::FILE)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes the file anew: it is whole at each moment.
    fn write(&self, slots: &Path) -> Result<(), WatchError> {
        let path = slots.join(Self::FILE);
        let text =
            serde_json::to_vec(self).map_err(|error| failed("write", &path)(error.into()))?;
        let fresh = path.with_extension("new");
        fs::write(&fresh, text).map_err(failed("write", &fresh))?;
        fs::rename(&fresh, &path).map_err(failed("write", &path))
    }
}

/// Mounts the BPF file system at `path`, unless it is there.
fn mounted(path: &Path) -> Result<(), WatchError> {
    private(path)?;
    let kind = || statfs(path).map(|status| status.filesystem_type());
    if kind().map_err(|errno| failed("look at", path)(errno.into()))? != BPF_FS {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let options = Some("mode=0700");
        mount(Some("lp-run"), path, Some("bpf"), flags, options)
            .map_err(|errno| failed("mount a BPF file system at", path)(errno.into()))?;
    }
    private(path)
}

/// Makes the directory; one that is there must be root's alone.
fn private(path: &Path) -> Result<(), WatchError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other.map_err(failed("make", path)),
    }
    let metadata = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    let own = metadata.uid() == nix::unistd::geteuid().as_raw();
    match metadata.is_dir() && own && metadata.mode() & 0o077 == 0 {
        true => Ok(()),
        false => Err(WatchError::NotOurs(path.to_owned())),
    }
}

pub(super) fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WatchError {
    let path = path.to_owned();
    move |source| WatchError::Pins { act, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::lease::Lease;
    use crate::watch::testing::Base;

    fn id(loaded: &Loaded) -> u32 {
        identity(loaded.maps["RUNS"].as_fd()).unwrap().id
    }

    fn root() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            eprintln!("skipped: needs root");
        }
        root
    }

    #[test]
    fn the_second_finds_what_the_first_loaded() {
        if !root() {
            return;
        }
        let base = Base::new();
        let ids: Vec<u32> = std::thread::scope(|scope| {
            let start = || id(&Place::open(base.path()).unwrap().1);
            let all: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    #[test]
    fn two_releases_stand_side_by_side() {
        if !root() {
            return;
        }
        let base = Base::new();
        let open = |name| {
            let (place, loaded, _lock) = Place::open_named(base.path(), name).unwrap();
            let lease = Lease::take(&loaded, &place, 3).unwrap();
            (loaded, lease)
        };
        let (old, new) = (open("1"), open("2"));
        assert_ne!(id(&old.0), id(&new.0));
        assert_eq!((old.1.slot, new.1.slot), (0, 0), "each has its own slots");
        let again = open("1");
        assert_eq!(id(&old.0), id(&again.0));
        assert_eq!(again.1.slot, 1);
    }

    #[test]
    fn a_torn_manifest_is_no_manifest() {
        if !root() {
            return;
        }
        let base = Base::new();
        let (place, first, lock) = Place::open(base.path()).unwrap();
        drop(lock);
        fs::write(place.slots.join("manifest.json"), "{\"directory\":\"..\"").unwrap();
        let (place, second, _lock) = Place::open(base.path()).unwrap();
        assert_ne!(id(&first), id(&second));
        assert!(place.pins.ends_with(format!("{NAME}-1")));
    }
}
