use tokio::{
    io::{AsyncReadExt as _, DuplexStream, duplex},
    task::JoinHandle,
    time::Instant,
};

use super::{super::outbox::Item, *};
use crate::TaskId;

/// A connection that is served, and the other end of its wire.
struct Served {
    wire: DuplexStream,
    outbox: Arc<Outbox>,
    stop: Stop,
    events: mpsc::Receiver<Event>,
    over: JoinHandle<Closed>,
}

fn serve_on(stream: DuplexStream) -> (Arc<Outbox>, Stop, mpsc::Receiver<Event>, JoinHandle<Closed>) {
    let (sender, events) = mpsc::channel(8);
    let (outbox, stop) = (Arc::<Outbox>::default(), Stop::default());
    let (node, began) = (NodeId([1; 32]), Instant::now());
    let ends = Ends {
        node,
        outbox: outbox.clone(),
        events: sender,
        stop: stop.clone(),
        used: Used::default(),
        began,
        limits: Limits::default(),
    };
    (outbox, stop, events, tokio::spawn(serve(stream, ends)))
}

fn served() -> Served {
    let (wire, stream) = duplex(64 << 10);
    let (outbox, stop, events, over) = serve_on(stream);
    Served { wire, outbox, stop, events, over }
}

fn piece(len: usize) -> Item {
    let (task, bytes) = (TaskId::from_bytes([3; 32]), vec![0; len].into());
    Item::Piece(Outgoing { task, piece: 0, bytes, lane: Lane::Urgent, limit: None, pace: None })
}

#[tokio::test(start_paused = true)]
async fn who_has_nothing_to_say_says_that_it_lives() {
    let mut served = served();
    let begin = Instant::now();
    let mut frame = [1; 4];
    for times in 1..5 {
        served.wire.read_exact(&mut frame).await.unwrap();
        assert_eq!((frame, begin.elapsed().as_secs()), ([0; 4], 10 * times));
    }
}

#[tokio::test(start_paused = true)]
async fn two_that_have_nothing_to_say_stay_connected() {
    let (one, two) = duplex(64 << 10);
    let (_, _, _one_events, one) = serve_on(one);
    let (_, _, _two_events, two) = serve_on(two);
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert!(!one.is_finished() && !two.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_silent_other_side_is_given_up() {
    let mut served = served();
    let begin = Instant::now();
    let mut ignored = Vec::new();
    let reading = async { drop(served.wire.read_to_end(&mut ignored).await) };
    let (over, ()) = tokio::join!(served.over, reading);
    assert_eq!((over.unwrap(), begin.elapsed().as_secs()), (Closed::Silent, 60));
}

#[tokio::test(start_paused = true)]
async fn one_that_falls_silent_in_the_middle_of_a_piece_is_given_up() {
    let mut served = served();
    let Item::Piece(outgoing) = piece(1000) else { unreachable!() };
    served.wire.write_all(&frame::announce(&outgoing, &(0..outgoing.bytes.len())).unwrap()).await.unwrap();
    served.wire.write_all(&[0; 999]).await.unwrap();
    assert_eq!(served.over.await.unwrap(), Closed::Silent);
    assert!(served.events.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn one_that_takes_nothing_is_given_up() {
    let served = served();
    served.outbox.push(piece(1 << 20)).unwrap();
    let begin = Instant::now();
    assert_eq!(served.over.await.unwrap(), Closed::Stalled);
    assert_eq!(begin.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn one_that_breaks_the_rules_is_given_up() {
    let mut served = served();
    served.wire.write_all(&[0xff; 8]).await.unwrap();
    assert!(matches!(served.over.await.unwrap(), Closed::Broken(_)));
}

#[tokio::test(start_paused = true)]
async fn the_first_reason_to_end_counts() {
    let served = served();
    served.stop.because(Closed::Unused);
    served.stop.because(Closed::Here);
    assert_eq!(served.over.await.unwrap(), Closed::Unused);
    drop(served.wire);
}

#[tokio::test(start_paused = true)]
async fn nothing_more_is_read_while_nobody_takes_the_events() {
    let mut served = served();
    let Item::Piece(outgoing) = piece(0) else { unreachable!() };
    let frame = frame::announce(&outgoing, &(0..outgoing.bytes.len())).unwrap();
    let mut written = 0;
    while let Ok(done) = timeout(Duration::from_secs(1), served.wire.write_all(&frame)).await {
        done.unwrap();
        written += 1;
        assert!(written < 100_000);
    }
    for _ in 0..written {
        served.events.recv().await.unwrap();
    }
}
