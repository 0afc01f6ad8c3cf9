// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads a ring of the kernel's BPF (`BPF_MAP_TYPE_RINGBUF`, kernel/bpf/ringbuf.c): a page with
//! the position of the reader, one with that of the writers, and the bytes, twice in a row so
//! that no entry is ever in two parts. Only what waits is mapped, and only while it is read: the
//! kernel fills in every page at once, and all of a ring would be most of what lp-run holds.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::SysError;

/// A page of x86_64.
const PAGE: u64 = 4096;
/// Most bytes that are mapped at once. No entry is longer.
const WINDOW: u64 = 1 << 16;
/// The head of an entry: its length with two bits, and a number of the kernel's own.
const HEAD: u64 = 8;
/// `BPF_RINGBUF_BUSY_BIT`: it is being written.
const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`: it was given up.
const DISCARDED: u32 = 1 << 30;

/// The one reader of a ring.
#[derive(Debug)]
pub struct Ring {
    map: OwnedFd,
    bytes: u64,
    read: Pages,
    written: Pages,
}

impl Ring {
    /// Of a map that holds this many bytes, a power of two.
    pub fn open(map: OwnedFd, bytes: u32) -> Result<Self, SysError> {
        let read = Pages::map(map.as_fd(), 0, PAGE, libc::PROT_READ | libc::PROT_WRITE)?;
        let written = Pages::map(map.as_fd(), PAGE, PAGE, libc::PROT_READ)?;
        let bytes = u64::from(bytes);
        Ok(Self {
            map,
            bytes,
            read,
            written,
        })
    }

    /// Hands over at most `limit` entries. `true`: there may be more.
    pub fn drain(&mut self, limit: usize, mut each: impl FnMut(&[u8])) -> Result<bool, SysError> {
        let mut left = limit;
        loop {
            let from = self.read.position().load(Ordering::Relaxed);
            let waiting = self.written.position().load(Ordering::Acquire) - from;
            if waiting == 0 || left == 0 {
                return Ok(waiting > 0);
            }
            let start = from % self.bytes;
            let page = start - start % PAGE;
            let end = start + waiting.min(WINDOW);
            let window = Pages::map(
                self.map.as_fd(),
                2 * PAGE + page,
                end - page,
                libc::PROT_READ,
            )?;
            let mut at = start;
            while left > 0 && at < end {
                let head = window.head(at - page).load(Ordering::Acquire);
                let length = u64::from(head & !(BUSY | DISCARDED));
                let next = at + (HEAD + length).next_multiple_of(8);
                if head & BUSY != 0 {
                    return Ok(false);
                }
                if next > end {
                    break;
                }
                if head & DISCARDED == 0 {
                    each(window.bytes(at - page + HEAD, length));
                    left -= 1;
                }
                at = next;
                let position = self.read.position();
                position.store(from + (at - start), Ordering::Release);
            }
            if at == start {
                // Longer than anything that is ever written: there is no way past it.
                return Ok(false);
            }
        }
    }
}

impl AsFd for Ring {
    /// Readable when entries wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// Some pages of the map.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    length: u64,
}

impl Pages {
    fn map(map: BorrowedFd<'_>, offset: u64, length: u64, access: i32) -> Result<Self, SysError> {
        // SAFETY: the kernel chooses a free place; nothing that is mapped already is touched.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length as usize,
                access,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                offset as i64,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(place) if start != libc::MAP_FAILED => Ok(Self {
                start: place,
                length,
            }),
            _ => Err(SysError::last("mmap")),
        }
    }

    /// The position at the front of the page.
    fn position(&self) -> &AtomicU64 {
        // SAFETY: a mapped page is aligned and lives as long as `self`; reader and kernel use
        // the word as an atomic one.
        unsafe { self.start.cast().as_ref() }
    }

    /// The first word of the entry at `offset`, a multiple of 8.
    fn head(&self, offset: u64) -> &AtomicU32 {
        assert!(offset.is_multiple_of(8) && offset + HEAD <= self.mapped());
        // SAFETY: within the mapping, aligned, and as above.
        unsafe { self.start.add(offset as usize).cast().as_ref() }
    }

    /// The bytes of an entry that is no longer written.
    fn bytes(&self, offset: u64, length: u64) -> &[u8] {
        assert!(offset + length <= self.mapped());
        // SAFETY: within the mapping; the kernel leaves an entry alone that it has handed over
        // until the reader's position is behind it, which is later.
        unsafe {
            std::slice::from_raw_parts(self.start.add(offset as usize).as_ptr(), length as usize)
        }
    }

    /// The kernel maps whole pages.
    fn mapped(&self) -> u64 {
        self.length.next_multiple_of(PAGE)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and no reference outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length as usize) };
    }
}
