//! How far what nobody waits for is held back.

use crate::rate::{LEAST, Rate};

/// How often what nobody waits for is halved, so that something else has the link or the machine. Never to nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold(u8);

impl Hold {
    /// It is not.
    pub const NONE: Self = Self(0);
    /// To an eighth.
    pub const MOST: Self = Self(3);

    /// One step more.
    #[must_use]
    pub fn more(self) -> Self {
        Self(self.0 + 1).min(Self::MOST)
    }

    /// One step less.
    #[must_use]
    pub const fn less(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How often it is halved.
    #[must_use]
    pub const fn halvings(self) -> u8 {
        self.0
    }

    /// What is left of a number of things at a time: one at least.
    #[must_use]
    pub fn of(self, number: usize) -> usize {
        (number >> self.0).max(1)
    }

    /// What is left of so many bytes per second: not less than what keeps partners from taking a node for stalled.
    #[must_use]
    pub fn rate(self, usual: u64) -> Rate {
        if self == Self::NONE {
            return Rate::UNLIMITED;
        }
        Rate::per_second(LEAST.max(std::num::NonZeroU64::new(usual >> self.0).unwrap_or(LEAST)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_by_halves_and_never_to_nothing() {
        let mut hold = Hold::NONE;
        assert_eq!((hold.of(8), hold.rate(8 << 20)), (8, Rate::UNLIMITED));
        let mut left = Vec::new();
        for _ in 0..4 {
            hold = hold.more();
            left.push((hold.of(8), hold.of(2), hold.rate(8 << 20).bytes_per_second()));
        }
        let mib = |mib: u64| Some(mib << 20);
        assert_eq!(left, [(4, 1, mib(4)), (2, 1, mib(2)), (1, 1, mib(1)), (1, 1, mib(1))]);
        assert_eq!(hold.rate(1 << 20).bytes_per_second(), Some(LEAST.get()));
        assert_eq!(hold.less().less().less().less(), Hold::NONE);
    }
}
