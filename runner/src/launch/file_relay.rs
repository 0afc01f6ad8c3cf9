// SPDX-License-Identifier: MIT OR Apache-2.0
//! The relay of a regular file. A file is always ready, and its offset stays the caller's: what
//! he does with it before the run follows on, and after it from where the relay has read to, which
//! may be ahead of the program.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Whence, lseek};

use super::start::named;
use super::stream::{BUFFER_BYTES, Progress, Stream};
use crate::sys::{SysError, descriptor};

/// Whether a descriptor is a regular file.
pub(super) fn is_file(fd: &OwnedFd) -> bool {
    let mode = fstat(fd).map_or(0, |stat| stat.st_mode);
    SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

/// Gives the program what stands in the file.
pub(super) async fn feed(file: OwnedFd, inside: Stream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = descriptor::read(file.as_raw_fd(), &mut buffer) {
        if inside.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Writes what the program says into the file, which becomes no larger than `most`.
pub(super) async fn collect(inside: Stream, file: OwnedFd, most: u64, progress: &Progress) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = inside.read(&mut buffer).await {
        if write(&file, &buffer[..count], most).is_err() {
            return;
        }
        progress.done(count);
    }
}

/// Writes as RLIMIT_FSIZE lets the agent itself write: up to `most`, then not at all.
fn write(file: &OwnedFd, mut bytes: &[u8], most: u64) -> Result<(), SysError> {
    while !bytes.is_empty() {
        let flags = fcntl(file, FcntlArg::F_GETFL).map_err(named("fcntl"))?;
        let whence = match OFlag::from_bits_retain(flags).contains(OFlag::O_APPEND) {
            true => Whence::SeekEnd,
            false => Whence::SeekCur,
        };
        let at = lseek(file, 0, whence).map_err(named("lseek"))?;
        let room = most
            .saturating_sub(at.cast_unsigned())
            .min(bytes.len() as u64);
        if room == 0 {
            return Err(named("write")(nix::errno::Errno::EFBIG));
        }
        let count = descriptor::write(file.as_raw_fd(), &bytes[..room as usize])?;
        bytes = &bytes[count..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    #[test]
    fn a_relayed_file_grows_no_larger_than_the_agents_limit() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"12").unwrap();
        let fd = OwnedFd::from(file.try_clone().unwrap());
        write(&fd, b"34", 5).unwrap();
        let error = write(&fd, b"5678", 5).unwrap_err();
        assert_eq!(error.errno(), libc::EFBIG);
        assert_eq!(File::from(fd).metadata().unwrap().len(), 5);
    }
}
