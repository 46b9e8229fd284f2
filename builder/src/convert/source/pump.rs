//! A registry's blob as a blocking reader.

use std::{
    io::{self, Read},
    ops::Range,
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use registry::{Client, Repository};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::timeout,
};

/// Streams that break before they brought anything new, one after another, until the blob is given up.
const TRIES: u32 = 4;
/// Longest silence of the registry and its mirrors together, each of which the client has tried again by then.
const PATIENCE: Duration = Duration::from_secs(75);
/// Parts of a body on their way: they are tens of KiB each.
const QUEUE: usize = 16;

/// Starts to fetch a blob; a broken stream goes on where it broke.
pub(super) fn read(
    client: Client,
    repository: Repository,
    digest: String,
    size: u64,
) -> impl Read + Send + 'static {
    let (to, parts) = channel(QUEUE);
    tokio::spawn(async move {
        let mut at = 0;
        let mut tries = 0;
        while at < size && tries < TRIES {
            match fetch(&client, &repository, &digest, at..size, &to).await {
                Ok(0) => tries += 1,
                Ok(n) => (at, tries) = (at + n, 0),
                // Nobody listens, or nothing more can be done.
                Err(()) => return,
            }
        }
        if at < size {
            let error = io::Error::other(format!("the registry sent {at} of {size} bytes"));
            to.send(Err(error)).await.ok();
        }
    });
    Parts { parts, part: Bytes::new() }
}

/// Hands on what comes; gives the number of bytes that came before the stream ended or broke.
async fn fetch(
    client: &Client,
    repository: &Repository,
    digest: &str,
    range: Range<u64>,
    to: &Sender<io::Result<Bytes>>,
) -> Result<u64, ()> {
    let whole = range.start == 0;
    let mut stream = match client.blob(repository, digest, (!whole).then_some(range)).await {
        Ok(stream) => stream,
        Err(error) if error.is_retryable() => return Ok(0),
        Err(error) => {
            to.send(Err(io::Error::other(error))).await.ok();
            return Err(());
        }
    };
    let mut got = 0;
    loop {
        let Ok(next) = timeout(PATIENCE, stream.next()).await else {
            let error = format!("the registry sends nothing for {PATIENCE:?}");
            to.send(Err(io::Error::new(io::ErrorKind::TimedOut, error))).await.ok();
            return Err(());
        };
        let Some(part) = next else { return Ok(got) };
        match part {
            Ok(part) => {
                got += part.len() as u64;
                to.send(Ok(part)).await.map_err(|_| ())?;
            }
            Err(error) if error.is_retryable() => return Ok(got),
            Err(error) => {
                to.send(Err(io::Error::other(error))).await.ok();
                return Err(());
            }
        }
    }
}

struct Parts {
    parts: Receiver<io::Result<Bytes>>,
    part: Bytes,
}

impl Read for Parts {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.parts.blocking_recv() {
                Some(part) => self.part = part?,
                None => return Ok(0),
            }
        }
        let n = buf.len().min(self.part.len());
        buf[..n].copy_from_slice(&self.part.split_to(n));
        Ok(n)
    }
}
