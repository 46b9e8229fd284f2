//! How urgent a piece is.

/// Why a piece is wanted; more urgent ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// The whole blob, when nothing else is to do.
    Background,
    /// A recorded order of reads says that it will be read.
    Trace,
    /// The reader goes on in sequence.
    ReadAhead,
    /// A process waits for it.
    Demand,
}

impl Priority {
    /// The priority of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Background, Self::Trace, Self::ReadAhead, Self::Demand];
        all.into_iter().find(|priority| priority.name() == name)
    }

    /// How calls and figures name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Background => "background",
            Self::Trace => "trace",
            Self::ReadAhead => "read-ahead",
            Self::Demand => "demand",
        }
    }
}
