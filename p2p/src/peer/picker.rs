//! Which piece to ask a partner for.
//!
//! What a process waits for comes in the order of need. Of the rest the rarest comes first: a piece that only one node
//! has is what the swarm lacks most, and whoever fetches it can pass it on. Pieces that are needed in a known order are
//! taken from a window at its front, so that the order is kept roughly and partners still get different ones.

use crate::{PieceBitmap, PieceIndex, Priority, wants::Wants};

/// How far ahead in a known order the rarest piece may be.
const WINDOW: usize = 16;

/// The piece of most use that a partner `has`, that is wanted and not yet `underway`.
pub(super) fn pick(
    wants: &Wants,
    has: &PieceBitmap,
    underway: &PieceBitmap,
    copies: &[u32],
    random: &mut fastrand::Rng,
) -> Option<(PieceIndex, Priority)> {
    pick_urgent(wants, has, underway, copies, random).or_else(|| {
        let candidates = wants.rest().shared(has, underway);
        let rarest = rarest(candidates, copies, random)?;
        Some((rarest, Priority::Background))
    })
}

fn pick_urgent(
    wants: &Wants,
    has: &PieceBitmap,
    underway: &PieceBitmap,
    copies: &[u32],
    random: &mut fastrand::Rng,
) -> Option<(PieceIndex, Priority)> {
    let mut window = Vec::with_capacity(WINDOW);
    let waiting = wants.urgent().filter(|(piece, _)| !underway.contains(*piece)).take(WINDOW);
    for (piece, priority) in waiting.filter(|(piece, _)| has.contains(*piece)) {
        if priority == Priority::Demand {
            return Some((piece, priority));
        }
        window.push((piece, priority));
    }
    let most = window.first()?.1;
    let urgent = window.iter().filter(|(_, priority)| *priority == most).map(|(piece, _)| *piece);
    Some((rarest(urgent, copies, random)?, most))
}

/// The piece with the fewest copies; chance decides between equals.
fn rarest(
    candidates: impl Iterator<Item = PieceIndex>,
    copies: &[u32],
    random: &mut fastrand::Rng,
) -> Option<PieceIndex> {
    let mut best = None;
    let (mut fewest, mut equals) = (u32::MAX, 0);
    for piece in candidates {
        let count = copies[piece.slot()];
        if count > fewest {
            continue;
        }
        equals = if count == fewest { equals + 1 } else { 1 };
        fewest = count;
        // The n-th equal replaces the choice once in n times: all are chosen alike often.
        if random.u32(..equals) == 0 {
            best = Some(piece);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PieceCount;

    struct Scene {
        count: PieceCount,
        wants: Wants,
        has: PieceBitmap,
        underway: PieceBitmap,
        copies: Vec<u32>,
    }

    impl Scene {
        /// 100 pieces, nothing wanted; the partner has all of them; piece `n` has `n` copies.
        fn new() -> Self {
            let count = PieceCount::new(100).unwrap();
            Self {
                count,
                wants: Wants::nothing(count),
                has: PieceBitmap::full(count),
                underway: PieceBitmap::empty(count),
                copies: (0..100).collect(),
            }
        }

        fn want(&mut self, priority: Priority, numbers: &[u32]) {
            let count = self.count;
            self.wants.add(priority, numbers.iter().map(|number| count.piece(*number).unwrap()));
        }

        fn pick(&self, seed: u64) -> Option<(u32, Priority)> {
            let mut random = fastrand::Rng::with_seed(seed);
            let picked = pick(&self.wants, &self.has, &self.underway, &self.copies, &mut random);
            picked.map(|(piece, priority)| (piece.get(), priority))
        }
    }

    #[test]
    fn what_a_process_waits_for_comes_in_the_order_of_need() {
        let mut scene = Scene::new();
        scene.want(Priority::Background, &[1]);
        scene.want(Priority::Trace, &[2]);
        scene.want(Priority::Demand, &[50, 3]);
        assert_eq!(scene.pick(1), Some((50, Priority::Demand)));
    }

    #[test]
    fn of_a_known_order_the_rarest_near_its_front_comes_first() {
        let mut scene = Scene::new();
        let order: Vec<_> = (1..60).rev().collect();
        scene.want(Priority::Trace, &order);
        assert_eq!(scene.pick(1), Some((44, Priority::Trace)));
    }

    #[test]
    fn of_the_rest_the_rarest_comes_first_and_chance_decides_between_equals() {
        let mut scene = Scene::new();
        scene.want(Priority::Background, &[9, 8, 7, 6]);
        assert_eq!(scene.pick(1), Some((6, Priority::Background)));
        scene.copies.fill(3);
        let picked: std::collections::BTreeSet<_> =
            (0..100).map(|seed| scene.pick(seed).unwrap().0).collect();
        assert_eq!(picked.into_iter().collect::<Vec<_>>(), [6, 7, 8, 9]);
    }

    #[test]
    fn pieces_underway_or_not_there_are_left_out() {
        let mut scene = Scene::new();
        scene.want(Priority::Demand, &[5]);
        scene.want(Priority::Background, &[6, 7]);
        scene.underway.insert(scene.count.piece(5).unwrap());
        scene.has.remove(scene.count.piece(6).unwrap());
        assert_eq!(scene.pick(1), Some((7, Priority::Background)));
        scene.has = PieceBitmap::empty(scene.count);
        assert_eq!(scene.pick(1), None);
    }
}
