//! Pieces that are on their way, and from where.

use std::{collections::BTreeMap, time::Duration};

use crate::peer::Source;
use crate::{NodeId, PieceBitmap, PieceCount, PieceIndex};

/// Pieces on their way. A few dozen at most.
#[derive(Debug)]
pub(super) struct Flights {
    sources: BTreeMap<PieceIndex, Vec<(Source, Duration)>>,
    underway: PieceBitmap,
    from_partners: usize,
    from_origin: usize,
}

impl Flights {
    pub(super) fn none(count: PieceCount) -> Self {
        Self {
            sources: BTreeMap::new(),
            underway: PieceBitmap::empty(count),
            from_partners: 0,
            from_origin: 0,
        }
    }

    /// The pieces that come from anywhere.
    pub(super) const fn underway(&self) -> &PieceBitmap {
        &self.underway
    }

    /// Requests that partners have to answer.
    pub(super) const fn requests(&self) -> usize {
        self.from_partners
    }

    /// The pieces that partners were asked for.
    pub(super) fn requested(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        let by_partner = |sources: &[(Source, Duration)]| {
            sources.iter().any(|(source, _)| matches!(source, Source::Node(_)))
        };
        self.sources.iter().filter(move |(_, sources)| by_partner(sources)).map(|(piece, _)| *piece)
    }

    /// Pieces that come from the origin.
    pub(super) const fn fetches(&self) -> usize {
        self.from_origin
    }

    /// A piece is asked for; `false` where that source already was.
    pub(super) fn began(&mut self, now: Duration, piece: PieceIndex, source: Source) -> bool {
        if self.comes_from(piece, source) {
            return false;
        }
        self.sources.entry(piece).or_default().push((source, now));
        self.underway.insert(piece);
        *self.count(source) += 1;
        true
    }

    /// A source is not waited for any more.
    pub(super) fn ended(&mut self, piece: PieceIndex, source: Source) {
        let Some(sources) = self.sources.get_mut(&piece) else { return };
        let Some(place) = sources.iter().position(|(other, _)| *other == source) else { return };
        sources.swap_remove(place);
        let none = sources.is_empty();
        *self.count(source) -= 1;
        if none {
            self.sources.remove(&piece);
            self.underway.remove(piece);
        }
    }

    /// No source is waited for any more, but for the origin, whose bytes cannot be called back; says which partners were.
    pub(super) fn ended_all(&mut self, piece: PieceIndex) -> Vec<NodeId> {
        let sources = self.sources.get(&piece).cloned().unwrap_or_default();
        let node = |source: &Source| match source {
            Source::Origin => None,
            Source::Node(node) => Some(*node),
        };
        let nodes: Vec<_> = sources.iter().filter_map(|(source, _)| node(source)).collect();
        nodes.iter().for_each(|node| self.ended(piece, Source::Node(*node)));
        nodes
    }

    const fn count(&mut self, source: Source) -> &mut usize {
        match source {
            Source::Origin => &mut self.from_origin,
            Source::Node(_) => &mut self.from_partners,
        }
    }

    /// Whether a piece comes from there.
    pub(super) fn comes_from(&self, piece: PieceIndex, source: Source) -> bool {
        self.sources.get(&piece).is_some_and(|sources| sources.iter().any(|(other, _)| *other == source))
    }

    /// The pieces that come from there.
    pub(super) fn from(&self, source: Source) -> Vec<PieceIndex> {
        self.sources.keys().copied().filter(|piece| self.comes_from(*piece, source)).collect()
    }

    /// The pieces that come from one partner alone, and since when.
    pub(super) fn single(&self) -> Vec<(PieceIndex, Duration)> {
        let single = |(piece, sources): (&PieceIndex, &Vec<(Source, Duration)>)| match sources[..] {
            [(Source::Node(_), since)] => Some((*piece, since)),
            _ => None,
        };
        self.sources.iter().filter_map(single).collect()
    }
}
