//! A discrete-event simulation of one swarm. The network is made up: links of nodes and origin share their rate fairly,
//! messages take a fixed time. The decisions are those of the daemon: the very code of package `p2p`.

mod agenda;
mod event;
mod links;
mod scene;
mod world;

pub use scene::{Outcome, Scene};
pub use world::run;
