// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine as a table, for the tests of policy and plan: no kernel is asked.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::walk::{self, Node, Status};
use super::{
    Budget, FactError, Facts, Kind, MountPoint, Need, Object, OwnPlaces, SearchError, User,
};

/// A machine whose files, users and calendar are what a test says.
#[derive(Clone, Debug)]
pub struct FakeFacts {
    entries: BTreeMap<PathBuf, Entry>,
    users: Vec<User>,
    /// Groups and who is in them; a place in the list is the id.
    groups: Vec<(String, String)>,
    caller: u32,
    login: Option<u32>,
    now: jiff::Timestamp,
    mounts: Vec<MountPoint>,
}

#[derive(Clone, Debug)]
struct Entry {
    kind: Kind,
    uid: u32,
    mode: u32,
    content: Vec<u8>,
    link: Option<PathBuf>,
    filesystem: &'static str,
}

impl FakeFacts {
    /// An empty machine: `/`, root, and the caller `anna` (uid 1000, home `/home/anna`). The
    /// caller is root until [`Self::called_by`] says otherwise.
    pub fn new() -> Self {
        let user = |name: &str, uid: u32, home: &str| User {
            name: name.to_owned(),
            uid,
            gid: uid,
            home: PathBuf::from(home),
        };
        let mut facts = Self {
            entries: BTreeMap::new(),
            users: vec![
                user("root", 0, "/root"),
                user("anna", 1000, "/home/anna"),
                user("svc", 900, "/srv/svc"),
            ],
            groups: Vec::new(),
            caller: 0,
            login: None,
            now: "2026-11-01T12:00:00Z".parse().unwrap_or_default(),
            mounts: Vec::new(),
        };
        facts.mount("8:0", "/", "/");
        facts.put("/", Kind::Directory, 0, 0o755, b"");
        facts
    }

    /// A machine with the usual directories, a shell, python, git, two homes and a work tree.
    pub fn usual() -> Self {
        let mut facts = Self::new();
        for dir in [
            "/usr/bin",
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib64",
            "/usr/local/bin",
            "/usr/lib/git-core",
            "/usr/lib/gcc",
            "/usr/lib/python3.11",
            "/usr/include",
            "/usr/share/zoneinfo",
            "/etc/alternatives",
            "/etc/ssl/certs",
            "/etc/lp-run/policies",
            "/proc",
            "/sys",
            "/run",
            "/var/lib",
            "/var/log",
            "/var/cache",
            "/srv/kb",
            "/srv/tickets/42",
        ] {
            facts.dir(dir, 0);
        }
        facts
            .link("/bin", "usr/bin", 0)
            .link("/lib", "usr/lib", 0)
            .link("/lib64", "usr/lib64", 0);
        facts.put("/tmp", Kind::Directory, 0, 0o1777, b"");
        facts.put("/var/tmp", Kind::Directory, 0, 0o1777, b"");
        for program in ["bash", "sh", "python3.11", "git", "env", "curl", "gcc"] {
            facts.put(
                &format!("/usr/bin/{program}"),
                Kind::File,
                0,
                0o755,
                b"\x7fELF",
            );
        }
        facts.link("/usr/bin/python3", "python3.11", 0);
        facts.file(
            "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            0,
            "\x7fELF",
        );
        facts.link(
            "/usr/lib64/ld-linux-x86-64.so.2",
            "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            0,
        );
        facts.file("/srv/tickets/42/payment.json", 0, "{}");
        facts.put("/run/docker.sock", Kind::Socket, 0, 0o660, b"");
        facts.put("/run/postgresql.sock", Kind::Socket, 0, 0o666, b"");
        facts
            .put("/proc", Kind::Directory, 0, 0o555, b"")
            .on("/proc", "proc");
        facts
            .put("/sys", Kind::Directory, 0, 0o555, b"")
            .on("/sys", "sysfs");
        facts.dir("/home/anna/work", 1000);
        facts.own("/home/anna", 1000);
        facts.dir("/home/anna/kb", 1000);
        facts.dir("/root", 0);
        let secret = "/etc/lp-run/secrets/token";
        facts.file(secret, 0, "a secret\n").mode(secret, 0o600);
        facts.put(
            "/usr/share/zoneinfo/Europe/Berlin",
            Kind::File,
            0,
            0o644,
            &zone("CET-1CEST,M3.5.0,M10.5.0/3"),
        );
        facts
    }

    /// A directory, its parents made.
    pub fn dir(&mut self, path: &str, uid: u32) -> &mut Self {
        self.put(path, Kind::Directory, uid, 0o755, b"")
    }

    /// A file of mode 0644, its parents made.
    pub fn file(&mut self, path: &str, uid: u32, content: &str) -> &mut Self {
        self.put(path, Kind::File, uid, 0o644, content.as_bytes())
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str, uid: u32) -> &mut Self {
        self.put(path, Kind::Other, uid, 0o777, b"");
        if let Some(entry) = self.entries.get_mut(Path::new(path)) {
            entry.link = Some(PathBuf::from(target));
        }
        self
    }

    /// Anything; parents that are missing become root's directories, mode 0755.
    pub fn put(
        &mut self,
        path: &str,
        kind: Kind,
        uid: u32,
        mode: u32,
        content: &[u8],
    ) -> &mut Self {
        let entry = |kind, uid, mode, content: &[u8]| Entry {
            kind,
            uid,
            mode,
            content: content.to_vec(),
            link: None,
            filesystem: "ext4",
        };
        for parent in Path::new(path).ancestors().skip(1) {
            self.entries
                .entry(parent.to_owned())
                .or_insert_with(|| entry(Kind::Directory, 0, 0o755, b""));
        }
        self.entries
            .insert(PathBuf::from(path), entry(kind, uid, mode, content));
        self
    }

    /// Changes an entry's owner.
    pub fn own(&mut self, path: &str, uid: u32) -> &mut Self {
        if let Some(entry) = self.entries.get_mut(Path::new(path)) {
            entry.uid = uid;
        }
        self
    }

    /// Changes an entry's permission bits.
    pub fn mode(&mut self, path: &str, mode: u32) -> &mut Self {
        if let Some(entry) = self.entries.get_mut(Path::new(path)) {
            entry.mode = mode;
        }
        self
    }

    /// Says which file system holds `path` and what stands below it.
    pub fn on(&mut self, path: &str, filesystem: &'static str) -> &mut Self {
        for (place, entry) in &mut self.entries {
            if place.starts_with(path) {
                entry.filesystem = filesystem;
            }
        }
        self
    }

    /// Mounts the directory `root` of a file system at `at`, whose entries are put there apart.
    pub fn mount(&mut self, device: &str, root: &str, at: &str) -> &mut Self {
        self.mounts.push(MountPoint {
            id: self.mounts.len() as u64 + 1,
            parent: self.mount_at(Path::new(at)),
            device: device.to_owned(),
            root: PathBuf::from(root),
            at: PathBuf::from(at),
        });
        self
    }

    /// The number of the mount that shows `path`.
    fn mount_at(&self, path: &Path) -> u64 {
        let shown = self
            .mounts
            .iter()
            .filter(|mount| path.starts_with(&mount.at));
        let nearest = shown.max_by_key(|mount| mount.at.components().count());
        nearest.map_or(0, |mount| mount.id)
    }

    /// A group with one member.
    pub fn member(&mut self, user: &str, group: &str) -> &mut Self {
        self.groups.push((group.to_owned(), user.to_owned()));
        self
    }

    /// Says who logged in.
    pub fn logged_in(&mut self, uid: u32) -> &mut Self {
        self.login = Some(uid);
        self
    }

    /// Sets the clock, as `2026-11-01T12:00:00Z`.
    pub fn at(&mut self, now: &str) -> &mut Self {
        self.now = now.parse().unwrap_or_default();
        self
    }

    /// Says who calls.
    pub fn called_by(&mut self, uid: u32) -> &mut Self {
        self.caller = uid;
        self
    }
}

impl Default for FakeFacts {
    fn default() -> Self {
        Self::new()
    }
}

impl Facts for FakeFacts {
    fn open(&self, path: &Path, trusted: &[u32]) -> Result<Object, FactError> {
        let root = Row {
            facts: self,
            path: PathBuf::from("/"),
        };
        let arrival = walk::walk(root, path, trusted)?;
        Ok(Object {
            fd: None,
            mount: arrival.status.mount,
            filesystem: self.entries[&arrival.path].filesystem.to_owned(),
            path: arrival.path,
            links: arrival.links,
            kind: arrival.status.kind,
            uid: arrival.status.uid,
            gid: arrival.status.gid,
            mode: arrival.status.mode,
            nlink: arrival.status.nlink,
            dev: arrival.status.dev,
            ino: arrival.status.ino,
            ancestors: arrival.ancestors,
        })
    }

    fn read_object(&self, object: &Object, limit: usize) -> Result<Vec<u8>, FactError> {
        match self.entries.get(&object.path) {
            Some(entry) if entry.kind == Kind::File => {
                Ok(entry.content.iter().copied().take(limit).collect())
            }
            _ => Err(FactError::Missing(object.path.clone())),
        }
    }

    fn mounts(&self) -> io::Result<Vec<MountPoint>> {
        Ok(self.mounts.clone())
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, FactError> {
        let object = self.open(path, &[])?;
        let inside = |place: &&PathBuf| place.parent() == Some(object.path.as_path());
        let names = self
            .entries
            .keys()
            .filter(inside)
            .filter_map(|place| place.file_name());
        Ok(names
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    fn search(
        &self,
        root: &Object,
        wanted: &dyn Fn(&Path) -> bool,
        budget: &mut Budget,
    ) -> Result<Vec<Object>, SearchError> {
        let mut found: Vec<Object> = Vec::new();
        let below = |place: &&PathBuf| place.starts_with(&root.path) && **place != root.path;
        for place in self.entries.keys().filter(below) {
            budget.name()?;
            let inside = found.iter().any(|above| place.starts_with(&above.path));
            let here = self.mount_at(place) == root.mount;
            if here && !inside && wanted(place) {
                budget.find()?;
                let entry = &self.entries[place];
                found.push(Object {
                    path: place.clone(),
                    kind: entry.kind,
                    uid: entry.uid,
                    gid: entry.uid,
                    mode: entry.mode,
                    ..root.clone()
                });
            }
        }
        Ok(found)
    }

    fn is_link(&self, directory: &Object, name: &OsStr) -> bool {
        let entry = self.entries.get(&directory.path.join(name));
        entry.is_some_and(|entry| entry.link.is_some())
    }

    fn user(&self, name: &str) -> Option<User> {
        self.users.iter().find(|user| user.name == name).cloned()
    }

    fn user_by_uid(&self, uid: u32) -> Option<User> {
        self.users.iter().find(|user| user.uid == uid).cloned()
    }

    fn in_group(&self, user: &User, gid: u32) -> bool {
        let group = self.groups.get(gid as usize);
        user.gid == gid || group.is_some_and(|(_, member)| *member == user.name)
    }

    fn group(&self, name: &str) -> Option<u32> {
        let at = self.groups.iter().position(|(group, _)| group == name);
        at.and_then(|at| u32::try_from(at).ok())
    }

    fn own_program(&self) -> PathBuf {
        PathBuf::from("/usr/bin/lp-run")
    }

    fn own_places(&self) -> Option<OwnPlaces> {
        None
    }

    fn caller(&self) -> Result<User, FactError> {
        let user = self.user_by_uid(self.caller);
        Ok(user.unwrap_or_else(|| self.users[0].clone()))
    }

    fn with_rights_of(&self, _: &User, act: &mut dyn FnMut()) -> Result<(), FactError> {
        act();
        Ok(())
    }

    fn may(&self, user: &User, object: &Object, need: Need) -> bool {
        let has = |uid: u32, gid: u32, mode: u32| match user {
            user if user.uid == uid => mode >> 6,
            user if user.gid == gid => mode >> 3,
            _ => mode,
        };
        let wanted = need.bits(object.kind);
        let above = &object.ancestors;
        user.uid == 0
            || above
                .iter()
                .all(|above| has(above.uid, above.gid, above.mode) & 1 != 0)
                && has(object.uid, object.gid, object.mode) & wanted == wanted
    }

    fn login(&self) -> Option<u32> {
        self.login
    }

    fn now(&self) -> jiff::Timestamp {
        self.now
    }
}

/// A file of a time zone that has always had one rule (RFC 9636, version 2).
fn zone(rule: &str) -> Vec<u8> {
    let mut block = b"TZif2".to_vec();
    block.extend([0; 15]);
    for count in [0_u32, 0, 0, 0, 1, 4] {
        block.extend(count.to_be_bytes());
    }
    block.extend([0; 6]);
    block.extend(b"LMT\0");
    [&block[..], &block, b"\n", rule.as_bytes(), b"\n"].concat()
}

struct Row<'a> {
    facts: &'a FakeFacts,
    path: PathBuf,
}

impl Node for Row<'_> {
    fn child(&self, name: &OsStr) -> io::Result<Self> {
        let path = self.path.join(name);
        match self.facts.entries.contains_key(&path) {
            true => Ok(Self {
                facts: self.facts,
                path,
            }),
            false => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    fn status(&self) -> io::Result<Status> {
        let entry = &self.facts.entries[&self.path];
        // The position in the table stands for the inode: unlike for each path.
        let ino = self
            .facts
            .entries
            .keys()
            .position(|path| *path == self.path)
            .unwrap_or(0);
        Ok(Status {
            link: entry.link.is_some(),
            kind: entry.kind,
            uid: entry.uid,
            gid: entry.uid,
            mode: entry.mode,
            nlink: 1,
            dev: 1,
            ino: ino as u64,
            mount: self.facts.mount_at(&self.path),
        })
    }

    fn link_text(&self) -> io::Result<PathBuf> {
        let text = self.facts.entries[&self.path].link.clone();
        text.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
    }

    fn generated(&self) -> bool {
        self.facts.entries[&self.path].filesystem == "proc"
    }
}
