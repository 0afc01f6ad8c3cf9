// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults to order, for the tests of this repository: each line of `LP_RUN_FAULT` is one.
//! `skip=ACT` leaves one act of the set-up out; `fail=ACT` has one call of the eBPF layer refused, as
//! the kernel would; with `stop=STEP:OUT:IN` the process that reaches a step writes a byte to the
//! descriptor OUT and stands still until one comes from IN, or somebody kills it. Only debug builds
//! read the variable: in a release build every function here is empty.

#[cfg(debug_assertions)]
pub use armed::{arm, descriptors, fails, passed, reached, skips, skips_of};

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;

    enum Fault {
        Skip(String),
        Fail(String),
        Stop {
            place: String,
            /// `None`: no step of the launch, but a place of the preparation before it.
            step: Option<u32>,
            out: i32,
            into: i32,
        },
    }

    static ORDERED: OnceLock<Vec<Fault>> = OnceLock::new();

    /// Reads the order, before the fork: shim and agent inherit it. `number` knows the steps.
    pub fn arm(number: impl Fn(&str) -> Option<u32>) {
        ORDERED.get_or_init(|| {
            let orders = std::env::var("LP_RUN_FAULT").unwrap_or_default();
            orders
                .lines()
                .filter_map(|line| read(line, &number))
                .collect()
        });
    }

    fn read(order: &str, number: impl Fn(&str) -> Option<u32>) -> Option<Fault> {
        match order.split_once('=')? {
            ("skip", act) => Some(Fault::Skip(act.to_owned())),
            ("fail", act) => Some(Fault::Fail(act.to_owned())),
            ("stop", place) => {
                let mut words = place.split(':');
                let place = words.next()?;
                let (out, into) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                for descriptor in [out, into] {
                    // SAFETY: F_SETFD touches no memory. The program is not to have it.
                    unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
                }
                Some(Fault::Stop {
                    place: place.to_owned(),
                    step: number(place),
                    out,
                    into,
                })
            }
            _ => None,
        }
    }

    fn ordered(is: impl Fn(&Fault) -> bool) -> bool {
        ORDERED.get().is_some_and(|faults| faults.iter().any(is))
    }

    /// Whether `order` is this act with this object.
    fn names(order: &str, act: &str, of: &str) -> bool {
        let object = order.strip_prefix(act);
        object.and_then(|object| object.strip_prefix(' ')) == Some(of)
    }

    /// Whether the act is to be left out.
    pub fn skips(act: &str) -> bool {
        ordered(|fault| matches!(fault, Fault::Skip(skipped) if skipped == act))
    }

    /// Whether the act is to be left out for this object.
    pub fn skips_of(act: &str, of: &str) -> bool {
        ordered(|fault| matches!(fault, Fault::Skip(skipped) if names(skipped, act, of)))
    }

    /// Whether the act is to fail for this object.
    pub fn fails(act: &str, of: &str) -> bool {
        ordered(|fault| matches!(fault, Fault::Fail(failing) if names(failing, act, of)))
    }

    /// What a process that stands still writes to and reads from.
    pub fn descriptors() -> impl Iterator<Item = i32> {
        let faults = ORDERED.get().into_iter().flatten();
        faults
            .filter_map(|fault| match fault {
                Fault::Stop { out, into, .. } => Some([*out, *into]),
                _ => None,
            })
            .flatten()
    }

    /// The calling process has done a step: the place to stand still. System calls only.
    pub fn reached(step: u32) {
        stand_still(|_, stop| stop == Some(step));
    }

    /// The same at a place of the preparation, which has a name and no number.
    pub fn passed(place: &str) {
        stand_still(|stop, _| stop == place);
    }

    fn stand_still(here: impl Fn(&str, Option<u32>) -> bool) {
        for fault in ORDERED.get().into_iter().flatten() {
            let Fault::Stop {
                place,
                step,
                out,
                into,
            } = fault
            else {
                continue;
            };
            if !here(place, *step) {
                continue;
            }
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

/// None.
#[cfg(not(debug_assertions))]
pub const fn descriptors() -> [i32; 0] {
    []
}

/// Nothing is left out.
#[cfg(not(debug_assertions))]
pub const fn skips(_act: &str) -> bool {
    false
}

/// Nothing is left out.
#[cfg(not(debug_assertions))]
pub const fn skips_of(_act: &str, _of: &str) -> bool {
    false
}

/// Nothing fails by order.
#[cfg(not(debug_assertions))]
pub const fn fails(_act: &str, _of: &str) -> bool {
    false
}

/// Nothing happens.
#[cfg(not(debug_assertions))]
pub const fn reached(_step: u32) {}

/// Nothing happens.
#[cfg(not(debug_assertions))]
pub const fn passed(_place: &str) {}
