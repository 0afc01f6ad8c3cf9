// SPDX-License-Identifier: MIT OR Apache-2.0
//! The values of `[[secret]]`: read last, given to the agent alone, and known to the log by name and
//! fingerprint.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::stat::fstat;
use sha2::{Digest, Sha256};

use super::request::RunRequest;
use crate::policy::facts::{Facts, Object, User};
use crate::policy::model::{Refusal, Secret, SecretForm, SecretSource};
use crate::sys::places;

/// Largest secret, bytes.
const LARGEST: usize = 64 << 10;
/// How far a file's time may lie ahead of the clock.
const AHEAD: Duration = Duration::from_secs(60);
/// Where systemd puts credentials.
const CREDENTIALS: &str = "/run/credentials";
/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// A secret with its value.
pub struct Given {
    /// Its name.
    pub name: String,
    /// As what the agent gets it.
    pub form: SecretForm,
    /// The value; nothing prints it.
    pub value: Vec<u8>,
    /// What the log may have of it.
    pub fingerprint: String,
}

impl Drop for Given {
    fn drop(&mut self) {
        self.value.fill(0);
        // Or the compiler leaves it out: nobody reads what is freed.
        std::hint::black_box(&self.value);
    }
}

/// Reads every secret of a policy. One that is missing, stale or empty refuses the run.
pub fn collect(
    request: &RunRequest,
    facts: &dyn Facts,
    caller: &User,
    secrets: &[Secret],
) -> Result<Vec<Given>, Refusal> {
    let refusal = |secret: &Secret, what: String| Refusal {
        place: secret.place.clone(),
        key: "secret",
        what: format!("{}: {what}", secret.name),
        passes: false,
    };
    let mut given = Vec::new();
    if secrets.is_empty() {
        return Ok(given);
    }
    let key = key(&places::state()).map_err(|error| {
        refusal(
            &secrets[0],
            format!("the key of fingerprints cannot be had: {error}"),
        )
    })?;
    for secret in secrets {
        let value = read(request, facts, caller, secret).map_err(|what| refusal(secret, what))?;
        given.push(Given {
            name: secret.name.clone(),
            form: secret.form.clone(),
            fingerprint: fingerprint(&key, &value),
            value,
        });
    }
    Ok(given)
}

fn read(
    request: &RunRequest,
    facts: &dyn Facts,
    caller: &User,
    secret: &Secret,
) -> Result<Vec<u8>, String> {
    let mut value = match &secret.source {
        SecretSource::File(object) => {
            fresh(object, secret.max_age, facts.now())?;
            content(facts, object)?
        }
        SecretSource::Variable(name) => {
            let value = request.environment.get(OsStr::new(name));
            let missing = || format!("{name} is not in the environment; set it");
            value.ok_or_else(missing)?.as_bytes().to_vec()
        }
        SecretSource::Credential(name) => credential(request, facts, caller, name)?,
    };
    if let SecretForm::Variable(_) = secret.form {
        // A variable has no last line break, and files mostly do.
        if value.last() == Some(&b'\n') {
            value.pop();
        }
        if value.contains(&0) {
            return Err(
                "has a NUL byte, which no variable can hold; write as = \"file\"".to_owned(),
            );
        }
    }
    match value.len() {
        0 => Err("is empty; fill its source".to_owned()),
        length if length > LARGEST => {
            Err("is larger than 64 KiB; give it as a granted file".to_owned())
        }
        _ => Ok(value),
    }
}

fn content(facts: &dyn Facts, object: &Object) -> Result<Vec<u8>, String> {
    facts
        .read_object(object, LARGEST + 1)
        .map_err(|error| format!("cannot be read: {error}"))
}

/// A credential of the unit: with the caller's rights, who may have named the directory.
fn credential(
    request: &RunRequest,
    facts: &dyn Facts,
    caller: &User,
    name: &str,
) -> Result<Vec<u8>, String> {
    let directory = request.environment.get(OsStr::new("CREDENTIALS_DIRECTORY"));
    let missing = "no CREDENTIALS_DIRECTORY; write LoadCredential= into the unit";
    let directory = PathBuf::from(directory.ok_or(missing)?);
    let climbs = directory.components().any(|part| part.as_os_str() == "..");
    if climbs || !directory.starts_with(CREDENTIALS) {
        return Err(format!("CREDENTIALS_DIRECTORY is not below {CREDENTIALS}"));
    }
    let mut found = Err("was not read".to_owned());
    let act = &mut || {
        let object = facts.open(&directory.join(name), &[]);
        let object = object.map_err(|_| format!("the unit has no credential {name}"));
        found = object.and_then(|object| content(facts, &object));
    };
    facts
        .with_rights_of(caller, act)
        .map_err(|error| error.to_string())?;
    found
}

/// Whether a file was written lately enough.
fn fresh(object: &Object, max_age: Option<Duration>, now: Timestamp) -> Result<(), String> {
    let (Some(most), Some(fd)) = (max_age, &object.fd) else {
        return Ok(());
    };
    let written = fstat(fd)
        .map_err(|errno| format!("cannot be looked at: {errno}"))?
        .st_mtime;
    age(now.as_second().saturating_sub(written), most)
}

fn age(seconds: i64, most: Duration) -> Result<(), String> {
    match u64::try_from(seconds) {
        Ok(age) if age > most.as_secs() => Err(format!(
            "was last changed {} days ago, and max_age is {} days; rotate it",
            age / 86_400,
            most.as_secs() / 86_400
        )),
        Ok(_) => Ok(()),
        Err(_) if seconds.unsigned_abs() <= AHEAD.as_secs() => Ok(()),
        Err(_) => Err("its time lies in the future; touch it".to_owned()),
    }
}

/// The key of this host's fingerprints, made when it is missing: without it nobody can try
/// values against a log.
fn key(state: &Path) -> io::Result<[u8; 32]> {
    let path = state.join("fingerprint.key");
    let mut key = [0; 32];
    for _ in 0..2 {
        let mut options = File::options();
        match options
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
        {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(state, &path)?,
            opened => {
                opened?.read_exact(&mut key)?;
                return Ok(key);
            }
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Under another name first: half a key is never found.
fn make_key(state: &Path, path: &Path) -> io::Result<()> {
    let mut key = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    fs::create_dir_all(state)?;
    let next = state.join(format!("fingerprint.{}", std::process::id()));
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&next)?;
    let linked = file
        .write_all(&key)
        .and_then(|()| fs::hard_link(&next, path));
    fs::remove_file(&next)?;
    match linked {
        // Another start was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

/// The first 64 bits of HMAC-SHA-256 (RFC 2104).
fn fingerprint(key: &[u8; 32], value: &[u8]) -> String {
    let pad = |with: u8| {
        let mut block = [with; BLOCK];
        for (byte, key) in block.iter_mut().zip(key) {
            *byte ^= key;
        }
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(value);
    let outer = Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner.finalize());
    let digest = outer.finalize();
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_an_hmac_of_this_hosts_key() {
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        // RFC 4231, test case 2: a shorter key is padded with zeros.
        let text = b"what do ya want for nothing?";
        assert_eq!(fingerprint(&key, text), "5bdcc146bf60754e");
        assert_ne!(fingerprint(&[1; 32], text), "5bdcc146bf60754e");
    }

    #[test]
    fn a_key_is_made_once_and_is_nobodys_else() {
        use std::os::unix::fs::PermissionsExt;
        let state = tempfile::tempdir().unwrap();
        let first = key(&state.path().join("new")).unwrap();
        assert_eq!(key(&state.path().join("new")).unwrap(), first);
        assert_ne!(first, [0; 32]);
        let path = state.path().join("new/fingerprint.key");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(state.path().join("new")).unwrap().count(), 1);
        fs::write(&path, "short").unwrap();
        key(&state.path().join("new")).unwrap_err();
    }

    #[test]
    fn a_secret_is_stale_after_its_age_and_from_the_future() {
        let most = Duration::from_secs(30 * 86_400);
        for (seconds, fine) in [
            (0, true),
            (30 * 86_400, true),
            (30 * 86_400 + 1, false),
            (-60, true),
            (-61, false),
            (i64::MAX, false),
        ] {
            assert_eq!(age(seconds, most).is_ok(), fine, "{seconds}");
        }
    }
}
