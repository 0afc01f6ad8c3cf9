// SPDX-License-Identifier: MIT OR Apache-2.0
//! The relay of a regular file. A file is always ready and can keep who reads or writes it waiting
//! all the same: on a server that does not answer, on a file system that is frozen. So what is
//! done to it happens beside the event loop, one act after the other.
//!
//! Its offset stays the caller's: it goes as far as the program has read, however far ahead of it
//! the relay is.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::uio::pread;
use nix::unistd::{Whence, lseek};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::start::named;
use super::stream::{BUFFER_BYTES, Progress, Stream};
use crate::sys::{SysError, descriptor};

/// Gives the program what stands in the file, until it ends or `stop` says that the program has.
/// Then the file's offset is where the program has read to; with `shared` it goes along with the
/// relay, or what the program writes through the same description would stand over what it read.
pub(super) async fn feed(
    file: OwnedFd,
    shared: bool,
    inside: Stream,
    mut stop: watch::Receiver<bool>,
) {
    let file = Arc::new(file);
    let mut account = Account::default();
    let stopped = async |stop: &mut watch::Receiver<bool>| {
        // Where nobody is left to say so, it is over too.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    tokio::select! {
        // An error is the end of what can be read or of who reads.
        _ = pour(&file, shared, &inside, &mut account) => (),
        () = stopped(&mut stop) => (),
    }
    let pipe = inside.reading_end();
    // The program sees the end, and what it leaves unread stays to be counted.
    drop(inside);
    stopped(&mut stop).await;
    let moved = match pipe {
        Ok(pipe) => account.taken(pipe.as_fd()),
        Err(_) => account.settle(0),
    };
    // A file that cannot be moved any more is nobody's loss: the program has read it.
    let _ = beside(move || advance(&file, moved)).await;
}

/// Copies the file into the pipe `inside`.
async fn pour(
    file: &Arc<OwnedFd>,
    shared: bool,
    inside: &Stream,
    account: &mut Account,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let same = Arc::clone(file);
    let offset = beside(move || lseek(&*same, 0, Whence::SeekCur).ok()).await?;
    let mut place = offset.filter(|_| !shared);
    account.seeks = place.is_some();
    loop {
        let same = Arc::clone(file);
        let moved = account.taken(inside.as_fd());
        let (filled, count) = beside(move || {
            let count = advance(&same, moved).and_then(|()| read(&same, &mut buffer, place));
            (buffer, count)
        })
        .await?;
        buffer = filled;
        let count = count?;
        if count == 0 {
            return Ok(());
        }
        place = place.map(|place| place + count as i64);
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let written = inside.write(rest).await?;
            account.given += written as u64;
            rest = &rest[written..];
        }
    }
}

/// How much of a file a program has taken out of its pipe.
#[derive(Debug, Default)]
struct Account {
    /// Bytes that went into the pipe.
    given: u64,
    /// Those of them that the offset has been moved over.
    settled: u64,
    /// Whether the offset is to be moved.
    seeks: bool,
}

impl Account {
    /// What the program has taken since this was asked last; the rest is still in `pipe`.
    fn taken(&mut self, pipe: BorrowedFd<'_>) -> i64 {
        let unread = descriptor::unread(pipe).unwrap_or(0);
        self.settle(unread)
    }

    fn settle(&mut self, unread: u64) -> i64 {
        // The pipe is the program's own: it may have put bytes of its own into it.
        let taken = self.given.saturating_sub(unread).max(self.settled);
        let moved = taken - self.settled;
        self.settled = taken;
        if self.seeks { moved.cast_signed() } else { 0 }
    }
}

/// Writes what the program says into the file, which becomes no larger than `most`. An error
/// tells that the file did not take all of it.
pub(super) async fn collect(
    inside: Stream,
    file: OwnedFd,
    most: u64,
    progress: &Progress,
) -> io::Result<()> {
    let file = Arc::new(file);
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = inside.read(&mut buffer).await {
        let same = Arc::clone(&file);
        let written = beside(move || {
            let result = write(&same, &buffer[..count], most);
            (buffer, result)
        });
        let (emptied, result) = written.await?;
        result.map_err(|error| error.source)?;
        buffer = emptied;
        progress.done(count);
    }
    Ok(())
}

/// Does what may take for ever on a thread of its own.
async fn beside<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    Ok(spawn_blocking(act).await?)
}

/// Moves the offset, which others may move too.
fn advance(file: &OwnedFd, by: i64) -> nix::Result<()> {
    match by {
        0 => Ok(()),
        _ => lseek(file, by, Whence::SeekCur).map(drop),
    }
}

/// Reads at `place` and leaves the offset alone; without a place, where the file is.
fn read(file: &OwnedFd, buffer: &mut [u8], place: Option<i64>) -> nix::Result<usize> {
    loop {
        let result = match place {
            Some(place) => pread(file, buffer, place),
            None => nix::unistd::read(file, buffer),
        };
        if result != Err(Errno::EINTR) {
            return result;
        }
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
            return Err(named("write")(Errno::EFBIG));
        }
        match descriptor::write(file.as_raw_fd(), &bytes[..room as usize]) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.errno() == libc::EINTR => (),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    use nix::fcntl::FcntlArg::F_SETFL;

    use super::super::stream::Kind;
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

    /// Feeds a file of `length` bytes, of which `skipped` are read already, to a program that
    /// reads `reads` and puts `adds` bytes of its own into its pipe. Gives what it read, and
    /// where the file is afterwards.
    fn fed(length: usize, skipped: u64, reads: usize, adds: usize) -> (Vec<u8>, u64) {
        let content: Vec<u8> = (0..=250).cycle().take(length).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        file.seek(io::SeekFrom::Start(skipped)).unwrap();
        let (mut ours, theirs) = std::io::pipe().unwrap();
        fcntl(&theirs, F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut added = theirs.try_clone().unwrap();
        let outside = OwnedFd::from(file.try_clone().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let got = runtime.block_on(async {
            let stop = watch::Sender::new(false);
            let inside = Stream::new(theirs.into(), Kind::Own).unwrap();
            let feeding = tokio::spawn(feed(outside, false, inside, stop.subscribe()));
            let reading = spawn_blocking(move || {
                let mut got = vec![0; reads];
                ours.read_exact(&mut got).unwrap();
                added.write_all(&vec![0; adds]).unwrap();
                drop(added);
                (ours, got)
            });
            let (ours, got) = reading.await.unwrap();
            stop.send_replace(true);
            feeding.await.unwrap();
            drop(ours);
            got
        });
        assert_eq!(got, content[skipped as usize..][..reads]);
        (got, file.stream_position().unwrap())
    }

    #[test]
    fn the_offset_goes_as_far_as_the_program_has_read() {
        // All of it fits into the pipe, or only a part of it.
        for length in [1000, 3 << 20] {
            assert_eq!(fed(length, 0, 0, 0).1, 0, "{length}");
            assert_eq!(fed(length, 0, 10, 0).1, 10, "{length}");
            assert_eq!(fed(length, 100, 10, 0).1, 110, "{length}");
            assert_eq!(fed(length, 100, length - 100, 0).1, length as u64);
        }
        assert_eq!(fed(3 << 20, 0, 2 << 20, 0).1, 2 << 20);
        assert_eq!(fed(0, 0, 0, 0).1, 0);
    }

    #[test]
    fn what_a_program_puts_into_its_own_pipe_moves_no_offset_back() {
        assert_eq!(fed(1000, 500, 10, 400).1, 500);
        assert_eq!(fed(1000, 500, 500, 4000).1, 500);
    }
}
