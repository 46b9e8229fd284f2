//! What a long run shows: bars on a terminal, lines elsewhere.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// The bars of one run.
#[derive(Debug, Clone)]
pub(crate) struct Bars {
    all: MultiProgress,
    on_terminal: bool,
}

impl Bars {
    /// Bars on stderr where it is a terminal, plain lines otherwise.
    pub(crate) fn new() -> Self {
        let on_terminal = output::on_terminal();
        let target = if on_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { all: MultiProgress::with_draw_target(target), on_terminal }
    }

    /// A bar for something of `size` bytes.
    pub(crate) fn bar(&self, name: &str, size: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("{prefix:20} {bar:30} {bytes:>10}/{total_bytes:10} {msg}")
            .expect("the template is a constant");
        let bar = self.all.add(ProgressBar::new(size).with_style(style).with_prefix(name.to_owned()));
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// Ends a bar; where there are none, says so in a line.
    pub(crate) fn done(&self, bar: &ProgressBar, what: &str) {
        bar.finish_with_message(what.to_owned());
        if !self.on_terminal {
            eprintln!("{} {what}", bar.prefix());
        }
    }

    /// A line of its own.
    pub(crate) fn line(&self, text: &str) {
        // The bars are for the eye only: a terminal that is gone must not end the work.
        match self.on_terminal {
            true => self.all.println(text).ok(),
            false => {
                eprintln!("{text}");
                None
            }
        };
    }
}

/// The first digits of a digest.
pub(crate) fn short(digest: &str) -> &str {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}
