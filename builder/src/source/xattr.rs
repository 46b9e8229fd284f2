//! Extended attributes of a file on disk.
#![allow(unsafe_code, reason = "nix has no calls for extended attributes")]

use std::{collections::BTreeMap, ffi::CString, io, os::unix::ffi::OsStrExt, path::Path};

/// Name and value of each attribute; a symbolic link's own, not its target's.
pub(super) fn read_all(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is NUL-terminated, and the buffer is as long as said.
    let names = sized(|buf, len| unsafe { libc::llistxattr(path.as_ptr(), buf.cast(), len) })?;
    let mut found = BTreeMap::new();
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let c_name = CString::new(name)?;
        // SAFETY: path and name are NUL-terminated, and the buffer is as long as said.
        let value =
            sized(|buf, len| unsafe { libc::lgetxattr(path.as_ptr(), c_name.as_ptr(), buf.cast(), len) })?;
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

/// Asks for the size, then for the bytes, until both agree.
fn sized(call: impl Fn(*mut u8, usize) -> isize) -> io::Result<Vec<u8>> {
    loop {
        let size = usize::try_from(call(std::ptr::null_mut(), 0)).map_err(|_| io::Error::last_os_error())?;
        let mut buf = vec![0; size];
        match usize::try_from(call(buf.as_mut_ptr(), size)) {
            Ok(len) => {
                buf.truncate(len);
                return Ok(buf);
            }
            // It grew in between.
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ERANGE) => {}
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
}
