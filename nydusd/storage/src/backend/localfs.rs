//! Blobs as files of this machine.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use rafs::BlobId;
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{Backend, BackendError, ByteStream, Priority, Via};

/// Bytes read at a time.
const STEP: u64 = 1 << 20;
/// Threads that may stand in this file system, which may be one that hangs: others have their own need of threads.
const MAX_THREADS: usize = 32;

/// A directory with a file `<id>` per blob, or one file that is every blob.
#[derive(Debug)]
pub struct LocalFsBackend {
    place: Place,
    threads: Arc<Semaphore>,
}

#[derive(Debug)]
enum Place {
    Dir(PathBuf),
    File(PathBuf),
}

impl LocalFsBackend {
    /// Blobs `<dir>/<id>`.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self::at(Place::Dir(dir.into()))
    }

    /// One blob, whatever its id.
    #[must_use]
    pub fn of_file(file: &Path) -> Self {
        Self::at(Place::File(file.into()))
    }

    fn at(place: Place) -> Self {
        Self { place, threads: Arc::new(Semaphore::new(MAX_THREADS)) }
    }

    fn path(&self, blob: &BlobId) -> PathBuf {
        match &self.place {
            Place::Dir(dir) => dir.join(blob.as_str()),
            Place::File(file) => file.clone(),
        }
    }
}

impl Backend for LocalFsBackend {
    fn read(
        self: Arc<Self>,
        blob: BlobId,
        range: Range<u64>,
        _priority: Priority,
        _via: Via,
    ) -> BoxFuture<'static, Result<ByteStream, BackendError>> {
        async move {
            let (backend, path, wanted) = (self.name(), self.path(&blob), range.clone());
            let named = move |source: io::Error| BackendError {
                backend: backend.clone(),
                blob: blob.clone(),
                range: wanted.clone(),
                retryable: false,
                source: Box::new(source),
            };
            let end = range.end;
            let threads = Arc::clone(&self.threads);
            let file = blocking(&threads, move || open(&path, end)).await.map_err(&named)?;
            Ok(pieces(threads, Arc::new(file), range).map(move |bytes| bytes.map_err(&named)).boxed())
        }
        .boxed()
    }

    fn name(&self) -> String {
        match &self.place {
            Place::Dir(path) | Place::File(path) => format!("localfs {}", path.display()),
        }
    }
}

fn open(path: &Path, end: u64) -> io::Result<File> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    match len < end {
        true => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the file has only {len} bytes"))),
        false => Ok(file),
    }
}

/// Bytes of a range, a step at a time; the stream ends with its first error.
fn pieces(
    threads: Arc<Semaphore>,
    file: Arc<File>,
    range: Range<u64>,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(range, move |left| {
        let (threads, file) = (Arc::clone(&threads), Arc::clone(&file));
        async move {
            let len = (left.end.saturating_sub(left.start)).min(STEP);
            if len == 0 {
                return None;
            }
            let read = blocking(&threads, move || {
                let mut bytes = vec![0; usize::try_from(len).expect("a step fits")];
                file.read_exact_at(&mut bytes, left.start)?;
                Ok(Bytes::from(bytes))
            })
            .await;
            let next = if read.is_ok() { left.start + len } else { left.end };
            Some((read, next..left.end))
        }
    })
}

async fn blocking<T: Send + 'static>(
    threads: &Arc<Semaphore>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let turn = Arc::clone(threads).acquire_owned().await.map_err(io::Error::other)?;
    let work = move || {
        // Held as long as the thread stands, also when nobody waits for it any more.
        let _turn = turn;
        work()
    };
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;

    async fn read(backend: LocalFsBackend, id: &BlobId, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        let stream = Arc::new(backend).read(id.clone(), range, Priority::Demand, Via::default()).await?;
        let parts: Vec<Bytes> = stream.try_collect().await?;
        Ok(parts.concat())
    }

    #[tokio::test]
    async fn a_range_of_a_file_is_streamed_exactly() {
        let dir = tempfile::tempdir().unwrap();
        let id = BlobId::from_sha256(&[7; 32]);
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[i as usize % 3]).collect();
        let path = dir.path().join(id.as_str());
        std::fs::write(&path, &bytes).unwrap();
        for (from, to) in [(0, 3_000_000), (5, 6), (1_000_000, 2_500_001), (9, 9)] {
            let expected = &bytes[from..to];
            let range = from as u64..to as u64;
            assert_eq!(read(LocalFsBackend::in_dir(dir.path()), &id, range.clone()).await.unwrap(), expected);
            assert_eq!(read(LocalFsBackend::of_file(&path), &id, range).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_file_system_that_hangs_takes_a_bounded_number_of_threads() {
        let (dir, id) = (tempfile::tempdir().unwrap(), BlobId::from_sha256(&[7; 32]));
        let path = dir.path().join(id.as_str());
        // Opening a pipe hangs until it has a writer.
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let backend = Arc::new(LocalFsBackend::in_dir(dir.path()));
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..3 * MAX_THREADS {
            let read = Arc::clone(&backend).read(id.clone(), 0..1, Priority::Demand, Via::default());
            waiting.spawn(tokio::time::timeout(std::time::Duration::from_millis(200), read));
        }
        while let Some(read) = waiting.join_next().await {
            assert!(read.unwrap().is_err(), "it hangs");
        }
        assert_eq!(backend.threads.available_permits(), 0, "as many as may stand do");
        drop(std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap());
    }

    #[tokio::test]
    async fn a_missing_or_short_file_is_an_error_that_names_the_blob() {
        let dir = tempfile::tempdir().unwrap();
        let id = BlobId::from_sha256(&[7; 32]);
        let missing = read(LocalFsBackend::in_dir(dir.path()), &id, 0..1).await.unwrap_err();
        assert!(!missing.retryable && missing.to_string().contains(id.as_str()), "{missing}");
        std::fs::write(dir.path().join(id.as_str()), b"short").unwrap();
        let short = read(LocalFsBackend::in_dir(dir.path()), &id, 0..6).await.unwrap_err();
        assert!(std::error::Error::source(&short).unwrap().to_string().contains("only 5 bytes"));
    }
}
