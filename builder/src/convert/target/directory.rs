//! An OCI image layout directory as target.

use std::{
    fs::{File, TryLockError},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use oci_spec::image::{Descriptor, ImageIndex, ImageIndexBuilder};
use tempfile::TempPath;

use super::super::{ConvertError, manifest, work};

/// Longest wait for those who name images in the same layout.
const TURN: Duration = Duration::from_secs(10);
const TURN_POLL: Duration = Duration::from_millis(20);

/// The layout, and the tag that the image gets in it.
#[derive(Debug)]
pub(in super::super) struct Directory {
    path: PathBuf,
    tag: String,
}

impl Directory {
    pub(super) fn create(path: PathBuf, tag: Option<String>) -> Result<Self, ConvertError> {
        let blobs = path.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(ConvertError::file(format!("create {}", blobs.display())))?;
        Ok(Self { path, tag: tag.unwrap_or_else(|| "latest".into()) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn blob_path(&self, hex: &str) -> PathBuf {
        self.path.join("blobs/sha256").join(hex)
    }

    fn has(&self, hex: &str, size: u64) -> bool {
        std::fs::metadata(self.blob_path(hex)).is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// Takes over a finished file; `false` where its blob is there already.
    pub(super) fn take(&self, hex: &str, size: u64, file: TempPath) -> Result<bool, ConvertError> {
        if self.has(hex, size) {
            return Ok(false);
        }
        let to = self.blob_path(hex);
        let what = || format!("write {}", to.display());
        // Temporary files are made for their owner only; a blob is for all.
        set_readable(&file).map_err(ConvertError::file(what()))?;
        match file.persist(&to) {
            Ok(()) => Ok(true),
            Err(failed) if failed.error.kind() == ErrorKind::CrossesDevices => {
                let mut from = std::fs::File::open(&failed.path).map_err(ConvertError::file(what()))?;
                self.replace(&to, |out| std::io::copy(&mut from, out).map(drop))?;
                Ok(true)
            }
            Err(failed) => Err(ConvertError::File { what: what(), source: failed.error }),
        }
    }

    pub(super) fn write(&self, hex: &str, bytes: &[u8]) -> Result<(), ConvertError> {
        if self.has(hex, bytes.len() as u64) {
            return Ok(());
        }
        self.replace(&self.blob_path(hex), |out| out.write_all(bytes))
    }

    /// Names the image in `index.json`, beside those that are there under other names.
    pub(super) async fn tag(&self, descriptor: &Descriptor) -> Result<(), ConvertError> {
        let path = self.path.join("index.json");
        let what = || path.display().to_string();
        // Another conversion may name its image at the same time; the lock goes with this descriptor. The directory itself
        // may be a temporary one, which its process holds.
        let blobs = self.path.join("blobs");
        let _turn =
            turn(&blobs).await.map_err(ConvertError::file(format!("lock {}", self.path.display())))?;
        let mut others = match std::fs::read(&path) {
            Ok(bytes) => {
                let index: ImageIndex = serde_json::from_slice(&bytes).map_err(ConvertError::json(what()))?;
                index.manifests().clone()
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(ConvertError::File { what: format!("read {}", what()), source }),
        };
        others.retain(|other| {
            other.annotations().as_ref().and_then(|all| all.get(manifest::REF_NAME)) != Some(&self.tag)
        });
        let mut named = descriptor.clone();
        let mut annotations = named.annotations().clone().unwrap_or_default();
        annotations.insert(manifest::REF_NAME.into(), self.tag.clone());
        named.set_annotations(Some(annotations));
        others.push(named);
        let index = ImageIndexBuilder::default()
            .schema_version(2_u32)
            .media_type(oci_spec::image::MediaType::ImageIndex)
            .manifests(others)
            .build()
            .expect("all required fields are set");
        let bytes = manifest::to_bytes(&index, "index.json")?;
        let layout = self.path.join("oci-layout");
        self.replace(&layout, |out| out.write_all(br#"{"imageLayoutVersion":"1.0.0"}"#))?;
        self.replace(&path, |out| out.write_all(&bytes))
    }

    /// Writes a file beside `to` and renames it there, so that `to` is always whole.
    fn replace(
        &self,
        to: &Path,
        write: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>,
    ) -> Result<(), ConvertError> {
        let done = || -> std::io::Result<()> {
            let mut file = work::file_in(&self.path)?;
            write(file.as_file_mut())?;
            set_readable(file.path())?;
            file.persist(to).map_err(|error| error.error)?;
            Ok(())
        };
        done().map_err(ConvertError::file(format!("write {}", to.display())))
    }
}

/// The lock of a directory, which is held for milliseconds.
async fn turn(blobs: &Path) -> std::io::Result<File> {
    let blobs = File::open(blobs)?;
    let deadline = Instant::now() + TURN;
    loop {
        match blobs.try_lock() {
            Ok(()) => return Ok(blobs),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(TURN_POLL).await;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(std::io::Error::new(
                    ErrorKind::TimedOut,
                    format!("another program has held it for {TURN:?}"),
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn set_readable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}
