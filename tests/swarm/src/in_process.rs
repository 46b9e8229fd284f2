//! The same scenes by whole nodes in this process: engines, stores and transport of the daemon, over links that are made
//! up, in virtual time.

use std::{io, time::Duration};

use futures_util::future::join_all;
use p2p::{
    engine::testing::{Cluster, Shape},
    transport::channel::Weather,
};

use crate::Scene;

/// Bytes of a piece here: the made-up links share their rate in steps of a quarter of that.
const PIECE: u32 = 256 << 10;

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Downloaded {
    /// When the last node had all, in seconds.
    pub last: f64,
    /// Copies that left the origin.
    pub copies: f64,
}

/// Runs a scene in which all nodes want all pieces, and none is slow or killed. The pieces are as many but smaller, and the
/// links slower by as much: the times are the same, and a small machine can do it.
///
/// # Errors
/// Where there is no runtime to be had.
///
/// # Panics
/// Where a node does not get its blob.
pub fn in_process(scene: &Scene) -> io::Result<Downloaded> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(download(scene)))
}

async fn download(scene: &Scene) -> Downloaded {
    let scale = f64::from(PIECE) / f64::from(scene.piece_size);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive")]
    let scaled = |rate: f64| (rate * scale) as u64;
    let cluster = Cluster::new(Shape {
        nodes: scene.nodes,
        pieces: scene.pieces as usize,
        piece: PIECE,
        rate: scaled(scene.rate),
        origin_rate: scaled(scene.origin_rate),
        weather: Weather { delay: Duration::from_secs_f64(scene.delay), loss: 0.0 },
        seed: scene.seed,
    });
    let took = join_all((0..scene.nodes).map(|node| cluster.download(node))).await;
    let last = took.into_iter().max().unwrap_or_default().as_secs_f64();
    let copies = cluster.copies();
    cluster.stop().await;
    Downloaded { last, copies }
}
