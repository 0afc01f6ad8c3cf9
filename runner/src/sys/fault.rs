// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults to order, for the tests of this repository: `LP_RUN_FAULT=skip=ACT` leaves one act of
//! the set-up out; with `LP_RUN_FAULT=stop=STEP:OUT:IN` the process that reaches a step writes a
//! byte to the descriptor OUT and stands still until one comes from IN, or somebody kills it. Only
//! debug builds read the variable: in a release build every function here is empty.

#[cfg(debug_assertions)]
pub use armed::{arm, reached, skips};

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;

    enum Fault {
        Skip(String),
        Stop { step: u32, out: i32, into: i32 },
    }

    static ORDERED: OnceLock<Option<Fault>> = OnceLock::new();

    /// Reads the order, before the fork: shim and agent inherit it. `number` knows the steps.
    pub fn arm(number: impl Fn(&str) -> Option<u32>) {
        ORDERED.get_or_init(|| {
            let order = std::env::var("LP_RUN_FAULT").ok()?;
            match order.split_once('=')? {
                ("skip", act) => Some(Fault::Skip(act.to_owned())),
                ("stop", place) => {
                    let mut words = place.split(':');
                    Some(Fault::Stop {
                        step: number(words.next()?)?,
                        out: words.next()?.parse().ok()?,
                        into: words.next()?.parse().ok()?,
                    })
                }
                _ => None,
            }
        });
    }

    /// Whether the act is to be left out.
    pub fn skips(act: &str) -> bool {
        matches!(ORDERED.get(), Some(Some(Fault::Skip(skipped))) if skipped == act)
    }

    /// The calling process has done a step: the place to stand still. System calls only.
    pub fn reached(step: u32) {
        if let Some(Some(Fault::Stop {
            step: stop,
            out,
            into,
        })) = ORDERED.get()
            && *stop == step
        {
            let mut byte = 0_u8;
            // SAFETY: one byte of a constant; the descriptor is a number that may be closed.
            unsafe { libc::write(*out, b"!".as_ptr().cast(), 1) };
            // SAFETY: room for one byte; the same.
            unsafe { libc::read(*into, (&raw mut byte).cast(), 1) };
        }
    }
}

/// Nothing: a release build has no faults to order.
#[cfg(not(debug_assertions))]
pub fn arm(_number: impl Fn(&str) -> Option<u32>) {}

/// Nothing is left out.
#[cfg(not(debug_assertions))]
pub const fn skips(_act: &str) -> bool {
    false
}

/// Nothing happens.
#[cfg(not(debug_assertions))]
pub const fn reached(_step: u32) {}
