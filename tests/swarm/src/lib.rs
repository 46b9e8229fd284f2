//! A discrete-event simulation of one swarm. The network is made up: links of nodes and origin share their rate fairly,
//! messages take a fixed time. The decisions are those of the daemon: the very code of package `p2p`. [`in_process`] runs
//! whole daemons, but for their network, through the same scenes.

mod agenda;
mod event;
mod in_process;
mod links;
mod scene;
mod slots;
mod world;

pub use in_process::{Downloaded, in_process};
pub use scene::{Outcome, Scene};
pub use slots::{Rule, SlotOutcome, Slots, bound, play};
pub use world::run;
