// SPDX-License-Identifier: MIT OR Apache-2.0
//! The object in the kernel, shared by all runs of one release: loaded by the first, found by
//! its name in a BPF file system of lp-run's own by the others.
//!
//! ```text
//! /run/lp-run/bpf/NAME/…              programs and maps, pinned, and links of tracepoints
//! /run/lp-run/objects/lock            whoever changes any of this holds it
//! /run/lp-run/objects/DEVICE/NAME/    which pins are the right ones, and a lock a slot
//! ```
//!
//! A pin is only a name. What stands behind it is compared with the ids that the loader wrote
//! down, and what differs is not used: the object is loaded anew under another name.
//!
//! DEVICE is the BPF file system's: `/run` may be shared with a mount namespace whose
//! `/run/lp-run/bpf` is another one (a container, a unit with mounts of its own), which then has
//! an object and slots of its own.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lp_run_common::run::MAX_RUNS;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};
use serde::{Deserialize, Serialize};

use super::WatchError;
use super::files::{self, PROGRAM_NAMES};
use super::lease::{self, Runs};
use super::load::{Loaded, MAPS, Object, load};
use super::lsm;
use super::object::HOOKS;
use crate::sys::bpf_pin::{Identity, identity, map_exists, open, pin};
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
    pub pins: Pins,
}

/// The directory of pins. Names go through its descriptor: they lead to the same pins when
/// something else is mounted over `/run/lp-run/bpf` while the run lives.
#[derive(Clone, Debug)]
pub(super) struct Pins(Arc<File>);

impl Pins {
    fn open(path: &Path) -> io::Result<Self> {
        let directory = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(path)?;
        Ok(Self(Arc::new(directory)))
    }

    /// Where the pin of this name is.
    pub fn path(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()).into()
    }
}

/// What the loader wrote down.
#[derive(Serialize, Deserialize)]
struct Manifest {
    /// Name of the directory of pins.
    directory: String,
    maps: BTreeMap<String, Identity>,
    programs: BTreeMap<String, Identity>,
    tracepoints: BTreeMap<String, u64>,
    no_files: Option<String>,
    no_lsm: Option<String>,
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
        let bpf = base.join("bpf");
        let own = objects.join(mounted(&bpf)?);
        let slots = own.join(name);
        for directory in [&own, &slots] {
            private(directory)?;
        }
        let known = Manifest::read(&slots);
        if let Some((pins, loaded)) = known.and_then(|known| find(&bpf, known)) {
            return Ok((Self { lock, slots, pins }, loaded, held));
        }
        let loaded = load()?;
        forget_unmounted(&objects, &own)?;
        tidy(&bpf, &slots, name, None)?;
        let pins = pin_all(&loaded, &bpf, &slots, name)?;
        Ok((Self { lock, slots, pins }, loaded, held))
    }

    /// Takes down what dead runs left in shared maps and on tracepoints, as [`Lease::take`]
    /// does; of another release only the latter, whose maps this one does not know. Loads
    /// nothing.
    pub fn sweep(base: &Path) -> Result<(), WatchError> {
        let (objects, bpf) = (base.join("objects"), base.join("bpf"));
        let Some(device) = device(&bpf)? else {
            return Ok(());
        };
        let own = objects.join(device);
        let entries = match fs::read_dir(&own) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed("list", &own))?,
        };
        let lock = objects.join("lock");
        let _held = lock_file::hold(&lock).map_err(failed("lock", &lock))?;
        for entry in entries.flatten() {
            let (slots, name) = (entry.path(), entry.file_name());
            let known = Manifest::read(&slots);
            let used = known.as_ref().map(|known| known.directory.clone());
            tidy(&bpf, &slots, &name.to_string_lossy(), used.as_deref())?;
            let Some(known) = known else {
                continue;
            };
            if name != NAME {
                detach_if_idle(&slots, &bpf.join(known.directory))?;
            } else if let Some((pins, loaded)) = find(&bpf, known) {
                let lock = lock.clone();
                let place = Self { lock, slots, pins };
                let mut runs = Runs::open(&loaded)?;
                let all = runs.all()?;
                lease::sweep(&loaded, &place, &mut runs, &all)?;
            }
        }
        Ok(())
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Result<File, WatchError> {
        lock_file::hold(&self.lock).map_err(failed("lock", &self.lock))
    }
}

/// Whether no run holds a slot.
fn idle(slots: &Path) -> Result<bool, WatchError> {
    for slot in 0..MAX_RUNS {
        let path = slots.join(slot.to_string());
        let held = || lock_file::try_hold(&path).map_err(failed("lock", &path));
        if path.exists() && held()?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes programs of another release off tracepoints when none of its runs is left.
fn detach_if_idle(slots: &Path, pins: &Path) -> Result<(), WatchError> {
    match Pins::open(pins) {
        Ok(pins) if idle(slots)? => {
            files::unlink(&pins)?;
            lsm::unlink(&pins)
        }
        _ => Ok(()),
    }
}

/// Removes every set of pins of the object but `used`: of somebody who died while loading, or
/// what is not what the manifest says. Not while a run lives, which may use it still.
fn tidy(bpf: &Path, slots: &Path, name: &str, used: Option<&str>) -> Result<(), WatchError> {
    if !idle(slots)? {
        return Ok(());
    }
    for entry in fs::read_dir(bpf).map_err(failed("list", bpf))?.flatten() {
        let found = entry.file_name();
        let found = found.to_string_lossy();
        let of_object = found
            .strip_prefix("new-")
            .unwrap_or(&found)
            .strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        if of_object && used != Some(&*found) {
            let path = entry.path();
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

/// Removes slots and manifests of BPF file systems that are mounted nowhere any more: their
/// maps are gone, which a pin would keep.
fn forget_unmounted(objects: &Path, own: &Path) -> Result<(), WatchError> {
    let entries = fs::read_dir(objects).map_err(failed("list", objects))?;
    let others = entries.flatten().map(|entry| entry.path());
    for other in others.filter(|path| path != own && path.is_dir()) {
        let gone = |slots: &Path| {
            let runs = Manifest::read(slots).and_then(|known| known.maps.get("RUNS").copied());
            runs.is_none_or(|runs| !map_exists(runs.id)) && idle(slots).unwrap_or(false)
        };
        let names = fs::read_dir(&other).map_err(failed("list", &other))?;
        if names.flatten().all(|name| gone(&name.path())) {
            fs::remove_dir_all(&other).map_err(failed("remove", &other))?;
        }
    }
    Ok(())
}

/// Opens what the manifest names; `None` where anything is not what it says. By the plain path: each
/// object is compared, and names through `/proc/self/fd` take the kernel about twice as long.
fn find(bpf: &Path, manifest: Manifest) -> Option<(Pins, Loaded)> {
    let directory = bpf.join(&manifest.directory);
    let pins = Pins::open(&directory).ok()?;
    let expected = |name: &'static str, entries: &BTreeMap<String, Identity>| {
        let wanted = entries.get(name)?;
        let fd = open(&directory.join(name)).ok()?;
        let identity = identity(fd.as_fd()).ok()?;
        (identity == *wanted).then_some((name, Object { fd, identity }))
    };
    let files = PROGRAM_NAMES.iter().filter(|_| manifest.no_files.is_none());
    let programs = HOOKS.iter().map(|hook| &hook.program).chain(files);
    // Those that this kernel has: a hook may be missing.
    let lsm = lsm::HOOKS.iter().map(|hook| &hook.program);
    let programs = programs.chain(lsm.filter(|name| manifest.programs.contains_key(**name)));
    let loaded = Loaded {
        maps: MAPS
            .into_iter()
            .map(|name| expected(name, &manifest.maps))
            .collect::<Option<_>>()?,
        programs: programs
            .map(|name| expected(name, &manifest.programs))
            .collect::<Option<_>>()?,
        tracepoints: manifest.tracepoints,
        no_files: manifest.no_files,
        no_lsm: manifest.no_lsm,
    };
    Some((pins, loaded))
}

/// Pins everything in a directory that appears whole, and after the manifest that names it:
/// whoever dies in between leaves nothing that is not found again.
fn pin_all(loaded: &Loaded, bpf: &Path, slots: &Path, name: &str) -> Result<Pins, WatchError> {
    let fresh = bpf.join(format!("new-{name}"));
    // Of somebody who died while loading beside a run that lives.
    match fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other.map_err(failed("remove", &fresh))?,
    }
    private(&fresh)?;
    let pins = Pins::open(&fresh).map_err(failed("open", &fresh))?;
    for (name, object) in loaded.maps.iter().chain(&loaded.programs) {
        let path = fresh.join(name);
        pin(object.fd.as_fd(), &path).map_err(|error| failed("pin", &path)(error.source))?;
    }
    // What stands in the way is some run's that lives.
    let mut names = std::iter::once(name.to_owned()).chain((1..).map(|n| format!("{name}-{n}")));
    let free = names.find(|name| !bpf.join(name).exists());
    let free = free.unwrap_or_else(|| name.to_owned());
    describe(loaded, &free).write(slots)?;
    let path = bpf.join(free);
    fs::rename(&fresh, &path).map_err(failed("name", &path))?;
    Ok(pins)
}

fn describe(loaded: &Loaded, directory: &str) -> Manifest {
    let identities = |objects: &BTreeMap<&'static str, Object>| {
        let entries = objects.iter();
        entries
            .map(|(name, object)| ((*name).to_owned(), object.identity))
            .collect()
    };
    Manifest {
        directory: directory.to_owned(),
        maps: identities(&loaded.maps),
        programs: identities(&loaded.programs),
        tracepoints: loaded.tracepoints.clone(),
        no_files: loaded.no_files.clone(),
        no_lsm: loaded.no_lsm.clone(),
    }
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

/// Mounts the BPF file system at `path`, unless it is there, and gives its device.
fn mounted(path: &Path) -> Result<String, WatchError> {
    private(path)?;
    if device(path)?.is_none() {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let options = Some("mode=0700");
        mount(Some("lp-run"), path, Some("bpf"), flags, options)
            .map_err(|errno| failed("mount a BPF file system at", path)(errno.into()))?;
    }
    private(path)?;
    device(path)?.ok_or_else(|| failed("find a BPF file system at", path)(Errno::ENODEV.into()))
}

/// The device of the BPF file system at `path`, which no other mounted one has.
fn device(path: &Path) -> Result<Option<String>, WatchError> {
    match statfs(path) {
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(failed("look at", path)(errno.into())),
        Ok(status) if status.filesystem_type() != BPF_FS => return Ok(None),
        Ok(_) => {}
    }
    let metadata = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    Ok(Some(metadata.dev().to_string()))
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
        loaded.maps["RUNS"].identity.id
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
            let lease = take(&loaded, &place);
            (loaded, lease)
        };
        let (old, new) = (open("1"), open("2"));
        assert_ne!(id(&old.0), id(&new.0));
        assert_eq!((old.1.slot, new.1.slot), (0, 0), "each has its own slots");
        let again = open("1");
        assert_eq!(id(&old.0), id(&again.0));
        assert_eq!(again.1.slot, 1);
    }

    fn take(loaded: &Loaded, place: &Place) -> Lease {
        Lease::take(loaded, place, &mut Runs::open(loaded).unwrap(), 3).unwrap()
    }

    /// Names in the BPF file system, but those that the kernel puts there.
    fn sets(base: &Base) -> Vec<String> {
        let names = fs::read_dir(base.path().join("bpf")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut own: Vec<String> = names.filter(|name| !name.ends_with(".debug")).collect();
        own.sort();
        own
    }

    #[test]
    fn a_torn_manifest_is_no_manifest() {
        if !root() {
            return;
        }
        let base = Base::new();
        let (place, first, lock) = Place::open(base.path()).unwrap();
        let lease = take(&first, &place);
        drop(lock);
        let tear = || fs::write(place.slots.join("manifest.json"), "{\"directory\":\"..\"");
        tear().unwrap();
        let (_, second, lock) = Place::open(base.path()).unwrap();
        assert_ne!(id(&first), id(&second));
        assert_eq!(sets(&base), [NAME.to_owned(), format!("{NAME}-1")]);
        // What no run uses any more makes room.
        drop((lock, lease));
        Place::sweep(base.path()).unwrap();
        assert_eq!(sets(&base), [format!("{NAME}-1")]);
        tear().unwrap();
        let (_, third, _lock) = Place::open(base.path()).unwrap();
        assert_ne!(id(&second), id(&third));
        assert_eq!(sets(&base), [NAME]);
    }

    #[test]
    fn a_loader_that_dies_at_any_step_leaves_nothing() {
        if !root() {
            return;
        }
        let base = Base::new();
        let bpf = base.path().join("bpf");
        let manifest = || {
            let (place, _, _lock) = Place::open(base.path()).unwrap();
            place.slots.join("manifest.json")
        };
        // Before the manifest, and between manifest and name.
        for written in [false, true] {
            let manifest = manifest();
            fs::rename(bpf.join(NAME), bpf.join(format!("new-{NAME}"))).unwrap();
            if !written {
                fs::remove_file(manifest).unwrap();
            }
            drop(Place::open(base.path()).unwrap());
            assert_eq!(sets(&base), [NAME], "written: {written}");
        }
    }

    #[test]
    fn slots_of_a_file_system_that_is_gone_are_removed() {
        if !root() {
            return;
        }
        let base = Base::new();
        let (place, loaded, lock) = Place::open(base.path()).unwrap();
        let own = place.slots.parent().unwrap().to_owned();
        let elsewhere = own.with_file_name("1");
        fs::rename(&own, &elsewhere).unwrap();
        drop(lock);
        // While its maps exist it is mounted somewhere, or some run's.
        let (place, second, lock) = Place::open(base.path()).unwrap();
        assert_ne!(id(&loaded), id(&second));
        assert!(elsewhere.exists());
        drop((loaded, lock));
        fs::remove_file(place.slots.join("manifest.json")).unwrap();
        // The kernel frees maps in its own time.
        let start = std::time::Instant::now();
        while elsewhere.exists() {
            assert!(start.elapsed().as_secs() < 10, "{}", elsewhere.display());
            let _ = fs::remove_file(place.slots.join("manifest.json"));
            drop(Place::open(base.path()).unwrap());
        }
    }
}
