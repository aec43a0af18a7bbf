//! Where joules come from and where they go: probes, meter, baseline, bucket.

mod baseline;
mod bucket;
mod cpu_model;
mod discover;
mod integrate;
mod meter;
mod nvml;
mod probe;
mod rapl;

pub use baseline::{Baseline, BaselineError, Idle};
pub use bucket::{
    Accounts, Affordable, Bucket, BucketError, BucketPolicy, Lease, Recovered, Short, Spend,
};
pub use cpu_model::{CpuModel, DEFAULT_CPU_TDP_WATTS, processor_name};
pub use discover::{Discovery, Missing, Sources, discover};
pub use integrate::{Increment, Integrator};
pub use meter::{Meter, Sample, Span};
pub use probe::{Probe, ProbeError, ProbeInfo, Provenance, Reading, Scope, Value};
pub use rapl::powercap_probes;
