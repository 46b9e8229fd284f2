//! What was measured, as a table and as a file.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use serde::Serialize;

/// One measurement against its yardstick, both of the same run.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// What the yardstick took, or gave.
    pub baseline: f64,
    /// What ours did.
    pub ours: f64,
    /// Unit of both.
    pub unit: &'static str,
    /// Ours in relation to the yardstick.
    pub ratio: f64,
    /// The ratio that must be reached, where one must.
    pub gate: Option<Gate>,
}

/// A bound of a ratio.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Less is better.
    AtMost(f64),
    /// More is better.
    AtLeast(f64),
    /// Both are to agree, but for this part of the yardstick.
    Within(f64),
}

impl Row {
    /// Ours as a share of the yardstick, in the same unit.
    #[must_use]
    pub fn share(what: impl Into<String>, baseline: f64, ours: f64, unit: &'static str) -> Self {
        Self { what: what.into(), baseline, ours, unit, ratio: ours / baseline, gate: None }
    }

    /// Our speed as a share of the yardstick's, from two times.
    #[must_use]
    pub fn speed(what: impl Into<String>, baseline: Duration, ours: Duration) -> Self {
        let (baseline, ours) = (baseline.as_secs_f64(), ours.as_secs_f64());
        Self { what: what.into(), baseline, ours, unit: "s", ratio: baseline / ours, gate: None }
    }

    /// The same with a bound.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    fn verdict(&self) -> String {
        let (bound, sign, holds) = match self.gate {
            None => return String::new(),
            Some(Gate::AtMost(bound)) => (bound, '<', self.ratio <= bound),
            Some(Gate::AtLeast(bound)) => (bound, '>', self.ratio >= bound),
            Some(Gate::Within(part)) => (part, '±', (self.ratio - 1.0).abs() <= part),
        };
        format!("{sign} {bound:.2} {}", if holds { "holds" } else { "MISSED" })
    }
}

/// The median.
///
/// # Panics
/// Where there is nothing.
#[must_use]
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Prints a table and writes `bench-<name>.json` into `dir`.
///
/// # Errors
/// Where the file cannot be written.
#[allow(clippy::print_stdout, reason = "the result of the program")]
pub fn show(name: &str, rows: &[Row], dir: &Path) -> Result<()> {
    println!("{:<44} | {:>10} | {:>10} | {:<3} | {:>6} | gate", name, "baseline", "ours", "", "ratio");
    for row in rows {
        println!(
            "{:<44} | {:>10.3} | {:>10.3} | {:<3} | {:>6.2} | {}",
            row.what,
            row.baseline,
            row.ours,
            row.unit,
            row.ratio,
            row.verdict()
        );
    }
    let path = dir.join(format!("bench-{name}.json"));
    fs::write(&path, serde_json::to_vec_pretty(rows)?).with_context(|| format!("write {}", path.display()))
}
