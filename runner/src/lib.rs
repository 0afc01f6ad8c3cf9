// SPDX-License-Identifier: MIT OR Apache-2.0
//! lp-run: runs a program with exactly the access its policy grants.
//!
//! Two rivers and one bridge. The policy flows down: [`policy`] reads what was typed and says
//! what it means, [`plan`] says what will be done on this [`host`], [`enforce`] does it in the
//! kernel, [`launch`] starts the program. Events flow up: [`watch`] decodes what the kernel
//! counted, [`record`] writes it down. They meet in [`supervise`]. Each module uses only those
//! below it: cli > supervise > launch, control > enforce, watch > record, plan > policy, host,
//! sys.

pub mod cli;
pub mod control;
pub mod enforce;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod host;
pub mod launch;
pub mod names;
pub mod plan;
pub mod policy;
pub mod record;
pub mod supervise;
pub mod sys;
#[cfg(test)]
mod testing;
pub mod watch;
