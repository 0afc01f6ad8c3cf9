// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asks the kernel side which object a descriptor of this process stands for.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use lp_run_common::files::{
    INSPECT_DEPTH, INSPECT_NUMBER_LOW, INSPECT_OBJECT_HIGH, INSPECT_OBJECT_LOW,
};
use nix::sys::stat::fstat;

use super::FilesError;
use crate::sys::SysError;
use crate::sys::prog_run::run_raw_tracepoint;

/// Its name in the object.
pub const NAME: &str = "inspect";

/// The program that answers.
pub struct Inspect(OwnedFd);

impl Inspect {
    /// With the program's descriptor.
    pub fn new(program: OwnedFd) -> Self {
        Self(program)
    }

    /// Address of the inode object behind `descriptor`.
    pub fn object(&self, descriptor: BorrowedFd<'_>) -> Result<u64, FilesError> {
        let low = self.ask(INSPECT_OBJECT_LOW, descriptor)?;
        let high = self.ask(INSPECT_OBJECT_HIGH, descriptor)?;
        match u64::from(high) << 32 | u64::from(low) {
            0 => Err(FilesError::NoObject(descriptor.as_raw_fd())),
            object => Ok(object),
        }
    }

    /// Id of a cgroup and its level below the root of the hierarchy, wherever this process's
    /// cgroup namespace begins.
    pub fn cgroup(&self, directory: BorrowedFd<'_>) -> Result<(u64, u32), FilesError> {
        Ok((number(directory)?, self.ask(INSPECT_DEPTH, directory)?))
    }

    /// Compares what the program sees of a pipe with what `fstat` says.
    pub fn check(&self) -> Result<(), FilesError> {
        let (pipe, _) = nix::unistd::pipe().map_err(|errno| {
            FilesError::Inspect(SysError {
                call: "pipe",
                source: errno.into(),
            })
        })?;
        let expected = number(pipe.as_fd())?;
        let seen = self.ask(INSPECT_NUMBER_LOW, pipe.as_fd())?;
        let addressed = self.object(pipe.as_fd()).is_ok();
        if addressed && seen == expected as u32 {
            Ok(())
        } else {
            Err(FilesError::WrongLayout)
        }
    }

    fn ask(&self, question: u64, descriptor: BorrowedFd<'_>) -> Result<u32, FilesError> {
        let number = u64::try_from(descriptor.as_raw_fd()).unwrap_or(u64::MAX);
        run_raw_tracepoint(self.0.as_fd(), [question, number]).map_err(FilesError::Inspect)
    }
}

/// Inode number of a descriptor; of a cgroup's directory this is the cgroup's id.
fn number(descriptor: BorrowedFd<'_>) -> Result<u64, FilesError> {
    fstat(descriptor).map(|stat| stat.st_ino).map_err(|errno| {
        FilesError::Inspect(SysError {
            call: "fstat",
            source: errno.into(),
        })
    })
}
