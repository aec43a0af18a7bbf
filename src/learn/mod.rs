//! Training, evaluating and embedding on a device, one step at a time.
//!
//! Nothing here knows of joules, TOML or terminals: each step returns, and the engine decides
//! whether to go on.

mod batch;
mod bytes;
mod device;
mod embed;
mod evaluate;
mod memory;
mod parallel;
mod stress;
mod train;

pub use bytes::Bytes;
pub use device::{Compute, DeviceChoice, DeviceError};
pub use embed::Embedding;
pub use evaluate::{Evaluation, Outcome};
pub use memory::Demand;
pub use stress::Stress;
pub use train::{Example, StepReport, TrainSettings, Trainer};
