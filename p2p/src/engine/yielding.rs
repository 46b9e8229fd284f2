//! What nobody waits for makes room: for readers of this node, for those of others, and for the host's own work.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::actor::Actor;
use crate::{
    Priority,
    metrics::For,
    peer::Hold,
    rate::{HostLimit, Rate, Share},
};

/// A process that waits. It does not any more when this is gone.
#[derive(Debug)]
pub(super) struct Reader(#[allow(dead_code, reason = "it counts by being there")] Arc<()>);

/// Who needs the room, and how fast what nobody waits for goes meanwhile.
pub(super) struct Yielding {
    host: watch::Receiver<Hold>,
    readers: Arc<()>,
    pace: (HostLimit, Share),
    rate: Rate,
    last: Reasons,
}

/// Who needs room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Reasons {
    reader: bool,
    sender: bool,
    host: Hold,
}

impl Yielding {
    pub(super) fn new(host: watch::Receiver<Hold>) -> Self {
        let limit = HostLimit::new(Rate::UNLIMITED);
        let share = limit.share(NonZeroU32::MIN, Rate::UNLIMITED);
        Self {
            host,
            readers: Arc::default(),
            pace: (limit, share),
            rate: Rate::UNLIMITED,
            last: Reasons::default(),
        }
    }

    /// Somebody wants pieces; where that is a process that waits, it counts as one from now on.
    pub(super) fn reader(&self, priority: Priority) -> Option<Reader> {
        (priority == Priority::Demand).then(|| Reader(Arc::clone(&self.readers)))
    }

    /// What each step of a background piece is taken from.
    pub(super) fn pace(&self) -> Share {
        self.pace.1.clone()
    }

    fn set_pace(&mut self, rate: Rate) {
        if rate != self.rate {
            self.rate = rate;
            self.pace.0.set_rate(rate);
        }
    }
}

impl Actor {
    /// Holds back what nobody waits for as far as somebody needs the room now; says how far.
    pub(super) fn yield_now(&mut self, now: Duration) -> Hold {
        let yielding = &mut self.yielding;
        let reader = Arc::strong_count(&yielding.readers) > 1;
        let host = *yielding.host.borrow();
        let hold = if reader { Hold::MOST } else { host };
        self.uploads.hold(hold);
        yielding.set_pace(self.uploads.pace(now));
        let reasons = Reasons { reader, sender: self.uploads.has_urgent(now), host };
        let before = std::mem::replace(&mut yielding.last, reasons);
        if reasons != before {
            let begins = [
                (For::Reader, reasons.reader && !before.reader),
                (For::Upload, reasons.sender && !before.sender),
                (For::Host, reasons.host > before.host),
            ];
            begins.into_iter().filter(|(_, begins)| *begins).for_each(|(who, _)| self.metrics.yields(who));
            self.metrics.held_back(if reasons.sender { Hold::MOST } else { hold });
        }
        hold
    }
}
