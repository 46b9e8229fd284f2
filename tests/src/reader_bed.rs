//! Nodes of the piece network, each with a nydusd that shows an image of one registry.

use std::{fs, net::Ipv4Addr, ops::Range, os::unix::fs::FileExt as _, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{
    command::{run, wait_for},
    image::generated::{files, noise},
    nydusd::{Nydusd, unpack_bootstrap},
    p2pd::P2pd,
    programs,
    registry::{Registry, free_address},
    relay::{Link, Relay},
    scratch::Scratch,
};

/// Files of the image, named by their numbers.
pub const FILES: u64 = 24;
/// Length of each in bytes.
pub const FILE: usize = 1 << 20;
/// Bytes of a piece.
const PIECE: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// What the nodes of a bed share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// The image's repository.
    All,
    /// What everybody may read.
    Nothing,
}

/// Nodes, each with a nydusd of its own, before a registry. Ends in the order of its fields.
#[derive(Debug)]
pub struct ReaderBed {
    /// The nydusd of each node, as far as they were started.
    pub readers: Vec<Nydusd>,
    /// The nodes.
    pub nodes: Vec<P2pd>,
    relay: Relay,
    /// The registry, behind the relay.
    pub registry: Registry,
    bootstrap: PathBuf,
    blobs: Vec<String>,
    /// Where all of it is.
    pub scratch: Scratch,
}

impl ReaderBed {
    /// So many nodes that know each other, and no reader yet.
    ///
    /// # Errors
    /// Where something does not start.
    pub fn start(nodes: u8, share: Share, link: Link) -> Result<Self> {
        let scratch = Scratch::new("p2p-nydusd")?;
        let registry = Registry::start(&scratch.dir("registry")?)?;
        registry.push(&files(&scratch.dir("image")?, FILES, FILE)?, "app", "plain")?;
        let at = format!("{}/app", registry.address());
        run(&mut programs::shoal(["convert", &format!("{at}:plain"), &format!("{at}:lazy")])?)?;
        let bootstrap = scratch.dir("bootstrap")?;
        let blobs = unpack_bootstrap(&registry, "app", "lazy", &bootstrap)?;
        let relay = Relay::start(registry.address(), link)?;
        let share = match share {
            Share::All => format!("{}/*", relay.address()),
            Share::Nothing => "registry.example/nothing".to_owned(),
        };
        let port = free_address()?.port();
        let mut bed =
            Self { readers: Vec::new(), nodes: Vec::new(), relay, registry, bootstrap, blobs, scratch };
        for number in 0..nodes {
            let token = bed.nodes.first().map(P2pd::token).transpose()?;
            let dir = bed.scratch.dir(&format!("node-{number}"))?;
            let host = Ipv4Addr::new(127, 0, 0, 2 + number);
            bed.nodes.push(P2pd::start(&dir, host, port, token.as_deref(), &share)?);
        }
        bed.nodes.iter().try_for_each(|node| node.sees(nodes.into()))?;
        Ok(bed)
    }

    /// Makes the image one that lists no pieces, as those of other builders are.
    ///
    /// # Errors
    /// Where a list cannot be removed, or there is none.
    pub fn drop_lists(&self) -> Result<()> {
        let mut lists = 0;
        for found in fs::read_dir(self.bootstrap.join("image"))? {
            let path = found?.path();
            if path.extension().is_some_and(|extension| extension == "pieces") {
                fs::remove_file(path)?;
                lists += 1;
            }
        }
        ensure!(lists == self.blobs.len(), "{lists} lists of {} blobs", self.blobs.len());
        Ok(())
    }

    /// Takes the image's blobs away from the registry.
    ///
    /// # Errors
    /// Where one is not there.
    pub fn lose_blobs(&self) -> Result<()> {
        for blob in &self.blobs {
            let path = self.registry.blob_file(blob);
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// Mounts the image on the next node, by a credential or without.
    ///
    /// # Errors
    /// Where the image is not seen in time.
    pub fn mount(&mut self, auth: Option<&str>) -> Result<()> {
        let number = self.readers.len();
        let mut backend = serde_json::json!({
            "host": self.relay.address().to_string(),
            "repo": "app",
            "scheme": "http",
            "p2p_socket": self.nodes[number].socket(),
        });
        if let Some(auth) = auth {
            backend["auth"] = auth.into();
        }
        let dir = self.scratch.dir(&format!("reader-{number}"))?;
        self.readers.push(Nydusd::start(&dir, &self.bootstrap, &backend)?);
        Ok(())
    }

    /// Mounts the image on all nodes.
    ///
    /// # Errors
    /// As [`Self::mount`].
    pub fn mount_all(&mut self) -> Result<()> {
        (0..self.nodes.len()).try_for_each(|_| self.mount(None))
    }

    /// Waits until nydusd has handed its lists over, as it does at mount.
    ///
    /// # Errors
    /// Where it has not in time.
    pub fn introduced(&self, node: usize) -> Result<()> {
        wait_for("the lists", PATIENCE, || Ok((self.known(node)? == self.blobs.len()).then_some(())))
    }

    /// Blobs that a node knows.
    ///
    /// # Errors
    /// Where the node does not answer.
    pub fn known(&self, node: usize) -> Result<usize> {
        let status = self.nodes[node].status()?;
        Ok(status["blobs"].as_array().map_or(0, Vec::len))
    }

    /// Reads files on a node, and checks them.
    ///
    /// # Errors
    /// Where a file cannot be read or is wrong.
    pub fn read(&self, node: usize, numbers: Range<u64>) -> Result<()> {
        for number in numbers {
            let found = self.readers[node].read(&number.to_string())?;
            ensure!(found == noise(number, FILE), "node {node}: wrong bytes in {number}");
        }
        Ok(())
    }

    /// Flips a bit of every piece that a node has on its disk; says of how many.
    ///
    /// # Errors
    /// Where a piece cannot be changed.
    pub fn rot(&self, node: usize) -> Result<usize> {
        let mut rotten = 0;
        for task in fs::read_dir(self.scratch.path().join(format!("node-{node}/root/pieces")))? {
            let path = task?.path().join("data");
            if !path.is_file() {
                continue;
            }
            let file = fs::File::options().read(true).write(true).open(path)?;
            for at in (PIECE / 2..file.metadata()?.len()).step_by(usize::try_from(PIECE)?) {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at)?;
                file.write_all_at(&[byte[0] ^ 1], at)?;
                rotten += 1;
            }
        }
        Ok(rotten)
    }

    /// Copies of all files that the registry has sent.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    pub fn copies(&self) -> f64 {
        self.relay.received() as f64 / (FILES as f64 * FILE as f64)
    }

    /// Reads all on a node, and has something done after a third of it.
    ///
    /// # Errors
    /// Where a file is wrong, or what is done fails.
    pub fn read_and(&self, node: usize, then: impl FnOnce() -> Result<()>) -> Result<()> {
        self.read(node, 0..FILES / 3)?;
        thread::scope(|scope| {
            let rest = scope.spawn(|| self.read(node, FILES / 3..FILES));
            then()?;
            rest.join().map_err(|_| anyhow!("a reader has panicked"))?
        })
    }
}
