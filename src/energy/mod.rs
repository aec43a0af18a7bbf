//! Where joules come from and where they go.
//!
//! Probes are read by the meter's thread; what they say becomes stretches of time with known
//! energy, which flow into the accounts of the bucket. An agent puts them together, in this
//! process or behind a socket.
//!
//! ```text
//! probes -> Sampler -> Metering (integrate, phase) -> Stretch -> Flows -> Bucket -> journal
//!                                                         |
//!                                          Baseline, Measured with its Sigma
//! ```

pub mod agent;
mod baseline;
mod bucket;
mod calibration;
mod flow;
mod integrate;
mod meter;
mod metering;
mod phase;
mod probe;
pub mod probes;
mod record;
mod time;
mod uncertainty;

pub use baseline::{
    Baseline, BaselineError, Effort, Given, Idle, IdleState, Label, LearnSettings, Learning,
    Unstable, learn,
};
pub use bucket::{
    Abandoned, Accounts, Affordable, Audit, Bucket, BucketError, BucketEvent, BucketPolicy, Closed,
    Ending, Flow, LONGEST_LEASE, Lease, LeaseEnd, LeaseId, LeaseStory, Ledger, Record, Refusal,
    Short, Take, Taken, Unseen,
};
pub use calibration::{Calibration, CalibrationError, MeteredPower, WallReading, fit, read_wall};
pub use flow::{Before, Flows, Inflow, Measured};
pub use integrate::{Integrator, Total};
pub use meter::{DEFAULT_HZ, Meter, Observer, Sampler, Snapshot};
pub use metering::{Look, Metering, Part, Round, Stretch};
pub use probe::{Probe, ProbeError, ProbeInfo, Provenance, Scope, Value};
pub use probes::{
    CpuModel, CpuPower, Discovery, Load, Missing, OwnTime, PowerOrigin, ProbeChoice, Processors,
    Purpose, RaplChoice, Sources, discover, processor_name, processor_time,
};
pub use record::{RecordError, Recorder, Recording};
pub use time::{Clock, Mono, SystemClock, VirtualClock};
pub use uncertainty::{Doubt, FEWEST_UPDATES, Sigma};
