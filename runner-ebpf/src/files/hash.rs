// SPDX-License-Identifier: MIT OR Apache-2.0
//! SipHash-1-3 over 64-bit words: keyed, so that an agent cannot hide one path behind the
//! hash of another.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use lp_run_common::events::FileEvent;
use lp_run_common::files::TYPED_BYTES;

use super::layout::hash_key;
use super::maps::FILE_SCRATCH;

/// The state between words.
#[repr(C)]
pub struct Hasher {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
    /// Bytes of text that are hashed; the last word is cut to them.
    length: u64,
}

impl Hasher {
    /// With this load's key.
    #[inline(always)]
    pub fn new() -> Self {
        let (k0, k1) = hash_key();
        Self {
            v0: k0 ^ 0x736f_6d65_7073_6575,
            v1: k1 ^ 0x646f_7261_6e64_6f6d,
            v2: k0 ^ 0x6c79_6765_6e65_7261,
            v3: k1 ^ 0x7465_6462_7974_6573,
            length: 0,
        }
    }

    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }

    /// One word.
    #[inline(always)]
    pub fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    /// The typed path of the event in `FILE_SCRATCH`.
    #[inline(always)]
    pub fn text(&mut self, event: &FileEvent) {
        self.words(event.typed, text_word);
    }

    /// `length` bytes of a text, of which the callback passes each word to [`Self::word_of`].
    #[inline(always)]
    pub fn words(&mut self, length: u32, word: extern "C" fn(u32, *mut Self) -> i64) {
        self.length = u64::from(length);
        // SAFETY: the callback takes the context that is passed here, which outlives the call.
        unsafe {
            bpf_loop(
                length.div_ceil(8),
                word as *mut c_void,
                (&raw mut *self).cast(),
                0,
            )
        };
        self.word(self.length);
    }

    /// Word `index` of a text, of the last one only what belongs to it: the bytes behind the end
    /// are left over from another.
    #[inline(always)]
    pub fn word_of(&mut self, index: u32, word: u64) {
        let used = self.length.saturating_sub(8 * u64::from(index));
        self.word(match used {
            0..8 => word & !(u64::MAX << (8 * (used & 7))),
            _ => word,
        });
    }

    /// The hash.
    #[inline(always)]
    pub fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

/// One word of the text; 1 ends the loop.
extern "C" fn text_word(index: u32, context: *mut Hasher) -> i64 {
    // SAFETY: `bpf_loop` passes on the context of `text`.
    let hasher = unsafe { &mut *context };
    let Some(event) = FILE_SCRATCH.get_ptr_mut(0) else {
        return 1;
    };
    // The caller asks for no more words than there are; the mask tells the verifier so.
    let at = index as usize & (TYPED_BYTES / 8 - 1);
    // SAFETY: within the text, which is aligned to 8 bytes in the event.
    let word = unsafe { (&raw const (*event).text).cast::<u64>().add(at).read() };
    hasher.word_of(index, word);
    0
}
