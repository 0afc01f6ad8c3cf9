// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects of the kernel's BPF by name: pinned in a BPF file system, opened again, and asked
//! what they are. A name can be made by anybody who may write there; an id cannot.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::SysError;

// include/uapi/linux/bpf.h: enum bpf_cmd, enum bpf_attach_type.
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LSM_MAC: u32 = 27;
const BPF_PERF_EVENT: u32 = 41;

/// The first members of `struct bpf_prog_info`, `bpf_map_info` and `bpf_link_info`: type and id
/// in each; then a program's tag, a map's sizes of key and value, a link's program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Which type of program, map or link.
    pub kind: u32,
    /// Never given to another object of the kind within one boot, in practice.
    pub id: u32,
    /// A program's tag, or a map's sizes; of a link, its program's id comes first.
    pub details: [u32; 2],
}

/// `struct { … } attr` of `BPF_OBJ_PIN` and `BPF_OBJ_GET`, first version.
#[repr(C)]
#[derive(Default)]
struct Named {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// Gives an object a name.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> Result<(), SysError> {
    let path = c_path(path)?;
    let mut attributes = Named {
        path: path.as_ptr() as u64,
        descriptor: object.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    bpf(BPF_OBJ_PIN, &mut attributes, "bpf BPF_OBJ_PIN").map(drop)
}

/// Opens the object of a name.
pub fn open(path: &Path) -> Result<OwnedFd, SysError> {
    let path = c_path(path)?;
    let mut attributes = Named {
        path: path.as_ptr() as u64,
        ..Named::default()
    };
    let descriptor = bpf(BPF_OBJ_GET, &mut attributes, "bpf BPF_OBJ_GET")?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// What an object is.
pub fn identity(object: BorrowedFd<'_>) -> Result<Identity, SysError> {
    #[repr(C)]
    struct Ask {
        descriptor: u32,
        length: u32,
        info: u64,
    }
    let mut identity = Identity::default();
    let mut attributes = Ask {
        descriptor: object.as_raw_fd().cast_unsigned(),
        length: size_of::<Identity>() as u32,
        info: (&raw mut identity) as u64,
    };
    let call = "bpf BPF_OBJ_GET_INFO_BY_FD";
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes, call)?;
    Ok(identity)
}

/// One instruction of a program, as the kernel has it.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    /// Class and operation.
    pub code: u8,
    /// Source register, or what the immediate is.
    pub source: u8,
    /// Of a jump.
    pub offset: i16,
    /// The constant.
    pub immediate: i32,
}

/// The instructions of a program after verification: dead ones are gone.
#[cfg(test)]
pub fn instructions(program: BorrowedFd<'_>) -> Result<Vec<Instruction>, SysError> {
    #[repr(C)]
    struct Ask {
        descriptor: u32,
        length: u32,
        info: u64,
    }
    // `struct bpf_prog_info`: the length stands at byte 20, the address at 32.
    let mut info = [0_u64; 8];
    let ask = |info: &mut [u64; 8]| {
        let mut attributes = Ask {
            descriptor: program.as_raw_fd().cast_unsigned(),
            length: size_of::<[u64; 8]>() as u32,
            info: (&raw mut *info) as u64,
        };
        let call = "bpf BPF_OBJ_GET_INFO_BY_FD";
        bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes, call).map(drop)
    };
    ask(&mut info)?;
    let length = (info[2] >> 32) as usize;
    let mut code = vec![0_u64; length / 8];
    info = [0; 8];
    info[2] = (length as u64) << 32;
    info[4] = code.as_mut_ptr() as u64;
    ask(&mut info)?;
    let decode = |word: &u64| Instruction {
        code: *word as u8,
        source: (word >> 12) as u8 & 15,
        offset: (word >> 16) as i16,
        immediate: (word >> 32) as i32,
    };
    Ok(code.iter().map(decode).collect())
}

/// Whether the kernel has a map of this id. What it does not tell is taken for there.
pub fn map_exists(id: u32) -> bool {
    /// The first members of `union bpf_attr` for the command.
    #[repr(C)]
    struct ById {
        id: u32,
        next: u32,
        flags: u32,
    }
    let mut attributes = ById {
        id,
        next: 0,
        flags: 0,
    };
    let call = "bpf BPF_MAP_GET_FD_BY_ID";
    match bpf(BPF_MAP_GET_FD_BY_ID, &mut attributes, call) {
        Ok(descriptor) => {
            // SAFETY: the kernel has just made this descriptor for us.
            drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
            true
        }
        Err(error) => error.errno() != libc::ENOENT,
    }
}

/// The first `count` values of an array map, in one call.
pub fn values<T: aya::Pod + Default>(map: BorrowedFd<'_>, count: u32) -> Result<Vec<T>, SysError> {
    /// `struct { … } batch` of `union bpf_attr`.
    #[repr(C)]
    struct Batch {
        from: u64,
        reached: u64,
        keys: u64,
        values: u64,
        count: u32,
        map: u32,
        element_flags: u64,
        flags: u64,
    }
    let (mut reached, mut keys) = (0_u32, vec![0_u32; count as usize]);
    let mut values = vec![T::default(); count as usize];
    let mut attributes = Batch {
        from: 0,
        reached: (&raw mut reached) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count,
        map: map.as_raw_fd().cast_unsigned(),
        element_flags: 0,
        flags: 0,
    };
    let call = "bpf BPF_MAP_LOOKUP_BATCH";
    match bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes, call) {
        // The end of the map was reached.
        Err(error) if error.errno() == libc::ENOENT => {}
        other => other.map(drop)?,
    }
    values.truncate(attributes.count as usize);
    Ok(values)
}

/// Links a tracepoint program to the perf event of its tracepoint. The event lives as long as
/// the link, which lives as long as a descriptor or a name of it.
pub fn link(program: BorrowedFd<'_>, event: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    create_link(program, event.as_raw_fd(), BPF_PERF_EVENT)
}

/// Links an LSM program to the hook that it was loaded for: it then runs for the whole machine.
pub fn link_lsm(program: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    create_link(program, 0, BPF_LSM_MAC)
}

fn create_link(
    program: BorrowedFd<'_>,
    target: i32,
    attach_type: u32,
) -> Result<OwnedFd, SysError> {
    #[repr(C)]
    struct Link {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        cookie: u64,
    }
    let mut attributes = Link {
        program: program.as_raw_fd().cast_unsigned(),
        target: target.cast_unsigned(),
        attach_type,
        flags: 0,
        cookie: 0,
    };
    let descriptor = bpf(BPF_LINK_CREATE, &mut attributes, "bpf BPF_LINK_CREATE")?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn c_path(path: &Path) -> Result<CString, SysError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|error| SysError {
        call: "bpf",
        source: error.into(),
    })
}

fn bpf<T>(command: libc::c_long, attributes: &mut T, call: &'static str) -> Result<i32, SysError> {
    // SAFETY: `attributes` is a live structure of the given size; each pointer in it leads to a
    // NUL-terminated path, or to as many writable bytes as the command writes, that outlive the
    // call: an array's keys are words, and `Pod` values have the size of the map's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    i32::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(|| SysError::last(call))
}
