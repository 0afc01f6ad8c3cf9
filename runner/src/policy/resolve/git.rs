// SPDX-License-Identifier: MIT OR Apache-2.0
//! `${GIT_DIR}`: the git directory of the work tree and, for a linked work tree, the main one.
//!
//! Found by reading files, never by running git. The agent of an earlier run could have
//! rewritten the `.git` file, so what it names is accepted only when it points back
//! (gitrepository-layout(5)), and all of it is looked at with the caller's own rights.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::super::facts::{Kind, Object};
use super::Resolver;

/// Longest `.git` file, `commondir` or `config` that is read.
const LONGEST: usize = 65_536;

impl Resolver<'_> {
    /// The git directories of the work directory's repository, the work tree's own first.
    /// Empty where there is none; an error where there is one that cannot be trusted.
    pub(super) fn git_dirs(&self) -> Result<Vec<PathBuf>, String> {
        // Never above the work directory: an agent that moves its own `.git` away would be given
        // that of the repository around it.
        let tree = self.workdir.clone();
        let Ok(entry) = self.open(true, &tree.join(".git"), &[]) else {
            return Ok(Vec::new());
        };
        if entry.path != tree.join(".git") {
            return Err(format!(
                "{}/.git is a symbolic link; make it a directory",
                tree.display()
            ));
        }
        match entry.kind {
            Kind::Directory if self.is_git_dir(&entry.path) => Ok(vec![entry.path]),
            Kind::File => self.linked(&tree, &entry),
            _ => Err(format!("{}/.git is no git directory", tree.display())),
        }
    }

    fn linked(&self, tree: &Path, file: &Object) -> Result<Vec<PathBuf>, String> {
        let wrong = |what: &str| Err(format!("{}/.git {what}", tree.display()));
        let text = self.text(file);
        let Some(named) = text
            .as_deref()
            .and_then(|text| text.strip_prefix("gitdir:"))
        else {
            return wrong("is a file that names no git directory");
        };
        let git_dir = match self.open(true, &tree.join(named.trim()), &[]) {
            Ok(object) if object.kind == Kind::Directory => object.path,
            _ => return wrong("names a git directory that does not exist"),
        };
        match git_dir.parent().and_then(Path::file_name) {
            Some(parent) if parent == "worktrees" => self.worktree(tree, &git_dir),
            _ => self.submodule(tree, &git_dir),
        }
        .ok_or_else(|| {
            format!(
                "{}/.git names {}, which does not point back",
                tree.display(),
                git_dir.display()
            )
        })
    }

    /// `MAIN/worktrees/NAME`: its `gitdir` names the work tree's `.git`, its `commondir` MAIN.
    fn worktree(&self, tree: &Path, git_dir: &Path) -> Option<Vec<PathBuf>> {
        let back = self.text(&self.found(&git_dir.join("gitdir"))?)?;
        let back = git_dir.join(back.trim());
        let main = git_dir.parent()?.parent()?.to_owned();
        let common = self.text(&self.found(&git_dir.join("commondir"))?)?;
        let common = self.found(&git_dir.join(common.trim()))?.path;
        let agrees = self.found(&back)?.path == tree.join(".git") && common == main;
        (agrees && self.is_git_dir(&main)).then(|| vec![git_dir.to_owned(), main])
    }

    /// `SUPER/.git/modules/NAME`: its `core.worktree` names the work tree.
    fn submodule(&self, tree: &Path, git_dir: &Path) -> Option<Vec<PathBuf>> {
        let modules = git_dir
            .components()
            .any(|part| part.as_os_str() == OsStr::new("modules"));
        let config = self.text(&self.found(&git_dir.join("config"))?)?;
        let setting = |line: &str| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == "worktree").then(|| value.trim().trim_matches('"').to_owned())
        };
        let named = config.lines().find_map(setting)?;
        let back = self.found(&git_dir.join(named))?.path;
        (modules && back == tree && self.is_git_dir(git_dir)).then(|| vec![git_dir.to_owned()])
    }

    fn is_git_dir(&self, path: &Path) -> bool {
        ["HEAD", "objects", "refs"]
            .iter()
            .all(|name| self.found(&path.join(name)).is_some())
    }

    /// Links of nobody but root are followed: the work tree is where an agent writes.
    fn found(&self, path: &Path) -> Option<Object> {
        self.open(true, path, &[]).ok()
    }

    fn text(&self, object: &Object) -> Option<String> {
        let read = self.look(true, |facts| facts.read_object(object, LONGEST));
        String::from_utf8(read.ok()?).ok()
    }
}
