//! What pressure is too much, and how far to make room.

use std::{fmt, str::FromStr};

use crate::peer::Hold;

/// A part of a hundred, from 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u8);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|number| (1..=100).contains(number));
        number.map(Self).ok_or_else(|| format!("{text:?} is neither 1 to 100 nor none"))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// From which part of the time on in which something waits for a processor, or for a disk, the host has other work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// For a processor.
    pub cpu: Option<Percent>,
    /// For a disk.
    pub io: Option<Percent>,
}

impl Bounds {
    /// It never has.
    pub const NONE: Self = Self { cpu: None, io: None };
    /// Unless something else is said.
    pub const DEFAULT: Self = Self { cpu: Some(Percent(80)), io: None };

    /// One of them, or `none`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Option<Percent>, String> {
        if text == "none" { Ok(None) } else { text.parse().map(Some) }
    }

    /// As [`Self::parse`] reads it.
    #[must_use]
    pub fn text(bound: Option<Percent>) -> String {
        bound.map_or_else(|| "none".to_owned(), |percent| percent.to_string())
    }
}

/// Decides, look by look.
#[derive(Debug)]
pub struct Judge {
    bounds: Bounds,
    hold: Hold,
}

/// Where something stands to its bound.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Stand {
    Well,
    /// Not enough below the bound to let go: it would come and go.
    Near,
    Beyond,
}

impl Judge {
    /// Nothing is held back at first.
    #[must_use]
    pub const fn new(bounds: Bounds) -> Self {
        Self { bounds, hold: Hold::NONE }
    }

    /// How far to hold back when so many percent of the time something waits for a processor and for a disk: a step more at
    /// each look at which one is beyond its bound, a step less where all known ones are a quarter below.
    pub fn judge(&mut self, cpu: Option<f64>, io: Option<f64>) -> Hold {
        let worst = stand(cpu, self.bounds.cpu).max(stand(io, self.bounds.io));
        self.hold = match worst {
            Stand::Beyond => self.hold.more(),
            Stand::Near => self.hold,
            Stand::Well => self.hold.less(),
        };
        self.hold
    }
}

fn stand(pressure: Option<f64>, bound: Option<Percent>) -> Stand {
    let Some((pressure, Percent(bound))) = pressure.zip(bound) else { return Stand::Well };
    match f64::from(bound) {
        bound if pressure > bound => Stand::Beyond,
        bound if pressure > bound * 0.75 => Stand::Near,
        _ => Stand::Well,
    }
}

/// The percentage of the last ten seconds in which something waited, of a file of `/proc/pressure`.
pub(super) fn some_avg10(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let average = some.split_whitespace().find_map(|field| field.strip_prefix("avg10="))?;
    average.parse().ok().filter(|average| (0.0..=100.0).contains(average))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(cpu: &str, io: &str) -> Judge {
        Judge::new(Bounds { cpu: Bounds::parse(cpu).unwrap(), io: Bounds::parse(io).unwrap() })
    }

    #[test]
    fn load_holds_back_step_by_step_and_lets_go_when_it_is_well_below() {
        let mut judge = judge("80", "none");
        let looks = [(80.0, 0), (81.0, 1), (99.0, 2), (99.0, 3), (99.0, 3), (70.0, 3), (60.0, 2), (79.0, 2)];
        for (cpu, halvings) in looks.into_iter().chain([(0.0, 1), (0.0, 0), (0.0, 0)]) {
            assert_eq!(judge.judge(Some(cpu), Some(100.0)).halvings(), halvings, "{cpu}");
        }
    }

    #[test]
    fn either_is_enough_and_what_is_not_known_lets_go() {
        let mut judge = judge("80", "20");
        assert_eq!(judge.judge(Some(0.0), Some(21.0)).halvings(), 1);
        assert_eq!(judge.judge(Some(81.0), Some(0.0)).halvings(), 2);
        assert_eq!(judge.judge(Some(0.0), Some(16.0)).halvings(), 2);
        assert_eq!(judge.judge(None, None).halvings(), 1);
    }

    #[test]
    fn the_kernel_s_words_are_understood_and_others_not() {
        let text = "some avg10=12.50 avg60=1.00 avg300=0.20 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(some_avg10(text), Some(12.5));
        for other in ["", "some", "some avg60=1.0", "some avg10=much", "some avg10=NaN", "full avg10=1.0"] {
            assert_eq!(some_avg10(other), None, "{other}");
        }
    }

    #[test]
    fn a_bound_is_a_percentage_or_none() {
        for text in ["1", "80", "100", "none"] {
            assert_eq!(Bounds::text(Bounds::parse(text).unwrap()), text);
        }
        for text in ["0", "101", "-1", "much", ""] {
            assert!(Bounds::parse(text).is_err(), "{text}");
        }
    }
}
