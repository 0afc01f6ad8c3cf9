// SPDX-License-Identifier: MIT OR Apache-2.0
//! `${BASE}`: what dynamically linked programs of this distribution need to start. The only
//! program in it is the loader; devices, `/proc` and the generated files of `/etc` are the
//! view's.

use std::path::{Path, PathBuf};

use super::super::below::is_same;
use super::super::facts::{Facts, Kind, Object};
use super::Resolver;

/// Library directories whatever the distribution; those of `/etc/ld.so.conf` are added.
#[cfg(target_arch = "x86_64")]
const LIBRARIES: [&str; 5] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/local/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
];
/// Library directories whatever the distribution; those of `/etc/ld.so.conf` are added.
#[cfg(not(target_arch = "x86_64"))]
const LIBRARIES: [&str; 5] = [
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/local/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
];

/// Loaders of glibc and musl, by the paths that programs name (`PT_INTERP`, elf(5)), also of
/// programs for the smaller machines that the kernel runs as well; and the library directory, where
/// distributions keep what those paths lead to. By name: a list of the directory has thousands.
#[cfg(target_arch = "x86_64")]
const LOADERS: [&str; 7] = [
    "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-musl-x86_64.so.1",
    "/libx32/ld-linux-x32.so.2",
    "/lib/ld-linux-x32.so.2",
    "/lib/ld-linux.so.2",
    "/lib/ld-musl-i386.so.1",
];
/// Loaders of glibc and musl, by the paths that programs name (`PT_INTERP`, elf(5)), also of
/// programs for the smaller machines that the kernel runs as well; and the library directory, where
/// distributions keep what those paths lead to. By name: a list of the directory has thousands.
#[cfg(not(target_arch = "x86_64"))]
const LOADERS: [&str; 5] = [
    "/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-musl-aarch64.so.1",
    "/lib/ld-linux-armhf.so.3",
    "/lib/ld-musl-armhf.so.1",
];

/// Everything else, each where it exists.
const READ: [&str; 34] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/locale.conf",
    "/etc/locale.alias",
    "/etc/default/locale",
    "/etc/os-release",
    "/etc/debian_version",
    "/etc/services",
    "/etc/protocols",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/terminfo",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/openssl.cnf",
    "/etc/pki/ca-trust/extracted",
    "/etc/ca-certificates/extracted",
    "/etc/crypto-policies",
    "/usr/lib/locale",
    "/usr/lib/terminfo",
    "/lib/terminfo",
    "/usr/lib/ssl",
    "/usr/share/locale",
    "/usr/share/zoneinfo",
    "/usr/share/terminfo",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/sys/devices/system/cpu/online",
];

/// Most directories of `/etc/ld.so.conf`.
const MOST_CONFIGURED: usize = 64;

impl Resolver<'_> {
    /// The objects of `${BASE}`: everything, and of it the loaders. Looked for once.
    pub(super) fn base(&self) -> &(Vec<Object>, Vec<Object>) {
        self.base.get_or_init(|| self.find_base())
    }

    fn find_base(&self) -> (Vec<Object>, Vec<Object>) {
        let mut all = Objects::default();
        let mut loaders = Objects::default();
        for place in LOADERS {
            loaders.add(self.facts, Path::new(place), &[Kind::File]);
        }
        let musl = loaders
            .0
            .iter()
            .any(|loader| loader.path.to_string_lossy().contains("ld-musl"));
        let musl: &[&str] = if musl { &["/lib", "/usr/lib"] } else { &[] };
        for place in LIBRARIES.iter().chain(musl) {
            all.add(self.facts, Path::new(place), &[Kind::Directory]);
        }
        for place in configured(self.facts) {
            all.add(self.facts, &place, &[Kind::Directory]);
        }
        for place in READ {
            all.add(self.facts, Path::new(place), &[Kind::Directory, Kind::File]);
        }
        for loader in &loaders.0 {
            all.merge(loader.clone());
        }
        (all.0, loaders.0)
    }
}

/// Objects by path, each once, with the links of all its names.
#[derive(Default)]
struct Objects(Vec<Object>);

impl Objects {
    fn add(&mut self, facts: &dyn Facts, path: &Path, kinds: &[Kind]) {
        if let Ok(object) = facts.open(path, &[])
            && kinds.contains(&object.kind)
        {
            self.merge(object);
        }
    }

    fn merge(&mut self, object: Object) {
        match self
            .0
            .iter_mut()
            .find(|known| is_same(&known.path, &object.path))
        {
            Some(known) => {
                for link in object.links {
                    if !known.links.contains(&link) {
                        known.links.push(link);
                    }
                }
            }
            None => self.0.push(object),
        }
    }
}

/// The directories of `/etc/ld.so.conf` and what it includes (ldconfig(8)).
fn configured(facts: &dyn Facts) -> Vec<PathBuf> {
    let mut texts = Vec::new();
    if let Ok(text) = facts.read(Path::new("/etc/ld.so.conf"), 65_536) {
        texts.push(text);
    }
    let included = Path::new("/etc/ld.so.conf.d");
    for name in facts.list(included).unwrap_or_default() {
        if name.ends_with(".conf")
            && let Ok(text) = facts.read(&included.join(name), 65_536)
        {
            texts.push(text);
        }
    }
    let mut found = Vec::new();
    for text in texts {
        for line in String::from_utf8_lossy(&text).lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.starts_with('/') && found.len() < MOST_CONFIGURED {
                found.push(PathBuf::from(line));
            }
        }
    }
    found
}
