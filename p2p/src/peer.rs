//! One node's part in a task: what to ask of whom, and whom to serve first.

mod hedge;
mod partner;
mod picker;
mod task;
mod upload_queue;

pub use task::{Action, Source, Task};
pub use upload_queue::{Admission, Upload, UploadQueue};
