// SPDX-License-Identifier: MIT OR Apache-2.0
//! `${PYTHON}` and `${PYTHON_LIB}`: the python of `PATH` and of the command, with the libraries
//! that belong to it; the virtual environment around it, if it has one.

use std::path::{Path, PathBuf};

use super::super::facts::{Kind, Need, Object};
use super::super::layers::Layer;
use super::Resolver;
use super::command::{Program, is_program};

impl Resolver<'_> {
    /// The interpreters; of those that root did not choose, what the caller may use himself.
    pub(super) fn pythons(&self, layer: &Layer) -> Vec<Object> {
        let mut found: Vec<Object> = Vec::new();
        for program in self.python_names() {
            let object = program.object;
            let may = |need| self.caller_may(&object, need);
            let lent = !program.held || may(Need::Run) && may(Need::Read);
            if !lent || !self.may_be_typed(layer, &object) {
                continue;
            }
            match found.iter_mut().find(|known| known.path == object.path) {
                Some(known) => {
                    let new = object
                        .links
                        .into_iter()
                        .filter(|link| !known.links.contains(link));
                    let new: Vec<_> = new.collect();
                    known.links.extend(new);
                }
                None => found.push(object),
            }
        }
        found
    }

    /// Their libraries.
    pub(super) fn python_libraries(&self) -> Vec<Object> {
        let mut places = Vec::new();
        for Program { path, object, .. } in self.python_names() {
            // PREFIX/bin/pythonX.Y has its libraries in PREFIX/lib/pythonX.Y.
            let version = object
                .path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if let Some(prefix) = object.path.parent().and_then(Path::parent) {
                for library in ["lib", "lib64"] {
                    places.push(prefix.join(library).join(&version));
                    places.push(prefix.join(library).join("python3"));
                }
                if prefix != Path::new("/usr") {
                    places.push(prefix.join("lib"));
                }
            }
            places.push(Path::new("/usr/local/lib").join(&version));
            places.push(Path::new("/usr/lib").join(&version));
            places.push(PathBuf::from("/usr/lib/python3"));
            places.push(PathBuf::from("/usr/share/python3"));
            places.push(Path::new("/etc").join(&version));
            // venv: BASE/bin/python is a link, and BASE/pyvenv.cfg stands beside bin.
            if let Some(base) = path.parent().and_then(Path::parent)
                && let Ok(marker) = self.open_program(&base.join("pyvenv.cfg"), true)
                && marker.object.kind == Kind::File
            {
                places.push(base.to_owned());
            }
        }
        let mut found: Vec<Object> = Vec::new();
        for place in places {
            if let Ok(object) = self.open(true, &place, &self.trusted())
                && object.kind == Kind::Directory
                && object.path.components().count() > 2
                && self.caller_may(&object, Need::Read)
                && !found.iter().any(|known| known.path == object.path)
            {
                found.push(object);
            }
        }
        found
    }

    /// Each name of a python with what it leads to.
    fn python_names(&self) -> Vec<Program> {
        let mut names: Vec<PathBuf> = Vec::new();
        for name in ["python3", "python"] {
            names.extend(self.in_path(name, false).map(|found| found.path));
        }
        if let Some(command) = &self.command {
            names.push(command.path.clone());
            names.extend(
                command
                    .interpreters
                    .iter()
                    .map(|object| object.path.clone()),
            );
        }
        let mut found = Vec::new();
        for name in names {
            let Ok(program) = self.open_program(&name, false) else {
                continue;
            };
            let python = program
                .object
                .path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("python"));
            if python && is_program(&program.object) {
                found.push(program);
            }
        }
        found
    }
}
