use super::*;
use crate::peer::Hold;

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn layout() -> PieceLayout {
    PieceLayout::new(20 << 20, 1 << 20).unwrap()
}

fn piece(number: u32) -> PieceIndex {
    layout().piece(number).unwrap()
}

fn ms(millis: u64) -> Duration {
    Duration::from_secs(1000) + Duration::from_millis(millis)
}

/// A task that has nothing and has partners 1 to `partners`, who have all.
fn task(partners: u8) -> Task {
    let mut task = Task::new(layout(), PieceBitmap::empty(layout().count()), 1);
    for number in 1..=partners {
        assert!(task.greeted(ms(0), node(number), PieceBitmap::full(layout().count())));
    }
    task
}

fn requests(actions: &[Action]) -> Vec<(NodeId, u32)> {
    let request = |action: &Action| match action {
        Action::Request { to, piece, .. } => Some((*to, piece.get())),
        _ => None,
    };
    actions.iter().filter_map(request).collect()
}

/// Has `count` pieces delivered, each 10 ms after it was asked for: so the task knows what is usual.
fn accustom(task: &mut Task, count: u32) -> Duration {
    let mut now = ms(0);
    for _ in 0..count {
        let asked = requests(&task.poll(now));
        now += Duration::from_millis(10);
        for (from, number) in asked {
            task.received(now, piece(number), Source::Node(from));
        }
    }
    now
}

#[test]
fn no_piece_is_asked_for_twice_at_once() {
    let mut task = task(20);
    task.want(Priority::Background, layout().pieces());
    let mut asked = requests(&task.poll(ms(0)));
    asked.extend(requests(&task.poll(ms(1))));
    let mut numbers: Vec<_> = asked.iter().map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!((numbers.len(), asked.len()), (UNDERWAY_AT_FIRST, UNDERWAY_AT_FIRST));
}

#[test]
fn each_piece_that_came_lets_one_more_come() {
    let mut task = task(20);
    task.want(Priority::Background, layout().pieces());
    let asked = requests(&task.poll(ms(0)));
    for (from, number) in &asked[..2] {
        task.received(ms(10), piece(*number), Source::Node(*from));
    }
    assert_eq!(requests(&task.poll(ms(10))).len(), 2 + 2, "the places of two that came, and two more");
}

#[test]
fn partners_hear_of_a_rare_piece_at_once() {
    let told = |others: u8| {
        let mut task = task(0);
        (1..=others)
            .for_each(|other| _ = task.greeted(ms(0), node(other), PieceBitmap::full(layout().count())));
        task.greeted(ms(0), node(100), PieceBitmap::empty(layout().count()));
        task.poll(ms(1000));
        task.received(ms(1001), piece(0), Source::Origin);
        let have = |action: &Action| matches!(action, Action::Have { to, .. } if *to == node(100));
        task.poll(ms(1001)).iter().any(have)
    };
    assert!(told(2));
    assert!(!told(3));
}

#[test]
fn what_a_process_waits_for_goes_beyond_the_bound_of_the_rest() {
    let mut task = task(20);
    task.want(Priority::Background, layout().pieces());
    let numbers: Vec<_> = requests(&task.poll(ms(0))).into_iter().map(|(_, number)| number).collect();
    let urgent = (0..20).find(|number| !numbers.contains(number)).unwrap();
    task.want(Priority::Demand, [piece(urgent)]);
    assert_eq!(requests(&task.poll(ms(1))).first().map(|(_, number)| *number), Some(urgent));
}

#[test]
fn a_reader_needs_no_owner_for_what_a_partner_has() {
    let mut task = task(1);
    task.want(Priority::Demand, [piece(3)]);
    let actions = task.poll(ms(0));
    assert_eq!(requests(&actions), [(node(1), 3)]);
    assert!(!actions.iter().any(|action| matches!(action, Action::Ask { .. })));
}

#[test]
fn a_grant_is_fetched_once_and_reported_at_once() {
    let mut task = task(0);
    task.want(Priority::Background, layout().pieces());
    task.poll(ms(0));
    task.granted(ms(1), piece(4), Priority::Background);
    task.granted(ms(1), piece(4), Priority::Background);
    let fetches = task.poll(ms(1));
    assert_eq!(fetches, [Action::Fetch { piece: piece(4), priority: Priority::Background }]);
    assert!(task.received(ms(2), piece(4), Source::Origin));
    let reported = |action: &Action| matches!(action, Action::Report { got, .. } if got == &[piece(4)]);
    assert!(task.poll(ms(2)).iter().any(reported));
}

#[test]
fn who_is_busy_is_left_alone_for_a_while_and_others_are_asked() {
    let mut task = task(2);
    task.want(Priority::Demand, [piece(0)]);
    let (first, _) = requests(&task.poll(ms(0)))[0];
    task.busy(ms(1), first, piece(0), Duration::from_millis(100));
    let (second, _) = requests(&task.poll(ms(1)))[0];
    assert_ne!(first, second);
    task.busy(ms(2), second, piece(0), Duration::from_millis(500));
    assert_eq!(requests(&task.poll(ms(50))), []);
    assert_eq!(requests(&task.poll(ms(102))), [(first, 0)]);
}

#[test]
fn what_is_late_is_asked_of_another_and_the_late_one_rests() {
    let mut task = task(3);
    task.want(Priority::Background, layout().pieces().take(15));
    let now = accustom(&mut task, 6);
    assert!(task.is_satisfied());
    task.want(Priority::Demand, [piece(19)]);
    let asked = requests(&task.poll(now));
    let (late, _) = *asked.iter().find(|(_, number)| *number == 19).unwrap();
    let actions = task.poll(now + Duration::from_millis(200));
    assert!(actions.contains(&Action::Cancel { to: late, piece: piece(19) }), "{actions:?}");
    assert!(requests(&actions).iter().any(|(to, number)| *number == 19 && *to != late), "{actions:?}");
}

#[test]
fn a_wrong_piece_is_a_strike_and_comes_from_elsewhere() {
    let mut task = task(2);
    task.want(Priority::Demand, [piece(0)]);
    let (liar, _) = requests(&task.poll(ms(0)))[0];
    task.spoiled(ms(1), piece(0), Source::Node(liar));
    let (other, _) = requests(&task.poll(ms(1)))[0];
    assert_ne!(liar, other);
    task.received(ms(2), piece(0), Source::Node(other));
    task.want(Priority::Demand, [piece(1)]);
    assert!(requests(&task.poll(ms(3))).iter().all(|(to, _)| *to == other));
}

#[test]
fn partners_that_leave_are_not_waited_for() {
    let mut task = task(2);
    task.want(Priority::Demand, [piece(0)]);
    let (first, _) = requests(&task.poll(ms(0)))[0];
    task.parted(first);
    assert_eq!(requests(&task.poll(ms(1))).len(), 1);
}

#[test]
fn new_pieces_are_told_to_those_who_lack_them() {
    let mut task = task(1);
    task.greeted(ms(0), node(9), PieceBitmap::empty(layout().count()));
    task.received(ms(1), piece(5), Source::Origin);
    let told: Vec<_> =
        task.poll(ms(100)).into_iter().filter(|action| matches!(action, Action::Have { .. })).collect();
    assert_eq!(told, [Action::Have { to: node(9), pieces: vec![piece(5)] }]);
}

#[test]
fn what_no_partner_has_is_asked_for_again() {
    let mut task = task(0);
    task.want(Priority::Background, [piece(5)]);
    task.poll(ms(0));
    let asks = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Ask { .. }));
    assert!(!asks(&task.poll(ms(100))));
    assert!(asks(&task.poll(ms(900))));
}

#[test]
fn a_new_owner_is_told_everything_that_is_wanted() {
    let mut task = task(0);
    task.want(Priority::Background, [piece(1), piece(2)]);
    task.want(Priority::Demand, [piece(3)]);
    task.poll(ms(0));
    task.owner_changed();
    let asks: Vec<_> =
        task.poll(ms(1)).into_iter().filter(|action| matches!(action, Action::Ask { .. })).collect();
    let ask = |priority, pieces| Action::Ask { pieces, priority, insists: false };
    assert_eq!(
        asks,
        [ask(Priority::Demand, vec![piece(3)]), ask(Priority::Background, vec![piece(1), piece(2)])]
    );
}

#[test]
fn what_nobody_waits_for_yields_to_a_small_part_and_comes_back() {
    for (priority, held) in
        [(Priority::Background, 1), (Priority::Trace, 1), (Priority::ReadAhead, UNDERWAY_AT_FIRST)]
    {
        let mut task = task(20);
        task.hold(Hold::MOST);
        task.want(priority, layout().pieces());
        assert_eq!(requests(&task.poll(ms(0))).len(), held, "{priority:?}");
        task.hold(Hold::NONE);
        assert_eq!(requests(&task.poll(ms(1))).len(), UNDERWAY_AT_FIRST - held, "{priority:?}");
    }
}

#[test]
fn where_a_process_waits_its_order_goes_on_and_the_rest_does_not_starve() {
    let mut task = task(20);
    (15..20).for_each(|number| _ = task.received(ms(0), piece(number), Source::Origin));
    task.hold(Hold::MOST);
    task.want(Priority::Demand, [piece(0), piece(1)]);
    task.want(Priority::Trace, (2..5).map(piece));
    task.want(Priority::Background, layout().pieces());
    let numbers: Vec<_> = requests(&task.poll(ms(0))).into_iter().map(|(_, number)| number).collect();
    assert_eq!(numbers.iter().filter(|number| **number < 5).count(), 5, "{numbers:?}");
    assert_eq!(numbers.len(), 6, "{numbers:?}");
}

#[test]
fn held_back_pieces_are_asked_for_at_a_part_of_the_rate_at_which_they_came() {
    let mut task = task(20);
    task.want(Priority::Background, layout().pieces());
    // What came in this span is not known before the next: the least rate holds.
    let first = requests(&task.poll(ms(0)));
    for (from, number) in first {
        task.received(ms(1000), piece(number), Source::Node(from));
    }
    task.hold(Hold::NONE.more());
    let asked = |task: &mut Task, at: u64| {
        let asked = requests(&task.poll(ms(at)));
        asked
            .iter()
            .for_each(|(from, number)| _ = task.received(ms(at), piece(*number), Source::Node(*from)));
        asked.len()
    };
    let time = u64::from(1_u32 << 20) * 1000 / Hold::NONE.more().rate(0).bytes_per_second().unwrap();
    assert_eq!(asked(&mut task, 1000), 1);
    assert_eq!(asked(&mut task, 1000 + time - 1), 0);
    assert_eq!(asked(&mut task, 1000 + time), 1);
}
