//! A FUSE descriptor that the caller has opened and mounted.
#![allow(unsafe_code, reason = "taking a descriptor by its number is unsafe by nature")]

use std::{
    fs, io,
    os::fd::{BorrowedFd, OwnedFd, RawFd},
};

use nix::fcntl::{FcntlArg, fcntl};

/// Takes descriptor `number`, which must be one of `/dev/fuse`.
///
/// # Errors
/// Where it is not open, or another file.
pub(crate) fn take(number: RawFd) -> io::Result<OwnedFd> {
    let target = fs::read_link(format!("/proc/self/fd/{number}"))
        .map_err(|_| io::Error::new(io::ErrorKind::NotFound, format!("descriptor {number} is not open")))?;
    if !target.ends_with("fuse") {
        let problem = format!("descriptor {number} is {}, not /dev/fuse", target.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    // SAFETY: the descriptor is open, as just seen, and borrowed only for the call that copies it. The original stays
    // open until the process ends: it is the caller's, who decides how long the mount lives.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    borrowed.try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn only_an_open_descriptor_of_the_fuse_device_is_taken() {
        let other = fs::File::open("/dev/null").unwrap();
        let error = take(other.as_raw_fd()).unwrap_err().to_string();
        assert!(error.ends_with("is /dev/null, not /dev/fuse"), "{error}");
        assert_eq!(take(1_000_000).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
