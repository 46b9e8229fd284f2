//! Whether this machine's kernel can read images by itself: a small one is really mounted, as containers would have it.

use std::{collections::BTreeMap, fs, io, path::Path};

use nix::mount::{MsFlags, mount};
use nydusd_api::detach;
use rafs::{
    Blob, BlobId, BlobIndex, BootstrapWriter, Chunk, ChunkIndex, ChunkRef, Compressor, Digest,
    DigestAlgorithm, FormatError, Inode, Kind, Meta, Tree,
    blob::{CiLocation, feature},
};

use super::driver;
use crate::mounts::PROBE_NAME;

const BLOCK: usize = 4096;
const FILE: &str = "file";
/// First releases with the fix of CVE-2026-23224, a use after free in EROFS' direct reads of files, by series; later
/// series have it from the start. Series between these never got it.
const FIXED: [(u32, u32, u32); 3] = [(6, 12, 72), (6, 18, 11), (6, 19, 1)];

/// A kernel that cannot.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("Linux {0} reads files directly with a known fault (CVE-2026-23224), or not at all")]
    Release(String),
    #[error("the probe's image: {0}")]
    Image(#[from] FormatError),
    #[error("the probe's files: {0}")]
    Files(io::Error),
    #[error("EROFS from a file: {0}")]
    Erofs(io::Error),
    #[error("EROFS gives wrong bytes")]
    Bytes,
    #[error("EROFS does not show the attribute {0}")]
    Attribute(&'static str),
    #[error("overlayfs over overlayfs over EROFS: {0}")]
    Overlay(io::Error),
}

/// Attributes that containers need: capabilities, access control lists, and what overlayfs itself keeps.
fn attributes() -> [(&'static str, Vec<u8>); 4] {
    // Version, then tag, permissions and id of each entry: owner, user 1, group, mask, others (acl(5)).
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 4, 1), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 4, u32::MAX)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        list.extend(id.to_le_bytes());
    }
    // Version 2, cap_net_bind_service permitted (capabilities(7)).
    let capability = [&0x0200_0000_u32.to_le_bytes()[..], &(1_u32 << 10).to_le_bytes(), &[0; 12]].concat();
    [
        ("user.shoal", b"1".to_vec()),
        ("trusted.shoal", b"2".to_vec()),
        ("security.capability", capability),
        ("system.posix_acl_access", list),
    ]
}

/// The bytes of the probe's blob.
pub(crate) fn probe_block() -> Vec<u8> {
    (0..BLOCK).map(|at| u8::try_from(at % 251).expect("below 251")).collect()
}

/// Mounts a small image below `within`, whose blob is in the directory `blobs` of the daemon's own FUSE mount, and takes
/// it away again.
pub(super) fn probe(blobs: &Path, within: &Path) -> Result<(), Unfit> {
    let release = nix::sys::utsname::uname().map_err(|errno| Unfit::Files(errno.into()))?;
    let release = release.release().to_string_lossy();
    if !is_fixed(&release) {
        return Err(Unfit::Release(release.into_owned()));
    }
    let dir = tempfile::Builder::new().prefix(".probe-").tempdir_in(within).map_err(Unfit::Files)?;
    let path = |name: &str| dir.path().join(name);
    let bootstrap = path("bootstrap");
    fs::write(&bootstrap, image()?).map_err(Unfit::Files)?;
    let [none, erofs, lower, upper] = ["none", "erofs", "lower", "upper"].map(path);
    for place in [&none, &erofs, &lower, &upper] {
        fs::create_dir(place).map_err(Unfit::Files)?;
    }
    let _taken_away = Held::over(dir.path()).map_err(Unfit::Files)?;
    driver::mount(&bootstrap, &[blobs.join(PROBE_NAME)], &erofs).map_err(Unfit::Erofs)?;
    look(&erofs)?;
    // Two, one upon the other: containers in containers.
    overlay(&[&erofs, &none], &lower)?;
    overlay(&[&lower, &none], &upper)?;
    look(&upper)
}

/// Whether everything of the image is there.
fn look(at: &Path) -> Result<(), Unfit> {
    let file = at.join(FILE);
    if fs::read(&file).map_err(Unfit::Erofs)? != probe_block() {
        return Err(Unfit::Bytes);
    }
    for (name, value) in attributes() {
        let mut found = vec![0; value.len() + 1];
        let len = rustix::fs::getxattr(&file, name, &mut found[..]).map_err(|_| Unfit::Attribute(name))?;
        // overlayfs may show its own and not what is below.
        if found[..len] != value {
            return Err(Unfit::Attribute(name));
        }
    }
    Ok(())
}

fn overlay(lowers: &[&Path], at: &Path) -> Result<(), Unfit> {
    let lowers: Vec<_> = lowers.iter().map(|lower| lower.display().to_string()).collect();
    let options = format!("lowerdir={}", lowers.join(":"));
    mount(Some("overlay"), at, Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str()))
        .map_err(|errno| Unfit::Overlay(errno.into()))
}

/// A directory that is a mount of its own: what is mounted in it goes with it, also where this process was killed and
/// somebody else takes it away.
struct Held<'a>(&'a Path);

impl<'a> Held<'a> {
    fn over(dir: &'a Path) -> io::Result<Self> {
        mount(Some(dir), dir, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        let held = Self(dir);
        // Else mounts in it would be made below it too, where nobody finds them.
        mount(None::<&str>, dir, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
        Ok(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Err(error) = detach(self.0) {
            tracing::warn!(at = %self.0.display(), %error, "the probe's mounts cannot be taken away");
        }
    }
}

/// One file of one block, with all attributes.
fn image() -> Result<Vec<u8>, FormatError> {
    let (blob, chunk, len) = (BlobIndex(0), ChunkIndex(0), u32::try_from(BLOCK).expect("4096"));
    let mut tree = Tree::new(1 << 20);
    let xattrs: BTreeMap<_, _> =
        attributes().into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value)).collect();
    let kind = Kind::File { size: BLOCK as u64, chunks: vec![ChunkRef { blob, chunk }] };
    let file = tree.add(Inode { meta: Meta { permissions: 0o644, xattrs, ..Meta::default() }, kind });
    tree.children_mut(Tree::ROOT).expect("it is a directory").insert(FILE.into(), file);
    let stored = Chunk {
        digest: Digest([1; 32]),
        compressed_offset: 0,
        compressed_size: len,
        uncompressed_offset: 0,
        uncompressed_size: len,
        is_compressed: false,
        crc32c: None,
    };
    tree.blobs.push(Blob {
        id: BlobId::from_sha256(&[1; 32]),
        compressor: Compressor::None,
        digest_algorithm: DigestAlgorithm::Sha256,
        features: feature::ALIGNED,
        compressed_size: BLOCK as u64,
        uncompressed_size: BLOCK as u64,
        chunk_count: 1,
        // One record; only builders read it.
        ci: CiLocation { compressed_size: 16, uncompressed_size: 16, ..CiLocation::default() },
        toc_size: 0,
        toc_digest: [0; 32],
        chunks: [stored].into_iter().collect(),
    });
    Ok(BootstrapWriter::new(&tree).write()?.bytes)
}

/// Whether a kernel of this release is known to have the fix.
fn is_fixed(release: &str) -> bool {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let mut next = || numbers.next().unwrap_or(0);
    let (major, minor, patch) = (next(), next(), next());
    if major >= 7 {
        return true;
    }
    FIXED.iter().any(|fixed| (major, minor) == (fixed.0, fixed.1) && patch >= fixed.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernels_with_the_fix_are_trusted() {
        for release in ["6.18.44-fc", "6.12.72", "6.12.90-amd64", "6.18.11+deb14", "6.19.1", "7.0.0-rc1"] {
            assert!(is_fixed(release), "{release}");
        }
        for release in ["6.1.0-28-amd64", "6.12.71", "6.17.13", "6.18.10", "6.19.0", "5.15.0-91-generic", "x"]
        {
            assert!(!is_fixed(release), "{release}");
        }
    }

    #[test]
    fn the_probes_image_is_one_that_would_be_mounted() {
        rafs::Bootstrap::open(image().unwrap()).unwrap().check_all().unwrap();
    }
}
