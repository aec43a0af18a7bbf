//! Probes that fail, lie, go backwards or stall, and a machine that sleeps: gaps are labelled,
//! nothing is minted, and the meter goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cryoflux::clock::Timestamp;
use cryoflux::energy::{
    Baseline, Clock, Flow, Flows, Idle, IdleState, Inflow, Label, Mono, Probe, ProbeError,
    ProbeInfo, Provenance, Sampler, Scope, Value, VirtualClock,
};
use cryoflux::units::{Joules, Watts};

/// What goes wrong, from the twentieth second to the thirtieth.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Fails,
    Stalls,
    Garbage,
    GoesBackwards,
    ResetsToZero,
    Sleeps,
}

/// A board that draws 100 W, counted every moment.
struct Board {
    info: ProbeInfo,
    clock: Arc<VirtualClock>,
    fault: Fault,
}

impl Probe for Board {
    fn info(&self) -> &ProbeInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Value, ProbeError> {
        let seconds = self.clock.now().nanos() as f64 / 1e9;
        let honest = |seconds: f64| (seconds * 100e6) as u64 + 5_000_000_000;
        let is_bad = (20.0..30.0).contains(&seconds);
        let microjoules = match self.fault {
            _ if !is_bad && self.fault != Fault::ResetsToZero => honest(seconds),
            Fault::ResetsToZero if seconds < 20.0 => honest(seconds),
            Fault::ResetsToZero => ((seconds - 20.0) * 100e6) as u64,
            Fault::Stalls => honest(20.0),
            Fault::Garbage => (seconds * 1e9) as u64 % 3 * 9_000_000_000_000,
            Fault::GoesBackwards => honest(40.0 - seconds),
            Fault::Sleeps => honest(seconds),
            Fault::Fails => {
                return Err(ProbeError {
                    probe: "board".into(),
                    cause: "lost".into(),
                });
            }
        };
        Ok(Value::Counter {
            microjoules,
            wraps_at: None,
        })
    }
}

/// A minute of the board at its baseline: no credit is due for any of it.
fn minute(fault: Fault) -> Flow {
    let clock = Arc::new(VirtualClock::default());
    let info = ProbeInfo {
        id: "board".into(),
        name: "board".into(),
        scope: Scope::Gpu,
        provenance: Provenance::Counter,
        max_watts: Watts(300.0),
        window: Duration::ZERO,
    };
    let baseline = Baseline {
        idle: vec![Idle {
            probe: "board".into(),
            watts: Watts(100.0),
            sigma_watts: Watts(0.05),
            spread_watts: Watts(0.5),
        }],
        state: IdleState::Bare,
        label: Label::Full,
        block_ms: 1000,
        blocks: 60,
        facts: BTreeMap::new(),
        learned: Timestamp::from_millis(0),
    };
    let board = Board {
        info: info.clone(),
        clock: Arc::clone(&clock),
        fault,
    };
    let mut sampler = Sampler::new(vec![Box::new(board)], Arc::clone(&clock) as _, 10.0, 1);
    let mut flows = Flows::new(vec![info], Some(baseline), Inflow::Foreign);
    let mut sum = Flow::default();
    let mut has_slept = false;
    while clock.now() < Mono::from_nanos(70_000_000_000) {
        clock.sleep_until(sampler.next_round());
        if fault == Fault::Sleeps && !has_slept && clock.now().nanos() > 20_000_000_000 {
            clock.suspend(Duration::from_secs(10));
            has_slept = true;
        }
        if let (_, Some(stretch)) = sampler.round() {
            sum.add(flows.push(&stretch).unwrap_or_default());
        }
    }
    sum
}

#[test]
fn no_fault_mints_a_joule_and_every_gap_is_labelled() {
    for fault in [
        Fault::Fails,
        Fault::Stalls,
        Fault::Garbage,
        Fault::GoesBackwards,
        Fault::ResetsToZero,
        Fault::Sleeps,
    ] {
        let flow = minute(fault);
        assert_eq!(flow.credited, Joules::ZERO, "{fault:?}: {flow:?}");
        assert_eq!(
            flow.gross,
            flow.idle + flow.own + flow.credited + flow.withheld
        );
        let gap = flow.unmeasured_ms;
        let expected = match fault {
            // A reset costs the time between two readings.
            Fault::ResetsToZero => 20..=400,
            Fault::Garbage => 1_000..=11_000,
            _ => 6_000..=13_000,
        };
        assert!(expected.contains(&gap), "{fault:?}: {gap} ms unmeasured");
        // What was measured before and after is all there: 100 W, but for the gap.
        // Sleep comes on top of the time that the clock shows.
        let lost = match fault {
            Fault::Sleeps => 0.0,
            _ => gap as f64 / 1000.0,
        };
        let measured = 100.0 * (64.0 - lost);
        let gross = flow.gross.as_f64();
        assert!(
            (gross - measured).abs() < 400.0,
            "{fault:?}: {gross} J, {measured} J expected"
        );
    }
}
