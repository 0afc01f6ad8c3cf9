// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every `unsafe` of user space: one wrapper a system call that no safe library offers, owned
//! descriptors, errors that name the call.

pub mod access;
pub mod attempt;
pub mod attribute;
pub mod beneath;
pub mod bpf;
mod bpf_load;
pub mod bpf_pin;
pub mod bpf_ring;
pub mod bpf_trial;
pub mod caller;
pub mod clone;
pub mod credentials;
pub mod descriptor;
pub mod fault;
#[cfg(test)]
pub mod fork;
pub mod glance;
pub mod kernel_file;
pub mod landlock;
pub mod lock_file;
pub mod loop_device;
pub mod loopback;
pub mod memfd;
pub mod message;
pub mod mount;
pub mod perf;
pub mod places;
pub mod process;
pub mod prog_run;
pub mod readiness;
pub mod route;
pub mod seccomp;
pub mod socket;
pub mod statx;
pub mod steer;
pub mod stop;
pub mod terminal;
pub mod tracefs;
pub mod trial;
pub mod userns;

use thiserror::Error;

/// A system call that failed.
#[derive(Debug, Error)]
#[error("{call} failed")]
pub struct SysError {
    /// Name of the call as in its man page.
    pub call: &'static str,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

impl SysError {
    /// The failure of `call` that `errno` holds right now.
    pub fn last(call: &'static str) -> Self {
        Self {
            call,
            source: std::io::Error::last_os_error(),
        }
    }

    /// The positive errno, 0 where the error has none.
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }
}
