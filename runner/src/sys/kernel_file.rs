// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files that the kernel makes up while they are read (`/proc`, `/sys`). They tell no size, so that
//! the standard library begins with 32 bytes: here most are read by one call, and a second that
//! finds the end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// More than one call gives.
const ROOM: usize = 8192;

/// All bytes of the file.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(ROOM);
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The file as text.
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
