use futures_util::future::BoxFuture;

use super::*;

/// An origin that never answers.
#[derive(Debug)]
struct Silent;

impl Origin for Silent {
    fn fetch(
        self: Arc<Self>,
        _range: Range<u64>,
        _priority: Priority,
    ) -> BoxFuture<'static, Result<Bytes, OriginError>> {
        Box::pin(std::future::pending())
    }
}

const A_WHILE: Duration = Duration::from_millis(500);

/// How long a node takes for a blob that another has, while `meanwhile` needs the room for [`A_WHILE`].
async fn download_beside(meanwhile: impl AsyncFn(&Cluster)) -> Duration {
    let cluster = Cluster::new(Shape { origin_rate: 100 * RATE, ..shape(2, 100) });
    cluster.download(0).await;
    let (took, ()) = tokio::join!(cluster.download(1), meanwhile(&cluster));
    cluster.stop().await;
    took
}

/// Checks that a download made room for most of that time, and came back.
async fn makes_room(meanwhile: impl AsyncFn(&Cluster)) {
    let free = download_beside(async |_| ()).await;
    let held = download_beside(meanwhile).await;
    assert!(held > free + A_WHILE / 2, "{held:?}, and {free:?} else");
    assert!(held < free + A_WHILE * 3 / 2, "it comes back: {held:?}, and {free:?} else");
}

#[tokio::test(start_paused = true)]
async fn a_download_makes_room_for_the_host_and_comes_back() {
    makes_room(async |cluster| {
        cluster.host.send_replace(Hold::MOST);
        sleep(A_WHILE).await;
        cluster.host.send_replace(Hold::NONE);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_makes_room_for_itself_in_other_blobs() {
    makes_room(async |cluster| {
        let layout = PieceLayout::new(PIECE.into(), PIECE).unwrap();
        let other = Content::Unsaid { name: "other".into(), layout };
        let blob = cluster.engines[1].open(other, Arc::new(Silent)).await.unwrap();
        assert!(timeout(A_WHILE, blob.read(0..1, Priority::Demand)).await.is_err(), "nobody has it");
    })
    .await;
}
