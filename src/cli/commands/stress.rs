//! `cryo stress`

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Context;
use crate::cli::args::StressTarget;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::clock::Timestamp;
use crate::energy::agent::Sample;
use crate::energy::{Bucket, Purpose};
use crate::engine::{EngineError, watching_agent};
use crate::learn::{Compute, DeviceChoice, Stress};
use crate::recipe::Precision;

pub fn run(
    context: &Context<'_>,
    what: StressTarget,
    seconds: f64,
    side: Option<usize>,
    dtype: Option<Precision>,
) -> Result<Exit, CliError> {
    let time = Context::check_seconds(seconds, 1.0)?;
    let precision = dtype.unwrap_or_default();
    let mut devices = Vec::new();
    if what != StressTarget::Gpu {
        let cpu = Compute::open(DeviceChoice::Cpu)?;
        let cpu = match context.settings.threads {
            Some(threads) => cpu.with_threads(threads),
            None => cpu,
        };
        // Beside a card, the type is meant for the card.
        let own = if what == StressTarget::Cpu {
            precision
        } else {
            Precision::F32
        };
        devices.push(cpu.with_precision(own)?);
    }
    if what != StressTarget::Cpu {
        devices.push(Compute::open(DeviceChoice::Cuda(0))?.with_precision(precision)?);
    }
    let output = context.output;
    let agent = watching_agent(&context.project, &context.settings, Purpose::OwnWork)?;
    let stress = Stress::start(&devices, side)?;
    let ledger = Bucket::peek(&context.project.bucket(), context.settings.bucket)?;
    let start = Instant::now();
    let mut samples = Vec::new();
    if !output.is_json() {
        output.say("   s     gpu W     cpu W     net W   GFLOP/s   bucket J");
    }
    let mut before = (start, 0);
    while start.elapsed() < time {
        let left = time.saturating_sub(start.elapsed());
        thread::sleep(left.min(Duration::from_secs(1)));
        let mut sample = agent.sample().map_err(EngineError::from)?;
        // An agent that only watches has no bucket, but the project may have one.
        if let (None, Some(ledger)) = (sample.bucket_j, &ledger) {
            sample.bucket_j = Some(ledger.level_at(Timestamp::now()));
            sample.hash = Sample::hash_of(sample.ts, sample.bucket_j);
        }
        let now = (Instant::now(), stress.operations());
        let rate = (now.1 - before.1) as f64 / (now.0 - before.0).as_secs_f64().max(1e-9) / 1e9;
        before = now;
        if !output.is_json() {
            output.say(line(start.elapsed(), &sample, rate));
        }
        samples.push(
            json!({"seconds": start.elapsed().as_secs_f64(), "sample": sample, "gflops": rate}),
        );
    }
    drop(stress);
    output.json(&json!({"samples": samples}));
    Ok(Exit::Done)
}

fn line(at: Duration, sample: &Sample, rate: f64) -> String {
    let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let bucket = known(
        sample
            .bucket_j
            .map(|joules| format!("{:.0}", joules.as_f64())),
    );
    let watts = |watts: Option<f64>| known(watts.map(|watts| format!("{watts:.1}")));
    format!(
        "{:>4.0} {:>9} {:>9} {:>9} {rate:>9.1} {bucket:>10}",
        at.as_secs_f64(),
        watts(sample.gpu_w),
        watts(sample.cpu_w),
        watts(sample.net_w),
    )
}
