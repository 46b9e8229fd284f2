//! The builder's events as bars or lines.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use builder::{Progress, convert::Event};
use indicatif::ProgressBar;

use crate::progress::{Bars, short};

/// Shows a conversion on stderr.
pub(super) struct Shown {
    bars: Bars,
    layers: Mutex<HashMap<String, ProgressBar>>,
}

impl Shown {
    /// Nothing shown yet.
    pub(super) fn new() -> Self {
        Self { bars: Bars::new(), layers: Mutex::default() }
    }

    fn bar(&self, layer: &str) -> Option<ProgressBar> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).get(layer).cloned()
    }
}

impl Progress for Shown {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::LayerStarted { layer, size } => {
                let bar = self.bars.bar(short(layer), size);
                self.layers.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.to_owned(), bar);
            }
            Event::LayerRead { layer, bytes } => {
                if let Some(bar) = self.bar(layer) {
                    bar.inc(bytes);
                }
            }
            Event::LayerDone { layer, sent, .. } => {
                if let Some(bar) = self.bar(layer) {
                    self.bars
                        .done(&bar, if sent { "converted and sent" } else { "is in the target already" });
                }
            }
            Event::ImageDone { platform, digest } => {
                self.bars.line(&format!("{platform} is {digest}"));
            }
            _ => {}
        }
    }
}
