//! Which pieces are wanted, in which order.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use crate::{PieceBitmap, PieceCount, PieceIndex, Priority};

/// More urgent first, within one urgency as they were asked for.
type Place = (Reverse<Priority>, u64);

/// Wanted pieces of one blob: urgent ones in the order of need, and the rest, of which any order will do.
#[derive(Debug, Clone)]
pub(crate) struct Wants {
    urgent: BTreeMap<Place, PieceIndex>,
    places: HashMap<PieceIndex, Place>,
    rest: PieceBitmap,
    next: u64,
}

impl Wants {
    /// Nothing of so many pieces.
    #[must_use]
    pub(crate) fn nothing(count: PieceCount) -> Self {
        Self { urgent: BTreeMap::new(), places: HashMap::new(), rest: PieceBitmap::empty(count), next: 0 }
    }

    /// Adds pieces in their order of need. One that is there already keeps its place, unless it is more urgent now.
    pub(crate) fn add(&mut self, priority: Priority, pieces: impl IntoIterator<Item = PieceIndex>) {
        for piece in pieces {
            if priority == Priority::Background {
                if !self.places.contains_key(&piece) {
                    self.rest.insert(piece);
                }
            } else if self.priority(piece).is_none_or(|now| now < priority) {
                self.remove(piece);
                let place = (Reverse(priority), self.next);
                self.next += 1;
                self.urgent.insert(place, piece);
                self.places.insert(piece, place);
            }
        }
    }

    /// Takes a piece out; says how urgent it was.
    pub(crate) fn remove(&mut self, piece: PieceIndex) -> Option<Priority> {
        if let Some(place) = self.places.remove(&piece) {
            self.urgent.remove(&place);
            return Some(place.0.0);
        }
        self.rest.remove(piece).then_some(Priority::Background)
    }

    /// Takes out all but these.
    pub(crate) fn keep(&mut self, pieces: &PieceBitmap) {
        let others: Vec<_> =
            self.in_order().map(|(piece, _)| piece).filter(|piece| !pieces.contains(*piece)).collect();
        others.into_iter().for_each(|piece| _ = self.remove(piece));
    }

    /// How urgent a piece is, if it is wanted.
    #[must_use]
    pub(crate) fn priority(&self, piece: PieceIndex) -> Option<Priority> {
        let urgent = self.places.get(&piece).map(|place| place.0.0);
        urgent.or_else(|| self.rest.contains(piece).then_some(Priority::Background))
    }

    /// The urgent pieces, most needed first.
    pub(crate) fn urgent(&self) -> impl Iterator<Item = (PieceIndex, Priority)> + '_ {
        self.urgent.iter().map(|(place, piece)| (*piece, place.0.0))
    }

    /// The pieces of which any order will do.
    #[must_use]
    pub(crate) const fn rest(&self) -> &PieceBitmap {
        &self.rest
    }

    /// All pieces, most needed first, the rest in the blob's order.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (PieceIndex, Priority)> + '_ {
        self.urgent().chain(self.rest.iter().map(|piece| (piece, Priority::Background)))
    }

    /// Whether nothing is wanted.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.rest.held() == 0
    }

    /// Whether a process waits for any.
    #[must_use]
    pub(crate) fn are_demanded(&self) -> bool {
        self.urgent().next().is_some_and(|(_, priority)| priority == Priority::Demand)
    }

    /// How many pieces are wanted.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.urgent.len() + self.rest.held() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants() -> (PieceCount, Wants) {
        let count = PieceCount::new(10).unwrap();
        (count, Wants::nothing(count))
    }

    fn order(wants: &Wants) -> Vec<u32> {
        wants.in_order().map(|(piece, _)| piece.get()).collect()
    }

    #[test]
    fn urgent_pieces_come_first_in_the_order_asked_for_and_the_rest_in_the_blobs() {
        let (count, mut wants) = wants();
        let piece = |number| count.piece(number).unwrap();
        wants.add(Priority::Background, count.pieces().take(4));
        wants.add(Priority::Trace, [piece(9), piece(2)]);
        wants.add(Priority::Demand, [piece(5)]);
        assert_eq!(order(&wants), [5, 9, 2, 0, 1, 3]);
        assert_eq!(wants.len(), 6);
    }

    #[test]
    fn a_piece_becomes_more_urgent_and_never_less() {
        let (count, mut wants) = wants();
        let piece = |number| count.piece(number).unwrap();
        wants.add(Priority::Trace, [piece(1), piece(2)]);
        wants.add(Priority::Background, [piece(1)]);
        wants.add(Priority::Demand, [piece(2)]);
        wants.add(Priority::Trace, [piece(2)]);
        assert_eq!(order(&wants), [2, 1]);
        assert_eq!(wants.remove(piece(2)), Some(Priority::Demand));
        assert_eq!(wants.remove(piece(2)), None);
        assert_eq!(order(&wants), [1]);
    }
}
