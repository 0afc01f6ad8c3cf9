// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel side and the user side of lp-run say to each other: map keys, map values
//! and events. Fixed widths, no padding, no `bool`, sizes asserted at compile time. These
//! layouts may change at each release; what the outside may rely on is the run report.

#![no_std]

pub mod counters;
pub mod events;
pub mod files;
pub mod lsm;
pub mod network;
pub mod run;

/// Marks a layout as plain data, so that aya copies it to and from a map.
#[macro_export]
#[doc(hidden)]
macro_rules! plain_data {
    ($($layout:ty = $size:expr),+ $(,)?) => {$(
        const _: () = assert!(core::mem::size_of::<$layout>() == $size);
        #[cfg(feature = "user")]
        // SAFETY: `repr(C)`, only integers and arrays of integers, and the size assertion
        // above holds the sum of the fields, so that there is no padding.
        unsafe impl aya::Pod for $layout {}
    )+};
}
