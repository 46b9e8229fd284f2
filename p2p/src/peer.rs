//! One node's part in a task: what to ask of whom, and whom to serve first.

mod action;
mod flow;
mod hedge;
mod hold;
mod partner;
mod picker;
mod provisional;
mod task;
mod uploads;

pub use action::{Action, Source};
pub use hold::Hold;
pub use provisional::{Next, Provisional};
pub use task::Task;
pub use uploads::{Admission, Upload, Uploads};
