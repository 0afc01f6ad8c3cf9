// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loader that a granted program starts through: a program without it exists in the run and
//! cannot be started, which the kernel says as if the program itself were missing.

use std::path::{Path, PathBuf};

use super::super::facts::{Facts, Kind, Object};
use super::super::model::{FileRule, Target, Verb};
use super::{Resolver, settings};

/// Of a program's start, what is read: headers and the loader's name are there.
const START: usize = 4096;

impl Resolver<'_> {
    /// Warns of programs whose loader no rule grants.
    pub(super) fn check_loaders(&mut self, files: &[FileRule]) {
        for rule in files.iter().filter(|rule| rule.verb == Verb::Exec) {
            let programs = rule.targets.iter().filter_map(|target| match target {
                Target::Object(object) if object.kind == Kind::File => Some(object),
                _ => None,
            });
            for program in programs {
                if let Some(loader) = self.missing_loader(program, files) {
                    let what = format!(
                        "{}: `{}` cannot start without `{}`, which no rule grants; add read = \
                         [\"${{BASE}}\"] to [files]",
                        rule.info.key,
                        program.path.display(),
                        loader.display()
                    );
                    self.warnings.push((rule.info.place.clone(), what));
                }
            }
        }
    }

    fn missing_loader(&self, program: &Object, files: &[FileRule]) -> Option<PathBuf> {
        // With the caller's own rights: this only looks.
        let read = |facts: &dyn Facts| facts.read_object(program, START);
        let loader = loader(&self.look(true, read).ok()?)?;
        let found = self.open_program(&loader, false).ok()?.object;
        let granted = files.iter().any(|rule| {
            matches!(rule.verb, Verb::Read | Verb::Exec) && settings::covers(rule, &found.path)
        });
        (!granted).then_some(loader)
    }
}

/// What `PT_INTERP` of a 64-bit program names (elf(5)). Total over any bytes.
fn loader(bytes: &[u8]) -> Option<PathBuf> {
    const PT_INTERP: usize = 3;
    let number = |at: usize, length: usize| {
        let field = bytes.get(at..at.checked_add(length)?)?;
        let value = field
            .iter()
            .rev()
            .fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        usize::try_from(value).ok()
    };
    // ELFCLASS64, ELFDATA2LSB: what this program runs on.
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (first, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let headers = (0..count.min(64)).map_while(|index| first.checked_add(index * size));
    let interp = headers
        .into_iter()
        .find(|at| number(*at, 4) == Some(PT_INTERP))?;
    let start = number(interp.checked_add(8)?, 8)?;
    let length = number(interp.checked_add(32)?, 8)?;
    let name = bytes.get(start..start.checked_add(length)?)?;
    let name = std::str::from_utf8(name.strip_suffix(b"\0")?).ok()?;
    Path::new(name).is_absolute().then(|| PathBuf::from(name))
}

#[cfg(test)]
pub(in crate::policy) mod tests {
    use super::*;

    /// A program that starts through `loader`, as far as the headers go.
    pub fn program(loader: &str) -> String {
        let mut bytes = vec![0_u8; 120];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (bytes[32], bytes[54], bytes[56]) = (64, 56, 1);
        (bytes[64], bytes[72], bytes[96]) = (3, 120, loader.len() as u8 + 1);
        String::from_utf8(bytes).unwrap() + loader + "\0"
    }

    #[test]
    fn the_loader_is_what_the_program_names() {
        let name = "/lib64/ld-linux-x86-64.so.2";
        let good = program(name).into_bytes();
        assert_eq!(loader(&good), Some(name.into()));
        assert_eq!(loader(b"#!/bin/sh\n"), None);
        assert_eq!(loader(program("ld.so").as_bytes()), None);
        for at in 0..good.len() {
            assert_eq!(loader(&good[..at]), None, "{at} bytes");
            for value in [0, 0x7f, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = loader(&bytes);
            }
        }
    }
}
