//! A layer's tree back to a tar, which makes the same tree again.

use std::{
    fs::File,
    io::{self, Cursor, Read, Write},
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
};

use rafs::{BlobId, ChunkRef, Compressor, Decoder, Inode, InodeId, Kind, Meta, Tree};
use tar::{Builder, EntryType, Header};

use crate::{
    BuildError,
    layer::{LOWER_LINK, is_implied},
};

/// The files of a tree's blobs.
#[derive(Debug)]
pub struct Blobs {
    files: Vec<File>,
}

impl Blobs {
    /// Opens them; `path` says where a blob is.
    ///
    /// # Errors
    /// [`BuildError::Read`] for a blob that is nowhere.
    pub fn open(tree: &Tree, path: impl Fn(&BlobId) -> Option<PathBuf>) -> Result<Self, BuildError> {
        let open = |id: &BlobId| match path(id) {
            Some(path) => File::open(&path).map_err(BuildError::read(format!("blob {}", path.display()))),
            None => Err(BuildError::read(format!("blob {id}"))(io::ErrorKind::NotFound.into())),
        };
        Ok(Self { files: tree.blobs.iter().map(|blob| open(&blob.id)).collect::<Result<_, _>>()? })
    }
}

/// Writes the tar of a layer.
///
/// # Errors
/// [`BuildError`] for blobs that do not hold what the tree says, or where the tar cannot be written.
pub fn unpack(tree: &Tree, blobs: Blobs, out: impl Write) -> Result<(), BuildError> {
    let mut tar = Unpacker { tree, blobs, tar: Builder::new(out), names: vec![None; tree.inodes.len()] };
    tar.directory(Tree::ROOT, Path::new(""))?;
    tar.tar.into_inner().and_then(|mut out| out.flush()).map_err(BuildError::write("tar"))
}

struct Unpacker<'a, W: Write> {
    tree: &'a Tree,
    blobs: Blobs,
    tar: Builder<W>,
    /// First name of each inode that is no directory.
    names: Vec<Option<PathBuf>>,
}

impl<W: Write> Unpacker<'_, W> {
    fn directory(&mut self, id: InodeId, path: &Path) -> Result<(), BuildError> {
        let mut todo = vec![(id, path.to_owned())];
        while let Some((id, path)) = todo.pop() {
            self.inode(id, &path)?;
            let children = self.tree.children(id).into_iter().flatten().rev();
            todo.extend(children.map(|(name, id)| (*id, path.join(std::ffi::OsStr::from_bytes(name)))));
        }
        Ok(())
    }

    fn inode(&mut self, id: InodeId, path: &Path) -> Result<(), BuildError> {
        let (tree, inode) = (self.tree, self.tree.inode(id));
        let is_root = id == Tree::ROOT;
        let is_plain = || inode.meta == Tree::new(tree.chunk_size).inode(Tree::ROOT).meta;
        // Without an entry it came, and without one it goes.
        if is_implied(&inode.meta) || is_root && is_plain() {
            return Ok(());
        }
        let path = if is_root { Path::new("./") } else { path };
        let failed = || BuildError::write(format!("entry {}", path.display()));
        if let Some(target) = inode.meta.xattrs.get(LOWER_LINK) {
            let target = PathBuf::from(std::ffi::OsStr::from_bytes(target));
            return self.link(&inode.meta, EntryType::Link, path, &target).map_err(failed());
        }
        if let Some(first) = self.names[id.0 as usize].clone() {
            return self.link(&inode.meta, EntryType::Link, path, &first).map_err(failed());
        }
        if !matches!(inode.kind, Kind::Directory(_)) {
            self.names[id.0 as usize] = Some(path.to_owned());
        }
        self.node(inode, path).map_err(failed())
    }

    fn node(&mut self, inode: &Inode, path: &Path) -> io::Result<()> {
        let meta = &inode.meta;
        let (kind, rdev) = match &inode.kind {
            Kind::File { size, chunks } => return self.file(meta, path, *size, chunks),
            Kind::Symlink(target) => {
                let target = PathBuf::from(std::ffi::OsStr::from_bytes(target));
                return self.link(meta, EntryType::Symlink, path, &target);
            }
            Kind::Directory(_) => (EntryType::Directory, 0),
            Kind::CharDevice(rdev) => (EntryType::Char, *rdev),
            Kind::BlockDevice(rdev) => (EntryType::Block, *rdev),
            Kind::Fifo => (EntryType::Fifo, 0),
            // No tar can hold one, and no unpacker would make it.
            Kind::Socket => return Ok(()),
        };
        let mut header = self.header(meta, kind)?;
        header.set_device_major(rdev >> 8 & 0xfff)?;
        header.set_device_minor(rdev & 0xff | rdev >> 12 & 0xf_ff00)?;
        self.tar.append_data(&mut header, path, io::empty())
    }

    fn link(&mut self, meta: &Meta, kind: EntryType, path: &Path, target: &Path) -> io::Result<()> {
        let mut header = self.header(meta, kind)?;
        self.tar.append_link(&mut header, path, target)
    }

    fn file(&mut self, meta: &Meta, path: &Path, size: u64, chunks: &[ChunkRef]) -> io::Result<()> {
        let mut header = self.header(meta, EntryType::Regular)?;
        header.set_size(size);
        let content = Content {
            tree: self.tree,
            blobs: &self.blobs,
            chunks,
            now: Cursor::default(),
            decoder: Decoder::default(),
        };
        self.tar.append_data(&mut header, path, content)
    }

    /// A header, after the PAX records that say what it has no place for.
    fn header(&mut self, meta: &Meta, kind: EntryType) -> io::Result<Header> {
        let mut records = Vec::new();
        if meta.mtime_nsec != 0 || meta.mtime < 0 {
            let nanos = i128::from(meta.mtime) * 1_000_000_000 + i128::from(meta.mtime_nsec);
            let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
            let text = format!("{sign}{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
            records.push(("mtime".to_owned(), text.into_bytes()));
        }
        for (name, value) in meta.xattrs.iter().filter(|(name, _)| *name != LOWER_LINK) {
            let name = std::str::from_utf8(name).map_err(io::Error::other)?;
            records.push((format!("SCHILY.xattr.{name}"), value.clone()));
        }
        self.tar
            .append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?;
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(meta.permissions.into());
        header.set_uid(meta.uid.into());
        header.set_gid(meta.gid.into());
        header.set_mtime(u64::try_from(meta.mtime).unwrap_or(0));
        header.set_size(0);
        Ok(header)
    }
}

/// Content of a file, chunk by chunk; each is checked against its digest.
struct Content<'a> {
    tree: &'a Tree,
    blobs: &'a Blobs,
    chunks: &'a [ChunkRef],
    now: Cursor<Vec<u8>>,
    decoder: Decoder,
}

impl Content<'_> {
    fn next(&mut self, at: ChunkRef) -> io::Result<Vec<u8>> {
        let index = usize::from(at.blob.0);
        let blob = &self.tree.blobs[index];
        let chunk = blob.chunks.get(at.chunk).copied();
        let chunk = chunk
            .ok_or_else(|| io::Error::other(format!("chunk {} of {} is unknown", at.chunk.0, blob.id)))?;
        let mut stored = vec![0; chunk.compressed_size as usize];
        self.blobs.files[index].read_exact_at(&mut stored, chunk.compressed_offset)?;
        let mut plain = vec![0; chunk.uncompressed_size as usize];
        let how = if chunk.is_compressed { blob.compressor } else { Compressor::None };
        self.decoder.decode(how, &stored, &mut plain).map_err(io::Error::other)?;
        match blob.digest_algorithm.digest(&plain) == chunk.digest {
            true => Ok(plain),
            false => Err(io::Error::other(format!("chunk {} of {} has another digest", at.chunk.0, blob.id))),
        }
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.now.position() == self.now.get_ref().len() as u64 {
            let Some((at, rest)) = self.chunks.split_first() else { return Ok(0) };
            let plain = self.next(*at)?;
            (self.now, self.chunks) = (Cursor::new(plain), rest);
        }
        self.now.read(buf)
    }
}
