//! The suite: each claim is a function over a bed.

use std::num::{NonZeroU32, NonZeroU64};

use tokio::time::Instant;

use super::*;
use crate::{
    PieceLayout,
    rate::{HostLimit, Rate},
};

/// Runs the suite over a bed, each claim as a test of its own.
macro_rules! conforms {
    ($bed:expr, $($attribute:meta),*) => {
        conforms!(@each $bed, [$($attribute),*],
            messages_arrive_in_order_in_both_directions
            what_is_sent_while_dialing_is_not_lost
            pieces_of_every_size_arrive_whole
            urgent_things_go_before_background_pieces
            both_may_dial_at_once
            nobody_there_is_told
            a_disconnect_is_told_on_both_sides
            a_queue_is_bounded_and_nothing_queued_is_lost
            what_is_taken_back_does_not_arrive
            a_limit_holds
            what_has_left_is_told
            a_node_does_not_talk_to_itself
        );
    };
    (@each $bed:expr, $attributes:tt, $($claim:ident)*) => {
        $(conforms!(@one $bed, $attributes, $claim);)*
    };
    (@one $bed:expr, [$($attribute:meta),*], $claim:ident) => {
        $(#[$attribute])*
        async fn $claim() {
            crate::transport::tests::conformance::$claim(&mut $bed).await;
        }
    };
}
pub(super) use conforms;

pub(super) async fn messages_arrive_in_order_in_both_directions(bed: &mut impl Bed) {
    let (mut a, mut b) = pair(bed).await;
    for number in 0..100 {
        a.say(b.id(), number).unwrap();
        b.say(a.id(), 1000 + number).unwrap();
    }
    for number in 0..100 {
        assert_eq!((b.number().await, a.number().await), (number, 1000 + number));
    }
}

pub(super) async fn what_is_sent_while_dialing_is_not_lost(bed: &mut impl Bed) {
    let (mut a, mut b) = (bed.peer().await, bed.peer().await);
    assert_eq!(a.say(b.id(), 0), Err(Refused::NotConnected));
    a.connect(&b);
    (0..10).for_each(|number| a.say(b.id(), number).unwrap());
    a.connected(b.id()).await;
    b.connected(a.id()).await;
    for number in 0..10 {
        assert_eq!(b.number().await, number);
    }
}

pub(super) async fn pieces_of_every_size_arrive_whole(bed: &mut impl Bed) {
    let (a, mut b) = pair(bed).await;
    let (id, a) = (a.id(), a.deaf());
    let largest = PieceLayout::MAX_SIZE as usize;
    for (number, len) in (0..).zip([0, 1, 65_535, 65_536, 65_537, 1 << 20, largest]) {
        let bytes: Bytes = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        a.transport.send_piece(b.id(), piece(number, Lane::Background, bytes.clone())).unwrap();
        let (from, Incoming::Piece { task: of, piece, bytes: found }) = b.next().await else { panic!() };
        assert_eq!((from, of, piece), (id, task(), number));
        assert!(found == bytes, "{len}");
    }
    let long = piece(0, Lane::Urgent, vec![0; largest + 1]);
    assert_eq!(a.transport.send_piece(b.id(), long), Err(Refused::TooLong));
}

pub(super) async fn urgent_things_go_before_background_pieces(bed: &mut impl Bed) {
    let (a, mut b) = pair(bed).await;
    let a = a.deaf();
    // Slow enough that most still wait when the first has come.
    let rate = Rate::per_second(NonZeroU64::new(20 << 20).unwrap());
    let limit = Some(HostLimit::new(rate).share(NonZeroU32::MIN, Rate::UNLIMITED));
    for number in 0..20 {
        let limited = Outgoing { limit: limit.clone(), ..piece(number, Lane::Background, vec![0; 1 << 20]) };
        a.transport.send_piece(b.id(), limited).unwrap();
    }
    assert_eq!(b.number().await, 0);
    a.transport.send_piece(b.id(), piece(100, Lane::Urgent, vec![0; 1 << 20])).unwrap();
    a.transport.send(b.id(), note(101)).unwrap();
    let mut numbers = Vec::new();
    for _ in 0..21 {
        numbers.push(b.number().await);
    }
    let place = |number| numbers.iter().position(|found| *found == number).unwrap();
    assert!(place(100) < place(18) && place(101) == place(100) + 1, "{numbers:?}");
    assert!(numbers.iter().filter(|number| **number < 100).is_sorted());
}

pub(super) async fn both_may_dial_at_once(bed: &mut impl Bed) {
    for _ in 0..10 {
        let (mut a, mut b) = (bed.peer().await, bed.peer().await);
        a.connect(&b);
        b.connect(&a);
        a.say(b.id(), 1).unwrap();
        b.say(a.id(), 2).unwrap();
        a.connected(b.id()).await;
        b.connected(a.id()).await;
        assert_eq!((b.number().await, a.number().await), (1, 2));
        a.quiet().await;
        b.quiet().await;
    }
}

pub(super) async fn nobody_there_is_told(bed: &mut impl Bed) {
    let mut a = bed.peer().await;
    let nobody = NodeId([0xee; 32]);
    a.transport.connect(nobody, SocketAddr::from(([127, 0, 0, 1], 1))).unwrap();
    assert!(matches!(a.closed(nobody).await, Closed::Unreachable(_)));
    assert_eq!(a.say(nobody, 0), Err(Refused::NotConnected));
}

pub(super) async fn a_disconnect_is_told_on_both_sides(bed: &mut impl Bed) {
    let (mut a, mut b) = pair(bed).await;
    a.transport.disconnect(b.id());
    assert_eq!(a.closed(b.id()).await, Closed::Here);
    assert_eq!(b.closed(a.id()).await, Closed::There);
    assert_eq!(b.say(a.id(), 0), Err(Refused::NotConnected));
    b.connect(&a);
    b.connected(a.id()).await;
    a.connected(b.id()).await;
    a.quiet().await;
}

pub(super) async fn a_queue_is_bounded_and_nothing_queued_is_lost(bed: &mut impl Bed) {
    let (a, mut b) = pair(bed).await;
    let mut queued = 0;
    let refused = loop {
        match a.transport.send_piece(b.id(), piece(queued, Lane::Background, vec![0; 1 << 20])) {
            Ok(()) => queued += 1,
            Err(refused) => break refused,
        }
        assert!(queued < 1000);
    };
    assert_eq!(refused, Refused::Full);
    a.say(b.id(), 9999).expect("there is room for messages still");
    let _a = a.deaf();
    let mut numbers = Vec::new();
    for _ in 0..=queued {
        numbers.push(b.number().await);
    }
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq((0..queued).chain([9999])));
}

pub(super) async fn what_is_taken_back_does_not_arrive(bed: &mut impl Bed) {
    let (a, mut b) = pair(bed).await;
    let a = a.deaf();
    for number in 0..30 {
        a.transport.send_piece(b.id(), piece(number, Lane::Background, vec![0; 1 << 20])).unwrap();
    }
    assert!(a.transport.withdraw(b.id(), task(), 29));
    assert!(!a.transport.withdraw(b.id(), task(), 29));
    for number in 0..29 {
        assert_eq!(b.number().await, number);
    }
    b.quiet().await;
}

pub(super) async fn a_limit_holds(bed: &mut impl Bed) {
    let (a, mut b) = pair(bed).await;
    let rate = Rate::per_second(NonZeroU64::new(1 << 20).unwrap());
    let share = HostLimit::new(Rate::UNLIMITED).share(NonZeroU32::MIN, rate);
    let begin = Instant::now();
    let outgoing = Outgoing { limit: Some(share), ..piece(0, Lane::Urgent, vec![0; 1 << 20]) };
    a.transport.send_piece(b.id(), outgoing).unwrap();
    b.number().await;
    let took = begin.elapsed();
    // A second, but for the two steps that the limit has gathered.
    assert!((Duration::from_millis(850)..Duration::from_secs(5)).contains(&took), "{took:?}");
}

pub(super) async fn what_has_left_is_told(bed: &mut impl Bed) {
    let (mut a, mut b) = pair(bed).await;
    for number in 0..10 {
        a.transport.send_piece(b.id(), piece(number, Lane::Background, vec![0; 1 << 20])).unwrap();
    }
    for number in 0..10 {
        let (to, Incoming::Sent { task: of, piece }) = a.next().await else { panic!() };
        assert_eq!((to, of, piece), (b.id(), task(), number));
        assert_eq!(b.number().await, number);
    }
}

pub(super) async fn a_node_does_not_talk_to_itself(bed: &mut impl Bed) {
    let a = bed.peer().await;
    assert_eq!(a.transport.connect(a.id(), a.address), Err(Refused::Myself));
}
