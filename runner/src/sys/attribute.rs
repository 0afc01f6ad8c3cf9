// SPDX-License-Identifier: MIT OR Apache-2.0
//! Extended attributes, read only.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::SysError;

/// Longest value that is read; a longer one is an error (ERANGE).
const LONGEST: usize = 256;

/// The value of an extended attribute. See getxattr(2).
pub fn read(path: &Path, name: &str) -> Result<Vec<u8>, SysError> {
    let text = |bytes: &[u8]| {
        CString::new(bytes).map_err(|error| SysError {
            call: "getxattr",
            source: error.into(),
        })
    };
    let (path, name) = (text(path.as_os_str().as_bytes())?, text(name.as_bytes())?);
    let mut value = vec![0; LONGEST];
    // SAFETY: NUL-terminated strings and a live buffer of the length that is passed.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    let Ok(length) = usize::try_from(length) else {
        return Err(SysError::last("getxattr"));
    };
    value.truncate(length);
    Ok(value)
}
