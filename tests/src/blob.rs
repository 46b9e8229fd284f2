//! A blob in a registry, as programs of a node ask its p2pd for it.

use std::{fs, net::SocketAddr, ops::Range, path::Path};

use anyhow::{Context, Result, ensure};
use p2p_pieces::PieceLister;

use crate::{http::Answer, image::generated::noise, p2pd::P2pd, registry::Registry};

/// The repository that these blobs are in.
const REPOSITORY: &str = "blobs";

/// A blob in the registry, and the list of its pieces.
#[derive(Debug)]
pub struct Blob {
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Its digest.
    pub digest: String,
    list: Vec<u8>,
    name: String,
    registry: SocketAddr,
}

impl Blob {
    /// Makes a blob of so many pieces, the last one shorter, and pushes it. Nodes reach the registry at `seen_at`.
    ///
    /// # Errors
    /// Where the registry does not take it.
    pub fn publish(
        registry: &Registry,
        seen_at: SocketAddr,
        dir: &Path,
        (seed, pieces, piece_size): (u64, usize, u32),
    ) -> Result<Self> {
        let bytes = noise(seed, pieces * usize::try_from(piece_size)? - 77);
        let file = dir.join(format!("blob-{seed}"));
        fs::write(&file, &bytes)?;
        let digest = registry.push_blob(REPOSITORY, &file)?;
        fs::remove_file(file)?;
        let mut lister = PieceLister::with_size(piece_size)?;
        lister.update(&bytes);
        let list = lister.finish()?;
        ensure!(list.layout().count().get() as usize == pieces, "{} pieces", list.layout().count().get());
        Ok(Self { bytes, digest, name: hex::encode(list.digest()), list: list.encode(), registry: seen_at })
    }

    /// Hands the list of its pieces to a node.
    ///
    /// # Errors
    /// Where the node refuses it.
    pub fn introduce(&self, node: &P2pd) -> Result<()> {
        let path = format!("/v1/blobs/{}/pieces?repository={}/{REPOSITORY}", self.digest, self.registry);
        let answer = node.call("PUT", &path, &[], &self.list)?;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    }

    /// Asks a node for a part of it.
    ///
    /// # Errors
    /// Where the node does not answer.
    pub fn ask(&self, node: &P2pd, range: &Range<usize>, priority: &str) -> Result<Answer> {
        let path = format!("/v1/blobs/{}?list={}", self.digest, self.name);
        let bytes = format!("bytes={}-{}", range.start, range.end - 1);
        node.call("GET", &path, &[("Range", &bytes), ("X-Shoal-Priority", priority)], &[])
    }

    /// Reads a part of it, and checks that.
    ///
    /// # Errors
    /// Where the node does not give it.
    pub fn read(&self, node: &P2pd, range: Range<usize>, priority: &str) -> Result<()> {
        let answer = self.ask(node, &range, priority)?;
        ensure!(answer.status == 206, "{}", answer.text());
        ensure!(answer.body == self.bytes[range.clone()], "wrong bytes in {range:?}");
        Ok(())
    }

    /// Pulls all of it through a node's mirror, as a blob without a list.
    ///
    /// # Errors
    /// Where the node does not give it.
    pub fn pull(&self, node: &P2pd) -> Result<()> {
        let path = format!("{}?ns={}", self.path(), self.registry);
        let answer = node.call("GET", &path, &[], &[])?;
        ensure!(answer.status == 200, "{}", answer.text());
        ensure!(answer.body == self.bytes, "wrong bytes");
        Ok(())
    }

    /// How many of its pieces a node has.
    ///
    /// # Errors
    /// Where the node does not know it.
    pub fn pieces_at(&self, node: &P2pd) -> Result<u64> {
        let status = node.status()?;
        let blobs = status["blobs"].as_array().context("a list of blobs")?;
        let known = blobs.iter().find(|known| known["digest"] == self.digest.as_str()).context("the blob")?;
        known["pieces_here"].as_u64().context("a number")
    }

    /// Where a registry, or a mirror, gives it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/v2/{REPOSITORY}/blobs/{}", self.digest)
    }

    /// The file that the registry keeps it in.
    #[must_use]
    pub fn file(&self, registry: &Registry) -> std::path::PathBuf {
        registry.blob_file(self.digest.trim_start_matches("sha256:"))
    }
}
