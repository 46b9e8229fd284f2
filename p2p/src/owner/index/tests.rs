use super::*;

const NOW: Duration = Duration::from_secs(100);

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn count() -> PieceCount {
    PieceCount::new(20).unwrap()
}

fn piece(number: u32) -> PieceIndex {
    count().piece(number).unwrap()
}

fn pieces(numbers: impl IntoIterator<Item = u32>) -> Vec<PieceIndex> {
    numbers.into_iter().map(piece).collect()
}

/// An index with members 1 to `members`, who want all and have nothing.
fn swarm(members: u8) -> Index {
    let mut index = Index::new(count(), 1);
    for number in 1..=members {
        index.join(NOW, node(number), PieceBitmap::empty(count()), &[], 2);
        index.ask(NOW, node(number), &pieces(0..20), Priority::Background, false);
    }
    index
}

fn grants(instructions: &[Instruction]) -> Vec<(NodeId, u32)> {
    let grant = |instruction: &Instruction| match instruction {
        Instruction::Grant { node, piece, .. } => Some((*node, piece.get())),
        _ => None,
    };
    instructions.iter().filter_map(grant).collect()
}

fn holders(instructions: &[Instruction], to: NodeId) -> Vec<(u32, NodeId)> {
    let of = |instruction: &Instruction| match instruction {
        Instruction::Holders { node, holders } if *node == to => Some(holders.clone()),
        _ => None,
    };
    instructions.iter().filter_map(of).flatten().map(|(piece, node)| (piece.get(), node)).collect()
}

#[test]
fn each_piece_is_granted_once_and_evenly() {
    let mut index = swarm(3);
    let mut granted = Vec::new();
    for round in 0..40 {
        let now = NOW + Duration::from_millis(100 * round);
        let new = grants(&index.poll(now));
        new.iter().for_each(|(node, number)| index.report(now, *node, &[piece(*number)], &[], false));
        granted.extend(new);
    }
    let mut numbers: Vec<_> = granted.iter().map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    for number in 1..=3 {
        let count = granted.iter().filter(|(to, _)| *to == node(number)).count();
        assert!((5..=8).contains(&count), "{granted:?}");
    }
}

#[test]
fn no_more_pieces_are_under_way_than_the_window_allows() {
    let mut index = swarm(10);
    assert_eq!(grants(&index.poll(NOW)).len(), 4);
    assert_eq!(grants(&index.poll(NOW)), []);
}

#[test]
fn what_a_process_waits_for_goes_first_to_who_waits() {
    let mut index = swarm(5);
    index.ask(NOW, node(3), &pieces([17]), Priority::Demand, false);
    assert_eq!(grants(&index.poll(NOW))[0], (node(3), 17));
}

#[test]
fn a_lease_that_runs_out_or_fails_goes_to_another() {
    let mut index = swarm(2);
    let first = grants(&index.poll(NOW));
    let (holder, number) = first[0];
    for (other, done) in &first[1..3] {
        index.report(NOW, *other, &[piece(*done)], &[], false);
    }
    index.report(NOW, holder, &[], &[piece(number)], false);
    assert!(grants(&index.poll(NOW)).iter().any(|(_, again)| *again == number));
    let late = NOW + Duration::from_secs(11);
    index.tick(late);
    let second: Vec<_> = grants(&index.poll(late)).into_iter().map(|(_, number)| number).collect();
    assert!(second.contains(&first[3].1), "{second:?}");
}

#[test]
fn who_asks_is_told_who_has_a_piece_or_will() {
    let mut index = swarm(1);
    let granted = grants(&index.poll(NOW));
    index.report(NOW, node(1), &pieces([0]), &[], false);
    index.join(NOW, node(2), PieceBitmap::empty(count()), &[], 2);
    index.poll(NOW);
    index.ask(NOW, node(2), &pieces([0, 1]), Priority::Demand, false);
    assert!(granted.contains(&(node(1), 1)));
    assert_eq!(holders(&index.poll(NOW), node(2)), [(0, node(1)), (1, node(1))]);
}

#[test]
fn who_insists_may_fetch_what_its_only_holder_does_not_give() {
    let mut index = swarm(1);
    index.poll(NOW);
    index.report(NOW, node(1), &pieces([0]), &[], false);
    index.join(NOW, node(2), PieceBitmap::empty(count()), &[], 2);
    index.ask(NOW, node(2), &pieces([0]), Priority::Trace, true);
    assert!(grants(&index.poll(NOW)).contains(&(node(2), 0)));
}

#[test]
fn pieces_that_left_with_their_only_holder_are_fetched_again() {
    let mut index = swarm(2);
    let granted = grants(&index.poll(NOW));
    let (holder, number) = granted[0];
    index.report(NOW, holder, &[piece(number)], &[], false);
    let others: Vec<_> = granted.iter().filter(|(other, _)| *other != holder).collect();
    others.iter().for_each(|(other, done)| index.report(NOW, *other, &[piece(*done)], &[], false));
    let other = others[0].0;
    index.leave(holder);
    let again = grants(&index.poll(NOW));
    assert!(again.contains(&(other, number)), "{again:?}");
}

#[test]
fn a_new_owner_that_hears_of_leases_grants_nothing_twice() {
    let mut index = Index::new(count(), 2);
    index.join(NOW, node(1), PieceBitmap::empty(count()), &pieces([0, 1]), 2);
    index.join(NOW, node(2), PieceBitmap::empty(count()), &[], 2);
    index.ask(NOW, node(2), &pieces(0..20), Priority::Background, false);
    let granted = grants(&index.poll(NOW));
    assert!(!granted.is_empty() && granted.iter().all(|(_, number)| *number > 1), "{granted:?}");
}

#[test]
fn silent_members_are_out() {
    let mut index = swarm(2);
    let later = NOW + Duration::from_secs(20);
    index.report(later, node(1), &[], &[], false);
    index.tick(later);
    assert_eq!(index.len(), 1);
}
