// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file as a block device (loop(4)); layouts and numbers are those of
//! `include/uapi/linux/loop.h`.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use super::SysError;

const LOOP_CTL_GET_FREE: u32 = 0x4c82;
const LOOP_CONFIGURE: u32 = 0x4c0a;
/// The device is free again when its last user closes it.
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Others may take the device that was just found free.
const TRIES: u32 = 64;

#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

/// Makes `file` a block device that goes when its last user does: the descriptor that is
/// returned, then the mount that was made of it meanwhile.
pub fn attach(file: impl AsFd) -> Result<(File, PathBuf), SysError> {
    let failed = |call| move |source| SysError { call, source };
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .map_err(failed("open /dev/loop-control"))?;
    let mut tries = TRIES;
    loop {
        // SAFETY: the call takes no argument and touches no memory.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        if number < 0 {
            return Err(SysError::last("ioctl LOOP_CTL_GET_FREE"));
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed("open a loop device"))?;
        // SAFETY: all-zero is a valid value of a struct of integers.
        let mut config: LoopConfig = unsafe { std::mem::zeroed() };
        config.fd = file.as_fd().as_raw_fd().cast_unsigned();
        config.info.flags = LO_FLAGS_AUTOCLEAR;
        // SAFETY: an open descriptor and a live struct of the layout that the call reads.
        let done =
            unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) };
        if done == 0 {
            return Ok((device, path));
        }
        let error = SysError::last("ioctl LOOP_CONFIGURE");
        tries -= 1;
        if error.errno() != libc::EBUSY || tries == 0 {
            return Err(error);
        }
    }
}
