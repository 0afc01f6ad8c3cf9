// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ids, groups, capabilities and the session keyring of the calling thread, as bare system
//! calls: the C library's wrappers signal other threads, and none exists where these are used.
//! None allocates.

use super::SysError;

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 capabilities.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The three per-thread capability sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// In force.
    pub effective: u64,
    /// May be put in force.
    pub permitted: u64,
    /// Kept by files that say so.
    pub inheritable: u64,
}

fn check(call: &'static str, result: libc::c_long) -> Result<libc::c_long, SysError> {
    if result < 0 {
        Err(SysError::last(call))
    } else {
        Ok(result)
    }
}

/// Gives up every supplementary group. See setgroups(2).
pub fn clear_groups() -> Result<(), SysError> {
    // SAFETY: a list of length 0 is not read.
    let result =
        unsafe { libc::syscall(libc::SYS_setgroups, 0usize, std::ptr::null::<libc::gid_t>()) };
    check("setgroups", result).map(drop)
}

/// How many supplementary groups the thread has.
pub fn group_count() -> Result<usize, SysError> {
    // SAFETY: with size 0 the call only counts.
    let result = unsafe {
        libc::syscall(
            libc::SYS_getgroups,
            0 as libc::c_int,
            std::ptr::null_mut::<libc::gid_t>(),
        )
    };
    check("getgroups", result).map(|count| count as usize)
}

/// Real, effective and saved (and file-system) group id. See setresgid(2).
pub fn set_gid(gid: u32) -> Result<(), SysError> {
    // SAFETY: integers only.
    check("setresgid", unsafe {
        libc::syscall(libc::SYS_setresgid, gid, gid, gid)
    })
    .map(drop)
}

/// Real, effective and saved (and file-system) user id. See setresuid(2).
pub fn set_uid(uid: u32) -> Result<(), SysError> {
    // SAFETY: integers only.
    check("setresuid", unsafe {
        libc::syscall(libc::SYS_setresuid, uid, uid, uid)
    })
    .map(drop)
}

/// Whether the file of the program lends somebody else than root rights that are not his: a
/// set-user-ID or set-group-ID bit, or capabilities. See getauxval(3), `AT_SECURE`.
pub fn lent_by_the_file() -> bool {
    // SAFETY: it reads what the kernel left on the stack at the start.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    secure && uids().map_or(true, |[real, ..]| real != 0)
}

/// Real, effective and saved user id.
pub fn uids() -> Result<[u32; 3], SysError> {
    let mut ids = [0u32; 3];
    let [real, effective, saved] = &mut ids;
    // SAFETY: three live integers to be written.
    let result = unsafe {
        libc::syscall(
            libc::SYS_getresuid,
            std::ptr::from_mut(real),
            std::ptr::from_mut(effective),
            std::ptr::from_mut(saved),
        )
    };
    check("getresuid", result).map(|_| ids)
}

/// Real, effective and saved group id.
pub fn gids() -> Result<[u32; 3], SysError> {
    let mut ids = [0u32; 3];
    let [real, effective, saved] = &mut ids;
    // SAFETY: three live integers to be written.
    let result = unsafe {
        libc::syscall(
            libc::SYS_getresgid,
            std::ptr::from_mut(real),
            std::ptr::from_mut(effective),
            std::ptr::from_mut(saved),
        )
    };
    check("getresgid", result).map(|_| ids)
}

/// Takes `capability` out of the bounding set; `EINVAL`: the kernel has no such number.
pub fn drop_bounding(capability: u32) -> Result<(), SysError> {
    // SAFETY: integers only.
    let result =
        unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    check("prctl", result).map(drop)
}

/// Whether `capability` is in the bounding set; `None`: the kernel has no such number.
pub fn in_bounding(capability: u32) -> Option<bool> {
    // SAFETY: integers only.
    let result =
        unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_READ, capability, 0, 0, 0) };
    (result >= 0).then_some(result == 1)
}

/// Empties the ambient set. See capabilities(7).
pub fn clear_ambient() -> Result<(), SysError> {
    // SAFETY: integers only.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prctl,
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
    check("prctl", result).map(drop)
}

/// Sets the secure bits. Needs CAP_SETPCAP.
pub fn set_securebits(bits: i32) -> Result<(), SysError> {
    // SAFETY: integers only.
    let result = unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_SECUREBITS, bits, 0, 0, 0) };
    check("prctl", result).map(drop)
}

/// Reads the secure bits.
pub fn securebits() -> Result<i32, SysError> {
    // SAFETY: integers only.
    let result = unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_SECUREBITS, 0, 0, 0, 0) };
    check("prctl", result).map(|bits| bits as i32)
}

/// Empties the effective, permitted and inheritable set. See capset(2).
pub fn clear_capabilities() -> Result<(), SysError> {
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let words = [CapabilityWord::default(); 2];
    // SAFETY: a live header and two live words, which the call only reads.
    let result = unsafe { libc::syscall(libc::SYS_capset, &header, words.as_ptr()) };
    check("capset", result).map(drop)
}

/// Keeps of all capabilities at most those whose bits are set, also through an exec.
pub fn keep_only(set: u64) -> Result<(), SysError> {
    for capability in (0..64).filter(|number| set & 1 << number == 0) {
        match drop_bounding(capability) {
            Err(error) if error.errno() == libc::EINVAL => break,
            result => result?,
        }
    }
    let had = capabilities()?;
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let word = |shift: u32| CapabilityWord {
        effective: ((had.effective & set) >> shift) as u32,
        permitted: ((had.permitted & set) >> shift) as u32,
        inheritable: 0,
    };
    let words = [word(0), word(32)];
    // SAFETY: a live header and two live words, which the call only reads.
    let result = unsafe { libc::syscall(libc::SYS_capset, &header, words.as_ptr()) };
    check("capset", result).map(drop)
}

/// Reads the capability sets. See capget(2).
pub fn capabilities() -> Result<Capabilities, SysError> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let mut words = [CapabilityWord::default(); 2];
    // SAFETY: a live header and two live words to be written.
    let result = unsafe {
        libc::syscall(
            libc::SYS_capget,
            std::ptr::from_mut(&mut header),
            words.as_mut_ptr(),
        )
    };
    check("capget", result)?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Capabilities {
        effective: join(words[0].effective, words[1].effective),
        permitted: join(words[0].permitted, words[1].permitted),
        inheritable: join(words[0].inheritable, words[1].inheritable),
    })
}

/// No program that the thread executes gains privileges by its file. See prctl(2).
pub fn set_no_new_privs() -> Result<(), SysError> {
    // SAFETY: integers only.
    let result = unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    check("prctl", result).map(drop)
}

/// Joins a fresh anonymous session keyring, so that the caller's is out of reach. `false`:
/// the kernel has no keyrings (ENOSYS), and so nothing is in reach. See keyctl(2).
pub fn join_fresh_session_keyring() -> Result<bool, SysError> {
    // SAFETY: a null name asks for an anonymous keyring.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    match check("keyctl", result) {
        Ok(_) => Ok(true),
        Err(error) if error.errno() == libc::ENOSYS => Ok(false),
        Err(error) => Err(error),
    }
}
