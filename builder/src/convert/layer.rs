//! One layer of an image.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use p2p_pieces::PieceList;
use tempfile::TempPath;

use super::{ConvertError, Event, Progress, pieces::ListingWriter};
use crate::{
    BuildError,
    create::{BuiltLayer, LayerOptions, build_layer},
    layer::Position,
    source::{Entry, Source, tar::TarSource},
    stream::LayerStream,
};

/// Entries of a layer until the conversion is stopped, which holes do not hold up: nothing is stored for them.
struct Stoppable<'a, R> {
    tar: TarSource<R>,
    is_stopped: &'a AtomicBool,
}

impl<R: io::Read> Source for Stoppable<'_, R> {
    fn next_entry(&mut self) -> Result<Option<Entry>, BuildError> {
        self.tar.next_entry()
    }

    fn read_content(&mut self, buf: &mut [u8]) -> Result<(), BuildError> {
        match self.is_stopped.load(Ordering::Relaxed) {
            true => Err(BuildError::read("layer")(io::Error::other("stopped"))),
            false => self.tar.read_content(buf),
        }
    }
}

/// A layer as its image tells of it.
#[derive(Debug, Clone)]
pub(super) struct LayerTask {
    /// `sha256:<hex>` of the stored bytes.
    pub(super) digest: String,
    pub(super) size: u64,
    /// `sha256:<hex>` of the uncompressed bytes.
    pub(super) diff_id: String,
    /// Whether there is no layer below it.
    pub(super) is_lowest: bool,
}

/// Converts a layer into a temporary file in `work`. Blocks.
pub(super) fn convert_layer(
    task: &LayerTask,
    stored: Box<dyn io::Read + Send>,
    options: &LayerOptions,
    work: &Path,
    progress: &Arc<dyn Progress>,
    is_stopped: &Arc<AtomicBool>,
) -> Result<(BuiltLayer, PieceList, TempPath), ConvertError> {
    progress.event(Event::LayerStarted { layer: &task.digest, size: task.size });
    let tell = {
        let (progress, layer, is_stopped) = (progress.clone(), task.digest.clone(), is_stopped.clone());
        move |bytes| {
            progress.event(Event::LayerRead { layer: &layer, bytes });
            match is_stopped.load(Ordering::Relaxed) {
                true => Err(io::Error::other("stopped")),
                false => Ok(()),
            }
        }
    };
    let blame = |source| match is_stopped.load(Ordering::Relaxed) {
        true => ConvertError::Stopped,
        false => ConvertError::Layer { layer: task.digest.clone(), source },
    };
    let out = tempfile::Builder::new().prefix("layer-").tempfile_in(work);
    let out = out.map_err(ConvertError::file(format!("create a file in {}", work.display())))?;
    let tar = TarSource::new(LayerStream::new(stored, tell));
    let mut source = Stoppable { tar, is_stopped };
    let mut listed = ListingWriter::new(out.as_file());
    let mut options = options.clone();
    if task.is_lowest {
        options.position = Position::Lowest;
    }
    let mut built = build_layer(&mut source, &mut listed, &options).map_err(blame)?;
    let pieces =
        listed.finish().map_err(|error| blame(BuildError::write("blob")(io::Error::other(error))))?;
    check(task, source.tar.into_inner()).map_err(blame)?;
    // It stands in the blob; the image gets another.
    built.bootstrap = Vec::new();
    Ok((built, pieces, out.into_temp_path()))
}

/// The layer must be the one that the manifest and the config name.
fn check(task: &LayerTask, stream: LayerStream) -> Result<(), BuildError> {
    let found = stream.finish().map_err(BuildError::read("the end of the layer"))?;
    for (what, found, expected) in [
        ("the layer as stored", found.stored, &task.digest),
        ("the uncompressed layer", found.plain, &task.diff_id),
    ] {
        let found = format!("sha256:{}", hex::encode(found));
        if found != *expected {
            return Err(BuildError::Digest { what, found, expected: expected.clone() });
        }
    }
    Ok(())
}
