use super::*;
use crate::{PieceLayout, Vouch};

fn upload(node: u8, number: u32, priority: Priority) -> Upload {
    let piece = PieceLayout::new(100 << 20, 1 << 20).unwrap().piece(number).unwrap();
    Upload {
        node: NodeId([node; 32]),
        task: TaskId::of(Vouch::Url("x")),
        piece,
        len: 1 << 20,
        priority,
        held: 0,
    }
}

#[test]
fn urgent_requests_go_first_and_are_taken_when_others_are_not() {
    let mut queue = Uploads::default();
    for node in 1..=2 {
        assert_eq!(queue.request(upload(node, 0, Priority::Trace)), Admission::Queued);
    }
    assert!(matches!(queue.request(upload(4, 2, Priority::Trace)), Admission::Busy(_)));
    assert_eq!(queue.request(upload(4, 2, Priority::Demand)), Admission::Queued);
    assert_eq!(queue.next(Duration::ZERO).unwrap().node, NodeId([4; 32]));
}

const SECOND: Duration = Duration::from_secs(1);

/// Begins to send as many as may be sent at a time, but for one.
fn almost_full() -> Uploads {
    let mut queue = Uploads::default();
    let mut begin = |node: u8| {
        queue.request(upload(node, 0, Priority::Trace));
        let begun = queue.next(SECOND).unwrap();
        (node > 200).then(|| queue.came(SECOND, begun.node, begun.task, begun.piece));
    };
    (201..).take(MOST_SENT).for_each(&mut begin);
    (101..).take(MOST_SENT - 1).for_each(&mut begin);
    queue
}

#[test]
fn it_begins_with_one_and_sends_more_as_pieces_come() {
    let mut queue = Uploads::default();
    (1..=2).for_each(|node| _ = queue.request(upload(node, 0, Priority::Trace)));
    let first = queue.next(SECOND).unwrap();
    assert_eq!(queue.next(SECOND), None);
    queue.came(SECOND, first.node, first.task, first.piece);
    queue.request(upload(3, 0, Priority::Trace));
    assert!(queue.next(SECOND).is_some() && queue.next(SECOND).is_some());
    queue.next(SECOND * 60);
    (4..=5).for_each(|node| _ = queue.request(upload(node, 0, Priority::Trace)));
    assert!(queue.next(SECOND * 60).is_some());
    assert_eq!(queue.next(SECOND * 60), None, "what was lost tells that the link is slow");
}

#[test]
fn a_few_pieces_are_sent_at_a_time_and_more_where_a_process_waits() {
    let mut queue = almost_full();
    (1..=2).for_each(|node| _ = queue.request(upload(node, 0, Priority::Trace)));
    assert!(queue.next(SECOND).is_some());
    assert_eq!(queue.next(SECOND), None);
    queue.request(upload(3, 0, Priority::Demand));
    assert_eq!(queue.next(SECOND).unwrap().node, NodeId([3; 32]));
    assert_eq!(queue.next(SECOND), None);
}

#[test]
fn a_piece_holds_its_place_until_it_has_come_or_left_for_nothing_or_is_lost() {
    let end = |end: &dyn Fn(&mut Uploads, Upload)| {
        let mut queue = almost_full();
        (1..=2).for_each(|node| _ = queue.request(upload(node, 0, Priority::Trace)));
        let first = queue.next(SECOND).unwrap();
        assert_eq!(queue.next(SECOND), None);
        end(&mut queue, first);
        assert!(queue.next(SECOND).is_some(), "the place is free");
    };
    end(&|queue, first| queue.came(SECOND, first.node, first.task, first.piece));
    end(&|queue, first| queue.gone(first.node));
    end(&|queue, first| queue.failed(first.node, first.task, first.piece.get()));
    end(&|queue, first| {
        queue.left(first.node, first.task, first.piece.get());
        assert_eq!(queue.next(SECOND), None, "it may be on its way");
        queue.called_off(first.node, first.task, first.piece.get());
    });
    end(&|queue, first| {
        queue.parted(first.node, first.task);
        assert_eq!(queue.next(SECOND), None, "part of it may be on its way");
        queue.left(first.node, first.task, first.piece.get());
    });
    let mut queue = almost_full();
    queue.next(SECOND * 60);
    assert!(queue.are_none(), "those that never come are given up");
}

#[test]
fn who_has_least_takes_the_place_of_who_has_more() {
    let mut queue = Uploads::default();
    let held = |node, held| Upload { held, ..upload(node, 0, Priority::Background) };
    (1..=2).for_each(|node| _ = queue.request(held(node, 10)));
    assert!(matches!(queue.request(held(4, 10)), Admission::Busy(_)));
    assert!(matches!(queue.request(held(5, 2)), Admission::Instead(other, _) if other.held == 10));
    assert_eq!(queue.next(Duration::ZERO).unwrap().node, NodeId([5; 32]));
}

#[test]
fn between_equals_who_got_least_is_next() {
    let mut queue = Uploads::default();
    let send = |queue: &mut Uploads| {
        let sent = queue.next(Duration::ZERO)?;
        queue.came(FIRST, sent.node, sent.task, sent.piece);
        Some(sent.node.0[0])
    };
    for node in [1, 2, 2] {
        queue.request(upload(node, 0, Priority::Background));
        send(&mut queue);
    }
    [2, 1].iter().for_each(|node| _ = queue.request(upload(*node, 5, Priority::Background)));
    let order: Vec<_> = std::iter::from_fn(|| send(&mut queue)).collect();
    assert_eq!(order, [1, 2]);
}

#[test]
fn a_request_asked_for_twice_waits_once_and_goes_when_cancelled() {
    let mut queue = Uploads::default();
    queue.request(upload(1, 0, Priority::Background));
    queue.request(upload(1, 0, Priority::Demand));
    let Upload { node, task, piece, .. } = upload(1, 0, Priority::Demand);
    assert!(queue.cancel(node, task, piece));
    assert_eq!(queue.next(Duration::ZERO), None);
}

#[test]
fn a_small_part_goes_beside_what_a_process_waits_for_and_all_of_it_after() {
    let mut queue = almost_full();
    assert_eq!(queue.pace(SECOND), Rate::UNLIMITED);
    queue.request(upload(1, 0, Priority::Demand));
    let urgent = queue.next(SECOND).unwrap();
    assert!(queue.has_urgent(SECOND));
    assert_eq!(queue.pace(SECOND), Hold::MOST.rate(queue.flow.rate()));
    queue.request(upload(2, 0, Priority::Trace));
    assert_eq!(queue.next(SECOND), None, "others that were begun go first");
    (101..).take(MOST_SENT - 1).for_each(|node| queue.gone(NodeId([node; 32])));
    assert_eq!(queue.next(SECOND).map(|begun| begun.node), Some(NodeId([2; 32])), "one goes on");
    queue.request(upload(3, 0, Priority::Trace));
    assert_eq!(queue.next(SECOND), None);
    queue.came(SECOND, urgent.node, urgent.task, urgent.piece);
    assert_eq!(queue.pace(SECOND), Rate::UNLIMITED);
    assert!(queue.next(SECOND).is_some());
}

#[test]
fn a_slow_receiver_that_waits_does_not_hold_up_others_for_ever() {
    let mut queue = Uploads::default();
    queue.request(upload(1, 0, Priority::Demand));
    queue.next(SECOND).unwrap();
    assert!(queue.has_urgent(SECOND) && !queue.has_urgent(SECOND * 2));
    assert_eq!(queue.pace(SECOND * 2), Rate::UNLIMITED);
}

#[test]
fn a_node_that_yields_sends_fewer_at_a_time_at_a_part_of_its_rate_and_comes_back() {
    let mut queue = almost_full();
    for second in 2..9 {
        (0..8).for_each(|_| queue.flow.came(SECOND * second, 1 << 20));
    }
    queue.hold(Hold::NONE.more());
    assert_eq!(queue.pace(SECOND), Hold::NONE.more().rate(8 << 20));
    queue.request(upload(1, 0, Priority::Trace));
    assert_eq!(queue.next(SECOND), None);
    queue.hold(Hold::NONE);
    assert_eq!(queue.pace(SECOND), Rate::UNLIMITED);
    assert!(queue.next(SECOND).is_some());
}

/// Nodes without end ask for pieces of some tasks; bytes that each got of the first 400 pieces.
fn contend(tasks: &[(&'static str, Priority)]) -> Vec<u32> {
    let mut queue = Uploads::default();
    let mut got = vec![0; tasks.len()];
    let (mut now, mut number) = (SECOND, 0);
    for _ in 0..400 {
        // The first task asks four times as often.
        for place in [vec![0; 4], (0..tasks.len()).collect()].concat() {
            let (task, priority) = tasks[place];
            number = (number + 1) % 100;
            let node = u8::try_from(place).unwrap();
            queue.request(Upload { task: TaskId::of(Vouch::Url(task)), ..upload(node, number, priority) });
        }
        now += FIRST;
        let sent = queue.next(now).unwrap();
        queue.came(now, sent.node, sent.task, sent.piece);
        got[usize::from(sent.node.0[0])] += 1;
    }
    got
}

#[test]
fn tasks_get_the_same_and_those_with_an_order_more_and_nobody_nothing() {
    let got = contend(&[("a", Priority::Trace), ("b", Priority::Trace)]);
    assert!(got[0].abs_diff(got[1]) <= 4, "{got:?}");
    let got = contend(&[("a", Priority::Background), ("b", Priority::Trace)]);
    assert!(got[0].abs_diff(80) <= 4 && got[1].abs_diff(320) <= 4, "{got:?}");
}

#[test]
fn a_task_that_comes_back_neither_catches_up_nor_falls_behind() {
    let (old, new) = (TaskId::of(Vouch::Url("old")), TaskId::of(Vouch::Url("new")));
    let mut shares = Shares::default();
    (0..100).for_each(|_| shares.begins(old, (1 << 20, Priority::Trace), [old].into_iter()));
    assert_eq!(shares.got(new), 99 << 20);
    shares.begins(new, (1 << 20, Priority::Trace), [old].into_iter());
    assert_eq!(shares.got(new), shares.got(old));
    shares.forget(old);
    assert_eq!(shares.got(old), 99 << 20);
}
