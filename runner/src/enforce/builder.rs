// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds the mounts of a view one by one, and makes the places they need in the trees that
//! are the run's own. In a bound tree nothing is ever made: its places must be there.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::sys::stat::{self, SFlag};

use super::identity::Identity;
use super::idmap::Namespaces;
use super::tree::{ExactModes, OwnTree};
use super::view::{Item, PLACE, PreparedView, Private, Root};
use super::{EnforceError, disk, tree};
use crate::host::Means;
use crate::plan::{Generated, IdMap, Mask, Mount, Plan, Rights, Row, Source};
use crate::policy::SECRETS_DIR;
use crate::policy::facts::{Kind, Object};
use crate::policy::model::ViewChoice;
use crate::sys::beneath::open_beneath;
use crate::sys::{SysError, mount};

/// Never in a view: set-user-id bits and devices of a bound tree.
const BOUND: u64 = mount::NO_SUID | mount::NO_DEV;

/// Room for mount points in a [`Source::Cover`].
const COVER_BYTES: u64 = 64 << 10;

/// What stands at a path of the view, for those that come below it.
struct Tree {
    at: PathBuf,
    fd: Rc<OwnedFd>,
    /// Made by the run: places are made in it.
    own: Option<OwnTree>,
    /// Attributes, in force at the end for an own tree.
    attributes: u64,
}

/// A view under construction.
pub(super) struct Builder<'a> {
    plan: &'a Plan,
    identity: &'a Identity,
    run_dir: &'a Path,
    namespaces: Namespaces,
    /// The root first; a later one covers an earlier one.
    trees: Vec<Tree>,
    /// Where they stand: the last of each place.
    places: HashMap<PathBuf, usize>,
    items: Vec<Item>,
    private: Vec<(OwnedFd, Private)>,
    created: Vec<(PathBuf, OwnedFd)>,
    devpts: Option<OwnedFd>,
    secrets: Option<OwnedFd>,
    /// How many files were written below the run's directory.
    files: usize,
    _modes: ExactModes,
}

/// Device nodes of a private `/dev` (`Documentation/admin-guide/devices.txt`).
const DEVICES: [(&std::ffi::CStr, (u64, u64)); 6] = [
    (c"null", (1, 3)),
    (c"zero", (1, 5)),
    (c"full", (1, 7)),
    (c"random", (1, 8)),
    (c"urandom", (1, 9)),
    (c"tty", (5, 0)),
];

/// Links of a private `/dev`.
const DEVICE_LINKS: [(&std::ffi::CStr, &str); 5] = [
    (c"ptmx", "pts/ptmx"),
    (c"fd", "/proc/self/fd"),
    (c"stdin", "/proc/self/fd/0"),
    (c"stdout", "/proc/self/fd/1"),
    (c"stderr", "/proc/self/fd/2"),
];

impl<'a> Builder<'a> {
    /// Starts with the root, and the directories that grants want to have made.
    pub(super) fn new(
        plan: &'a Plan,
        identity: &'a Identity,
        run_dir: &'a Path,
    ) -> Result<Self, EnforceError> {
        let at = PathBuf::from("/");
        let mut builder = Self {
            plan,
            identity,
            run_dir,
            namespaces: Namespaces::default(),
            trees: Vec::new(),
            places: HashMap::new(),
            items: Vec::new(),
            private: Vec::new(),
            created: Vec::new(),
            devpts: None,
            secrets: None,
            files: 0,
            _modes: ExactModes::new(),
        };
        if plan.means == Means::Alone {
            builder.stay()?;
            return Ok(builder);
        }
        let root =
            root(plan, builder.owner()).map_err(|source| mount_error(plan, &at, None, source))?;
        let own = plan.view.kind == ViewChoice::Private;
        if own {
            builder.allow(&root, Private::Listing)?;
        }
        let attributes = BOUND | mount::READ_ONLY | if own { mount::NO_EXEC } else { 0 };
        builder.stand(Tree {
            at,
            fd: Rc::new(root),
            own: own.then(|| OwnTree::of(builder.owner())),
            attributes,
        });
        builder.create_all()?;
        Ok(builder)
    }

    /// No tree of the run's own: the host's, of which Landlock shall let through what every
    /// program needs and no rule names.
    fn stay(&mut self) -> Result<(), EnforceError> {
        for (name, _) in DEVICES {
            let node = open_path(&Path::new("/dev").join(name.to_string_lossy().as_ref()))?;
            self.keep(node, Private::Device)?;
        }
        self.keep(open_path(Path::new("/proc"))?, Private::Tree(READ))?;
        self.create_all()
    }

    fn create_all(&mut self) -> Result<(), EnforceError> {
        let plan = self.plan;
        for (parent, path) in &plan.view.create {
            self.create(parent, path)?;
        }
        Ok(())
    }

    /// Who owns what is nobody's: root, but where the run has no uid but one.
    fn owner(&self) -> (u32, u32) {
        match self.plan.means {
            Means::Root => (0, 0),
            Means::UserNamespace | Means::Alone => (self.identity.uid, self.identity.gid),
        }
    }

    /// Builds one mount.
    pub(super) fn add_mount(&mut self, wanted: &Mount) -> Result<(), EnforceError> {
        let at = wanted.at.as_path();
        match &wanted.source {
            Source::Generated(content) => return self.add_file(at, content),
            Source::Cover => return self.cover(at),
            _ => {}
        }
        let directory = match &wanted.source {
            Source::Bind(object) => object.kind == Kind::Directory,
            _ => true,
        };
        let place = self.make_place(at, directory, wanted.row)?;
        let failed = |source| mount_error(self.plan, at, wanted.row, source);
        let mut attributes = mount::NO_SUID;
        for (set, attribute) in [
            (wanted.read_only, mount::READ_ONLY),
            (wanted.no_exec, mount::NO_EXEC),
            (!wanted.devices, mount::NO_DEV),
        ] {
            attributes |= if set { attribute } else { 0 };
        }
        let agent = (self.identity.uid, self.identity.gid);
        let (fd, owner) = match &wanted.source {
            Source::Proc => {
                self.items.push(Item {
                    mount: None,
                    place,
                    name: name(self.plan, at, wanted.row),
                    attributes,
                    bytes: None,
                });
                return Ok(());
            }
            Source::Generated(_) | Source::Cover => return Ok(()),
            Source::Bind(object) | Source::Created { parent: object, .. } => {
                let fd = self.bind(object, wanted, attributes)?;
                self.push(at, fd, place, None, attributes, wanted.row);
                return Ok(());
            }
            Source::Devpts => {
                let fd = tree::devpts(agent.1).map_err(failed)?;
                self.devpts = Some(fd.try_clone().map_err(cloned).map_err(failed)?);
                self.allow(&fd, Private::Devices)?;
                (fd, agent)
            }
            Source::Dev => {
                attributes &= !mount::NO_DEV;
                let fd = self.devices().map_err(failed)?;
                self.allow(&fd, Private::Devices)?;
                (fd, self.owner())
            }
            Source::Tmpfs { size, mode } => {
                let fd = tree::tmpfs(
                    *size,
                    *mode,
                    agent.0,
                    agent.1,
                    attributes & !mount::READ_ONLY,
                )
                .map_err(failed)?;
                self.allow(&fd, Private::Tree(rights(wanted)))?;
                (fd, agent)
            }
            Source::Disk { size, mode } => {
                let fd = disk::ext4(*size, *mode, agent, attributes & !mount::READ_ONLY).map_err(
                    |source| EnforceError::Disk {
                        path: at.to_owned(),
                        source,
                    },
                )?;
                self.allow(&fd, Private::Tree(rights(wanted)))?;
                (fd, agent)
            }
        };
        self.push(at, fd, place, Some(owner), attributes, wanted.row);
        if matches!(wanted.source, Source::Dev) && self.plan.means != Means::Root {
            self.bind_devices(at)?;
        }
        if let (Source::Tmpfs { size, .. } | Source::Disk { size, .. }, Some(item)) =
            (&wanted.source, self.items.last_mut())
        {
            item.bytes = Some(*size);
        }
        Ok(())
    }

    /// The directory in which the agent reads what it may do and what was denied.
    pub(super) fn add_self(&mut self, directory: &Path) -> Result<(), EnforceError> {
        let at = Path::new("/run/lp-run/self");
        let place = self.make_place(at, true, None)?;
        let attributes = BOUND | mount::READ_ONLY | mount::NO_EXEC;
        let bound = open_path(directory)
            .and_then(|fd| mount::clone_tree(&fd, false))
            .and_then(|fd| mount::set_attributes(&fd, attributes, false).map(|()| fd))
            .map_err(|source| mount_error(self.plan, at, None, source))?;
        self.allow(&bound, Private::Tree(READ))?;
        self.push(at, bound, place, None, attributes, None);
        Ok(())
    }

    /// The secrets, each the agent's to read, on a file system that goes with the run. Not read-only:
    /// lp-run takes them away through this very mount. The directory is not the agent's, and
    /// Landlock lets it read alone.
    pub(super) fn add_secrets(&mut self, secrets: &[(&str, &[u8])]) -> Result<(), EnforceError> {
        let at = Path::new(SECRETS_DIR);
        let place = self.make_place(at, true, None)?;
        let failed = |source| mount_error(self.plan, at, None, source);
        let attributes = BOUND | mount::NO_EXEC;
        let owner = self.owner();
        let bytes = secrets.iter().map(|(_, value)| value.len() as u64 + 8192);
        let fd = tree::tmpfs(bytes.sum(), 0o755, owner.0, owner.1, attributes).map_err(failed)?;
        for (name, value) in secrets {
            let name = tree::text(name.as_bytes())?;
            tree::make_file(
                &fd,
                &name,
                value,
                0o400,
                self.identity.uid,
                self.identity.gid,
            )
            .map_err(failed)?;
        }
        self.secrets = Some(fd.try_clone().map_err(cloned).map_err(failed)?);
        self.allow(&fd, Private::Tree(READ))?;
        self.push(at, fd, place, None, attributes, None);
        Ok(())
    }

    /// A file that lp-run writes: made in an own tree, or bound over the one that is there.
    pub(super) fn add_file(
        &mut self,
        path: &Path,
        content: &Generated,
    ) -> Result<(), EnforceError> {
        // A name of the host's tree may be a link, as /etc/resolv.conf often is; the file then
        // stands where the link leads.
        let content = self.content(content);
        let path = match self.plan.view.kind {
            ViewChoice::Host => fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
            ViewChoice::Private => path.to_owned(),
        };
        let tree = self.covering(&path);
        if let Some(own) = &tree.own {
            let relative = below(tree, &path)?;
            let owner = self.owner();
            let made = own
                .make_parents(&tree.fd, &relative)
                .and_then(|()| {
                    tree::make_file(&tree.fd, &relative, &content, 0o644, owner.0, owner.1)
                })
                .and_then(|()| open_beneath(&tree.fd, &relative, libc::O_PATH, 0))
                .map_err(|source| place_error(self.plan, &path, None, source))?;
            return self.keep(made, Private::File);
        }
        let place = self.make_place(&path, false, None)?;
        let attributes = BOUND | mount::READ_ONLY | mount::NO_EXEC;
        let bound = self.write_file(&content, 0o644).and_then(|file| {
            mount::clone_tree(&file, false)
                .and_then(|fd| mount::set_attributes(&fd, attributes, false).map(|()| fd))
                .map_err(|source| mount_error(self.plan, &path, None, source))
        })?;
        self.allow(&bound, Private::File)?;
        self.push(&path, bound, place, None, attributes, None);
        Ok(())
    }

    /// Something empty over a mount point in a bound tree. What the mount hides on the host
    /// stays hidden, and nothing is written where nobody would find it.
    fn cover(&mut self, at: &Path) -> Result<(), EnforceError> {
        let tree = self.covering(at);
        let point = open_beneath(&tree.fd, &below(tree, at)?, libc::O_PATH, 0)
            .and_then(|fd| stat::fstat(&fd).map_err(tree::failed("fstat")))
            .map_err(|source| place_error(self.plan, at, None, source))?;
        let kind = SFlag::from_bits_truncate(point.st_mode) & SFlag::S_IFMT;
        if kind != SFlag::S_IFDIR {
            return self.add_file(at, &Generated::Bytes(Vec::new()));
        }
        let place = self.make_place(at, true, None)?;
        let attributes = BOUND | mount::READ_ONLY | mount::NO_EXEC;
        let owner = self.owner();
        let open = attributes & !mount::READ_ONLY;
        let fd = tree::tmpfs(COVER_BYTES, 0o755, owner.0, owner.1, open)
            .map_err(|source| mount_error(self.plan, at, None, source))?;
        self.push(at, fd, place, Some(owner), attributes, None);
        Ok(())
    }

    /// Hides something, or keeps it from being changed.
    pub(super) fn add_mask(&mut self, mask: &Mask) -> Result<(), EnforceError> {
        let at = mask.path.as_path();
        let place = self.make_place(at, mask.directory, Some(mask.row))?;
        let failed = |source| mount_error(self.plan, at, Some(mask.row), source);
        // A protected object keeps what its surroundings allow, but for change; a denied one
        // is covered by something of root's that nobody else may open.
        let attributes = self.covering(at).attributes | BOUND | mount::READ_ONLY;
        let owner = self.owner();
        let fd = match (mask.read_stays, mask.directory) {
            (true, _) => {
                let fd = mount::clone_tree(self.reach(&mask.object)?.as_fd(), false)
                    .and_then(|fd| mount::set_attributes(&fd, attributes, false).map(|()| fd))
                    .map_err(failed)?;
                self.map(&fd, mask.idmap, &mask.object, at, Some(mask.row))?;
                fd
            }
            (false, true) => tree::tmpfs(4096, 0, owner.0, owner.1, attributes).map_err(failed)?,
            (false, false) => {
                let file = self.write_file(b"", 0)?;
                mount::clone_tree(&file, false)
                    .and_then(|fd| mount::set_attributes(&fd, attributes, false).map(|()| fd))
                    .map_err(failed)?
            }
        };
        self.push(at, fd, place, None, attributes, Some(mask.row));
        Ok(())
    }

    /// A directory in an own tree that no mount implies.
    pub(super) fn add_directory(&mut self, path: &Path, mode: u32) -> Result<(), EnforceError> {
        let tree = self.covering(path);
        let Some(own) = &tree.own else {
            return Ok(());
        };
        let relative = below(tree, path)?;
        own.make_parents(&tree.fd, &relative)
            .and_then(|()| own.make_directory(&tree.fd, &relative, mode))
            .map_err(|source| place_error(self.plan, path, None, source))
    }

    /// A symbolic link in an own tree; one in a bound tree is there already.
    pub(super) fn add_link(&mut self, path: &Path, says: &Path) -> Result<(), EnforceError> {
        let tree = self.covering(path);
        let Some(own) = &tree.own else {
            return Ok(());
        };
        let relative = below(tree, path)?;
        own.make_parents(&tree.fd, &relative)
            .and_then(|()| tree::make_link(&tree.fd, &relative, says))
            .map_err(|source| place_error(self.plan, path, None, source))
    }

    /// Puts the attributes of the own trees in force: nothing more is made in them.
    pub(super) fn finish(self, root_place: CString) -> Result<PreparedView, EnforceError> {
        for tree in self.trees.iter().filter(|tree| tree.own.is_some()) {
            mount::set_attributes(&tree.fd, tree.attributes, false)
                .map_err(|source| mount_error(self.plan, &tree.at, None, source))?;
        }
        let root = self.trees.first().map(|tree| Root {
            mount: Rc::clone(&tree.fd),
            attributes: tree.attributes,
            place: root_place,
        });
        Ok(PreparedView {
            root,
            items: self.items,
            private: self.private,
            created: self.created,
            devpts: self.devpts,
            secrets: self.secrets,
        })
    }

    /// A clone of a granted tree with its attributes and, where it is another's, its ids
    /// mapped.
    fn bind(
        &mut self,
        object: &Object,
        wanted: &Mount,
        attributes: u64,
    ) -> Result<OwnedFd, EnforceError> {
        let at = wanted.at.as_path();
        let failed = |source| mount_error(self.plan, at, wanted.row, source);
        let from = match &wanted.source {
            Source::Created { path, .. } => Reach::Held(self.created_at(path)?),
            _ => self.reach(object)?,
        };
        // What is mounted below is nobody's to grant: it has a rule of its own, or is covered.
        let fd = mount::clone_tree(from.as_fd(), false).map_err(failed)?;
        mount::set_attributes(&fd, attributes, false).map_err(failed)?;
        self.map(&fd, wanted.idmap, object, at, wanted.row)?;
        Ok(fd)
    }

    /// Lets the files of an owner be the agent's in a clone.
    fn map(
        &mut self,
        clone: &OwnedFd,
        owner: Option<IdMap>,
        object: &Object,
        at: &Path,
        row: Option<Row>,
    ) -> Result<(), EnforceError> {
        let Some(owner) = owner else { return Ok(()) };
        let agent = (self.identity.uid, self.identity.gid);
        self.namespaces
            .swapping(owner, agent)
            .and_then(|namespace| mount::map_ids(clone, &*namespace))
            .map_err(|source| EnforceError::IdMap {
                path: at.to_owned(),
                rule: rule(self.plan, row),
                filesystem: object.filesystem.clone(),
                source,
            })
    }

    /// Makes the directory of a `create = "dir"` grant, component by component, following no
    /// link; what is there already is taken as it is.
    fn create(&mut self, parent: &Object, path: &Path) -> Result<(), EnforceError> {
        let failed = |source| EnforceError::Create {
            path: path.to_owned(),
            source,
        };
        let below = path.strip_prefix(&parent.path).unwrap_or(path);
        let mut fd = match self.reach(parent)? {
            Reach::Held(fd) => fd.try_clone_to_owned().map_err(cloned).map_err(failed)?,
            Reach::Again(fd) => fd,
        };
        for component in below.components() {
            let name = tree::text(component.as_os_str().as_encoded_bytes()).map_err(failed)?;
            tree::make_directory(&fd, &name, 0o700, parent.uid, parent.gid).map_err(failed)?;
            fd = open_beneath(&fd, &name, libc::O_PATH | libc::O_DIRECTORY, 0).map_err(failed)?;
        }
        self.created.push((path.to_owned(), fd));
        Ok(())
    }

    /// A descriptor of `object` through a mount that may be cloned. Those of the policy were opened
    /// in the mount namespace that an lp-run without root has left: there the object is opened
    /// again by its path, and must be the same.
    fn reach<'o>(&self, object: &'o Object) -> Result<Reach<'o>, EnforceError> {
        let held = opened(object)?;
        if self.plan.means != Means::UserNamespace {
            return Ok(Reach::Held(held));
        }
        let root = open_path(Path::new("/"))?;
        let again = open_beneath(&root, &tree::relative(&object.path)?, PLACE, 0)?;
        let number = |fd: BorrowedFd<'_>| {
            stat::fstat(fd)
                .map(|stat| (stat.st_dev, stat.st_ino))
                .map_err(tree::failed("fstat"))
        };
        match number(held)? == number(again.as_fd())? {
            true => Ok(Reach::Again(again)),
            false => Err(EnforceError::Replaced(object.path.clone())),
        }
    }

    /// A private `/dev`, with the harmless nodes, or places for them where nobody but root makes
    /// nodes.
    fn devices(&self) -> Result<OwnedFd, SysError> {
        let (uid, gid) = self.owner();
        let fd = tree::tmpfs(1 << 20, 0o755, uid, gid, mount::NO_SUID | mount::NO_EXEC)?;
        for (name, numbers) in DEVICES {
            match self.plan.means {
                Means::Root => tree::make_device(&fd, name, numbers)?,
                Means::UserNamespace | Means::Alone => {
                    tree::make_file(&fd, name, b"", 0o600, uid, gid)?;
                }
            }
        }
        for (name, says) in DEVICE_LINKS {
            tree::make_link(&fd, name, Path::new(says))?;
        }
        Ok(fd)
    }

    /// The host's own nodes, bound into a `/dev` without any.
    fn bind_devices(&mut self, dev: &Path) -> Result<(), EnforceError> {
        let attributes = mount::NO_SUID | mount::NO_EXEC;
        for (name, numbers) in DEVICES {
            let at = dev.join(name.to_string_lossy().as_ref());
            let failed = |source| mount_error(self.plan, &at, None, source);
            let node = open_path(&at).map_err(failed)?;
            let found = stat::fstat(&node)
                .map_err(tree::failed("fstat"))
                .map_err(failed)?;
            if found.st_rdev != stat::makedev(numbers.0, numbers.1) {
                return Err(EnforceError::Replaced(at));
            }
            let fd = mount::clone_tree(&node, false)
                .and_then(|fd| mount::set_attributes(&fd, attributes, false).map(|()| fd))
                .map_err(failed)?;
            let place = tree::relative(&at)?;
            self.push(&at, fd, place, None, attributes, None);
        }
        Ok(())
    }

    fn created_at(&self, path: &Path) -> Result<BorrowedFd<'_>, EnforceError> {
        let made = self.created.iter().find(|(made, _)| made == path);
        made.map(|(_, fd)| fd.as_fd())
            .ok_or_else(|| EnforceError::NotOpened(path.to_owned()))
    }

    /// What a file of lp-run's says, now that the agent's ids are known.
    fn content(&self, what: &Generated) -> Vec<u8> {
        let (account, identity) = (&self.plan.account, self.identity);
        match what {
            Generated::Bytes(bytes) => bytes.clone(),
            Generated::Passwd => account.passwd(identity.uid, identity.gid),
            Generated::Group => account.group(identity.gid),
        }
    }

    /// The tree that stands at `path` so far.
    fn covering(&self, path: &Path) -> &Tree {
        let above = path.ancestors().filter_map(|above| self.places.get(above));
        &self.trees[above.max().copied().unwrap_or(0)]
    }

    fn stand(&mut self, tree: Tree) {
        self.places.insert(tree.at.clone(), self.trees.len());
        self.trees.push(tree);
    }

    /// The place for a mount: made in an own tree, looked up in a bound one. Gives the path
    /// below the root.
    fn make_place(
        &self,
        at: &Path,
        directory: bool,
        row: Option<Row>,
    ) -> Result<CString, EnforceError> {
        let tree = self.covering(at);
        let relative = below(tree, at)?;
        let made = match (&tree.own, directory) {
            (None, _) => open_beneath(&tree.fd, &relative, PLACE, 0).map(drop),
            (Some(own), true) => own
                .make_parents(&tree.fd, &relative)
                .and_then(|()| own.make_directory(&tree.fd, &relative, 0o755)),
            (Some(own), false) => own
                .make_parents(&tree.fd, &relative)
                .and_then(|()| tree::make_place(&tree.fd, &relative)),
        };
        made.map_err(|source| place_error(self.plan, at, row, source))?;
        Ok(tree::relative(at)?)
    }

    fn push(
        &mut self,
        at: &Path,
        fd: OwnedFd,
        place: CString,
        own: Option<(u32, u32)>,
        attributes: u64,
        row: Option<Row>,
    ) {
        let fd = Rc::new(fd);
        self.items.push(Item {
            mount: Some(Rc::clone(&fd)),
            place,
            name: name(self.plan, at, row),
            attributes,
            bytes: None,
        });
        self.stand(Tree {
            at: at.to_owned(),
            fd,
            own: own.map(OwnTree::of),
            attributes,
        });
    }

    fn allow(&mut self, fd: &OwnedFd, what: Private) -> Result<(), EnforceError> {
        let fd = fd.try_clone().map_err(cloned)?;
        self.keep(fd, what)
    }

    fn keep(&mut self, fd: OwnedFd, what: Private) -> Result<(), EnforceError> {
        self.private.push((fd, what));
        Ok(())
    }

    /// A file in the run's own directory on the host, to be bound into the view.
    fn write_file(&mut self, content: &[u8], mode: u32) -> Result<OwnedFd, EnforceError> {
        let path = self.run_dir.join("files").join(self.files.to_string());
        self.files += 1;
        let write = || {
            let mut options = fs::OpenOptions::new();
            let file = options
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path)?;
            std::io::Write::write_all(&mut &file, content)?;
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
        };
        write().map_err(|source| EnforceError::State {
            path: path.clone(),
            source,
        })?;
        Ok(open_path(&path)?)
    }
}

/// An object, through a mount of the mount namespace that lp-run lives in.
enum Reach<'a> {
    /// As the policy opened it.
    Held(BorrowedFd<'a>),
    /// Opened again.
    Again(OwnedFd),
}

impl Reach<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Held(fd) => *fd,
            Self::Again(fd) => fd.as_fd(),
        }
    }
}

const READ: Rights = Rights {
    read: true,
    write: false,
    exec: false,
};

/// What a tmpfs of the run's own is for.
fn rights(wanted: &Mount) -> Rights {
    Rights {
        read: true,
        write: !wanted.read_only,
        exec: !wanted.no_exec,
    }
}

/// The new root: an empty tmpfs, or the host's tree with nothing to change in it.
fn root(plan: &Plan, owner: (u32, u32)) -> Result<OwnedFd, SysError> {
    match plan.view.kind {
        ViewChoice::Private => {
            tree::tmpfs(4 << 20, 0o755, owner.0, owner.1, BOUND | mount::NO_EXEC)
        }
        ViewChoice::Host => {
            let fd = mount::clone_tree(open_path(Path::new("/"))?, true)?;
            mount::set_attributes(&fd, BOUND | mount::READ_ONLY, true)?;
            Ok(fd)
        }
    }
}

fn open_path(path: &Path) -> Result<OwnedFd, SysError> {
    use nix::fcntl::OFlag;
    nix::fcntl::open(
        path,
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )
    .map_err(tree::failed("open"))
}

fn opened(object: &Object) -> Result<BorrowedFd<'_>, EnforceError> {
    match &object.fd {
        Some(fd) => Ok(fd.as_fd()),
        None => Err(EnforceError::NotOpened(object.path.clone())),
    }
}

fn cloned(source: std::io::Error) -> SysError {
    SysError {
        call: "fcntl",
        source,
    }
}

fn below(tree: &Tree, path: &Path) -> Result<CString, SysError> {
    tree::relative(path.strip_prefix(&tree.at).unwrap_or(path))
}

fn rule(plan: &Plan, row: Option<Row>) -> Option<String> {
    row.and_then(|row| plan.rules.get(row as usize))
        .map(|rule| rule.info.key.clone())
}

fn name(plan: &Plan, at: &Path, row: Option<Row>) -> String {
    match rule(plan, row) {
        Some(rule) => format!("`{}` ({rule})", at.display()),
        None => format!("`{}`", at.display()),
    }
}

fn mount_error(plan: &Plan, at: &Path, row: Option<Row>, source: SysError) -> EnforceError {
    EnforceError::Mount {
        path: at.to_owned(),
        rule: rule(plan, row),
        source,
    }
}

fn place_error(plan: &Plan, at: &Path, row: Option<Row>, source: SysError) -> EnforceError {
    EnforceError::Place {
        path: at.to_owned(),
        rule: rule(plan, row),
        source,
    }
}
