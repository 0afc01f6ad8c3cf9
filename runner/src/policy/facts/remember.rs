// SPDX-License-Identifier: MIT OR Apache-2.0
//! [`Facts`] that look at each path once: a policy and its kits name the same places again and
//! again, and what was seen first is what counts.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::{Budget, FactError, Facts, MountPoint, Need, Object, OwnPlaces, SearchError, User};

/// A path, the trusted uids, and whose rights were in force: what was seen with root's is nothing
/// to others.
type Asked = (PathBuf, Vec<u32>, Option<u32>);

/// Other facts, and what they said of paths.
pub struct Remembering<'a> {
    facts: &'a dyn Facts,
    opened: RefCell<HashMap<Asked, Object>>,
    borrowed: Cell<Option<u32>>,
}

impl<'a> Remembering<'a> {
    /// Remembers what `facts` say, and holds every object that was opened.
    pub fn new(facts: &'a dyn Facts) -> Self {
        Self {
            facts,
            opened: RefCell::default(),
            borrowed: Cell::new(None),
        }
    }
}

impl Facts for Remembering<'_> {
    fn open(&self, path: &Path, trusted: &[u32]) -> Result<Object, FactError> {
        let key = (path.to_owned(), trusted.to_owned(), self.borrowed.get());
        if let Some(object) = self.opened.borrow().get(&key) {
            return Ok(object.clone());
        }
        let object = self.facts.open(path, trusted)?;
        self.opened.borrow_mut().insert(key, object.clone());
        Ok(object)
    }

    fn read_object(&self, object: &Object, limit: usize) -> Result<Vec<u8>, FactError> {
        self.facts.read_object(object, limit)
    }

    fn mounts(&self) -> io::Result<Vec<MountPoint>> {
        self.facts.mounts()
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, FactError> {
        self.facts.list(path)
    }

    fn search(
        &self,
        root: &Object,
        wanted: &dyn Fn(&Path) -> bool,
        budget: &mut Budget,
    ) -> Result<Vec<Object>, SearchError> {
        self.facts.search(root, wanted, budget)
    }

    fn is_link(&self, directory: &Object, name: &OsStr) -> bool {
        self.facts.is_link(directory, name)
    }

    fn user(&self, name: &str) -> Option<User> {
        self.facts.user(name)
    }

    fn user_by_uid(&self, uid: u32) -> Option<User> {
        self.facts.user_by_uid(uid)
    }

    fn in_group(&self, user: &User, gid: u32) -> bool {
        self.facts.in_group(user, gid)
    }

    fn group(&self, name: &str) -> Option<u32> {
        self.facts.group(name)
    }

    fn own_program(&self) -> PathBuf {
        self.facts.own_program()
    }

    fn own_places(&self) -> Option<OwnPlaces> {
        self.facts.own_places()
    }

    fn caller(&self) -> Result<User, FactError> {
        self.facts.caller()
    }

    fn with_rights_of(&self, user: &User, act: &mut dyn FnMut()) -> Result<(), FactError> {
        let before = self.borrowed.replace((user.uid != 0).then_some(user.uid));
        let done = self.facts.with_rights_of(user, act);
        self.borrowed.set(before);
        done
    }

    fn may(&self, user: &User, object: &Object, need: Need) -> bool {
        self.facts.may(user, object, need)
    }

    fn login(&self) -> Option<u32> {
        self.facts.login()
    }

    fn now(&self) -> jiff::Timestamp {
        self.facts.now()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::SystemFacts;
    use super::*;

    #[test]
    fn a_name_that_is_swapped_is_what_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let system = SystemFacts::default();
        let facts = Remembering::new(&system);
        assert!(facts.open(&path, &[]).is_err());
        std::fs::write(&path, "first").unwrap();
        let first = facts.open(&path, &[]).unwrap();
        std::fs::rename(&path, directory.path().join("b")).unwrap();
        std::fs::write(&path, "second").unwrap();
        let again = facts.open(&path, &[]).unwrap();
        assert_eq!(again.ino, first.ino);
        assert_eq!(facts.read_object(&again, 9).unwrap(), b"first");
        assert_ne!(facts.open(&path, &[1]).unwrap().ino, first.ino);
    }

    #[test]
    fn what_root_saw_is_not_shown_to_the_caller() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "secret").unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let system = SystemFacts::default();
        let facts = Remembering::new(&system);
        facts.open(&path, &[]).unwrap();
        let nobody = facts.user_by_uid(65534).unwrap();
        let mut seen = false;
        let look = &mut || seen = facts.open(&path, &[]).is_ok();
        facts.with_rights_of(&nobody, look).unwrap();
        assert!(!seen);
    }
}
