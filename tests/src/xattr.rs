//! Extended attributes: the two calls that std and nix lack.
#![allow(unsafe_code, reason = "llistxattr and lgetxattr have no safe wrapper in our dependencies")]

use std::{ffi::CStr, io, ptr};

/// Names of the attributes of `path`, each ended by a zero; symlinks are not followed.
///
/// # Errors
/// What the kernel answers.
pub fn list(path: &CStr) -> io::Result<Vec<u8>> {
    filled(|buf, len| {
        // SAFETY: `path` is a C string, `buf` is null with a length of 0 or points to `len` writable bytes.
        unsafe { libc::llistxattr(path.as_ptr(), buf.cast(), len) }
    })
}

/// Value of an attribute of `path`; symlinks are not followed.
///
/// # Errors
/// What the kernel answers.
pub fn get(path: &CStr, name: &CStr) -> io::Result<Vec<u8>> {
    filled(|buf, len| {
        // SAFETY: both names are C strings, `buf` is null with a length of 0 or points to `len` writable bytes.
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buf.cast(), len) }
    })
}

/// Asks for the size, then for the bytes.
fn filled(call: impl Fn(*mut u8, usize) -> isize) -> io::Result<Vec<u8>> {
    let size = usize::try_from(call(ptr::null_mut(), 0)).map_err(|_| io::Error::last_os_error())?;
    let mut bytes = vec![0; size];
    let len = usize::try_from(call(bytes.as_mut_ptr(), size)).map_err(|_| io::Error::last_os_error())?;
    bytes.truncate(len);
    Ok(bytes)
}
