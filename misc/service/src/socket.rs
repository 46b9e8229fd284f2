//! A unix socket that a daemon serves on.

use std::{
    io,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The owner.
    Owner,
    /// The owner and its group, or another group by its number.
    Group(Option<u32>),
}

/// A socket that is listened to.
#[derive(Debug)]
pub struct Socket {
    /// The socket in the file system.
    pub file: SocketFile,
    /// Those who connect.
    pub listener: UnixListener,
}

/// A socket in the file system; removed when dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = remove_if_there(&self.0) {
            tracing::warn!("the socket {} stays: {error}", self.0.display());
        }
    }
}

impl Socket {
    /// Listens at `path`. A socket that nobody answers at is replaced.
    ///
    /// # Errors
    /// Where another daemon answers there, or it cannot be made.
    pub fn bind(path: &Path, access: Access) -> io::Result<Self> {
        if StdUnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon answers at this socket"));
        }
        // Bound under another name first: there is no moment at which others may connect.
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let private = path.with_file_name(format!(".{name}.{}", std::process::id()));
        remove_if_there(&private)?;
        let listener = UnixListener::bind(&private)?;
        let settled = access.give(&private).and_then(|()| std::fs::rename(&private, path));
        if let Err(error) = settled {
            remove_if_there(&private)?;
            return Err(error);
        }
        Ok(Self { file: SocketFile(path.to_owned()), listener })
    }
}

impl Access {
    fn give(self, path: &Path) -> io::Result<()> {
        let mode = match self {
            Self::Owner => 0o600,
            Self::Group(group) => {
                chown(path, None, group)?;
                0o660
            }
        };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = Socket::bind(&path, Access::Owner).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(Socket::bind(&path, Access::Owner).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(live);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_group_may_connect_where_that_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let _socket = Socket::bind(&path, Access::Group(None)).unwrap();
        assert_eq!(mode(&path), 0o660);
    }
}
