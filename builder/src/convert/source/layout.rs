//! OCI image layouts: a directory, or a tar of one.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::{Descriptor, ImageIndex};

use super::super::{ConvertError, manifest::REF_NAME};

/// An image layout, and which image in it.
#[derive(Debug, Clone)]
pub(in super::super) struct Layout {
    path: PathBuf,
    tag: Option<String>,
    /// Where each file of an archive stands. `None` for a directory.
    members: Option<Arc<HashMap<String, (u64, u64)>>>,
}

impl Layout {
    pub(super) fn directory(path: PathBuf, tag: Option<String>) -> Result<Self, ConvertError> {
        Ok(Self { path, tag, members: None })
    }

    pub(super) fn archive(path: PathBuf, tag: Option<String>) -> Result<Self, ConvertError> {
        let members =
            members(&path).map_err(ConvertError::file(format!("read archive {}", path.display())))?;
        Ok(Self { path, tag, members: Some(Arc::new(members)) })
    }

    /// The manifest or index that the layout's tag names; without a tag there must be only one.
    pub(super) fn root(&self) -> Result<Descriptor, ConvertError> {
        let what = format!("index.json of {}", self.path.display());
        let mut bytes = Vec::new();
        let file = self.file("index.json").map_err(ConvertError::file(format!("read {what}")))?;
        file.take(super::MAX_DOCUMENT)
            .read_to_end(&mut bytes)
            .map_err(ConvertError::file(format!("read {what}")))?;
        let index: ImageIndex = serde_json::from_slice(&bytes).map_err(ConvertError::json(what.clone()))?;
        let all = index.manifests();
        let named = |tag: &str| all.iter().find(|found| name(found) == Some(tag)).cloned();
        match (&self.tag, all.as_slice()) {
            (Some(tag), _) => {
                named(tag).ok_or_else(|| ConvertError::image(what, format!("it has no tag {tag:?}")))
            }
            (None, [only]) => Ok(only.clone()),
            (None, _) => named("latest")
                .ok_or_else(|| ConvertError::image(what, format!("it has {} images: name a tag", all.len()))),
        }
    }

    pub(super) fn blob(&self, hex: &str) -> Result<Box<dyn Read + Send>, ConvertError> {
        let name = format!("blobs/sha256/{hex}");
        self.file(&name).map_err(ConvertError::file(format!("open {name} of {}", self.path.display())))
    }

    fn file(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let Some(members) = &self.members else {
            return Ok(Box::new(open(&self.path.join(name))?));
        };
        let (offset, len) = *members.get(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Box::new(Part { file: open(&self.path)?, offset, len }))
    }
}

/// The tag of an entry of `index.json`; containerd writes whole references, whose tag is behind the last colon.
fn name(descriptor: &Descriptor) -> Option<&str> {
    descriptor
        .annotations()
        .as_ref()?
        .get(REF_NAME)
        .map(|name| name.rsplit(['/', ':']).next().unwrap_or(name))
}

fn members(path: &Path) -> io::Result<HashMap<String, (u64, u64)>> {
    let mut archive = tar::Archive::new(open(path)?);
    let mut members = HashMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if entry.header().entry_type().is_file() {
            let name = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            members.insert(name, (entry.raw_file_position(), entry.size()));
        }
    }
    Ok(members)
}

/// Opens what must be a file: a pipe would be waited for, and cannot be read twice.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// A part of a file.
struct Part {
    file: File,
    offset: u64,
    len: u64,
}

impl Read for Part {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.len).map_or(buf.len(), |len| len.min(buf.len()));
        let n = self.file.read_at(&mut buf[..want], self.offset)?;
        self.offset += n as u64;
        self.len -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_no_archive_and_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = anyhow::Error::from(Layout::archive(pipe, None).unwrap_err());
        assert!(format!("{error:#}").contains("not a regular file"), "{error:#}");
    }
}
