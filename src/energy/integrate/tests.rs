//! What readings of every kind become.

use proptest::prelude::*;

use super::super::probe::{Provenance, Scope};
use super::*;

const RANGE: u64 = 262_143_328_850;

fn integrator(window: Duration) -> Integrator {
    Integrator::new(&ProbeInfo {
        id: "p".into(),
        name: "p".into(),
        scope: Scope::Cpu,
        provenance: Provenance::Counter,
        max_watts: Watts(300.0),
        window,
    })
}

fn millis(at: u64) -> Mono {
    Mono::from_nanos(at * 1_000_000)
}

fn counter(microjoules: u64) -> Option<Value> {
    Some(Value::Counter {
        microjoules,
        wraps_at: Some(RANGE),
    })
}

fn after(values: &[(u64, Option<Value>)]) -> Integrator {
    let mut integrator = integrator(Duration::ZERO);
    for &(at, value) in values {
        integrator.push(millis(at), value);
    }
    integrator
}

fn end(integrator: &Integrator) -> Total {
    integrator.total_at(millis(u64::MAX / 2_000_000))
}

#[test]
fn a_wrap_is_counted_and_a_reset_is_not() {
    let wrapped = after(&[
        (0, counter(RANGE - 40_000_000)),
        (1000, counter(10_000_000)),
    ]);
    assert_eq!(end(&wrapped).energy, Joules::from_smallest(50_000_000));
    let reset = after(&[(0, counter(9_000_000_000)), (1000, counter(5))]);
    assert_eq!(end(&reset).energy, Joules::ZERO);
    assert_eq!(end(&reset).unmeasured, Duration::from_secs(1));
    assert_eq!(reset.glitches(), 1);
}

#[test]
fn a_dip_that_recovers_books_no_lifetime() {
    let found = after(&[
        (0, counter(9_000_000_000)),
        (1000, counter(0)),
        (2000, counter(9_000_000_500)),
        (3000, counter(9_100_000_500)),
    ]);
    assert_eq!(end(&found).energy, Joules::from_smallest(100_000_000));
    assert_eq!(end(&found).unmeasured, Duration::from_secs(2));
}

#[test]
fn a_counter_that_stands_still_is_late_and_then_stalled() {
    let late = after(&[
        (0, counter(1000)),
        (100, counter(1000)),
        (900, counter(90_001_000)),
    ]);
    assert_eq!(end(&late).energy, Joules::from_smallest(90_000_000));
    assert_eq!(end(&late).unmeasured, Duration::ZERO);
    let stalled: Vec<_> = (0..50).map(|tick| (tick * 100, counter(1000))).collect();
    let stalled = after(&stalled);
    assert!(end(&stalled).unmeasured > Duration::from_secs(2));
    assert_eq!(end(&stalled).energy, Joules::ZERO);
}

#[test]
fn a_running_total_that_stands_still_means_that_nothing_was_used() {
    let running = |microjoules| Some(Value::Running { microjoules });
    // Read late, and with all of a child's energy at once.
    let found = after(&[
        (0, running(1000)),
        (100, running(1000)),
        (5000, running(1000)),
        (5100, running(5_000_001_000)),
        (9000, running(5_000_001_000)),
    ]);
    assert_eq!(end(&found).energy, Joules::from_smallest(5_000_000_000));
    assert_eq!(end(&found).unmeasured, Duration::ZERO);
    assert_eq!(found.resolved(), Some(millis(9000)));
    assert_eq!(found.update_period(), Some(Duration::ZERO));
    assert!(!found.wants_burst());
    assert_eq!(found.glitches(), 0);
}

#[test]
fn averaged_power_belongs_to_the_middle_of_its_window() {
    let mut averaged = integrator(Duration::from_secs(1));
    for tick in 0..30 {
        let watts = if tick < 10 { 100.0 } else { 200.0 };
        averaged.push(millis(tick * 100), Some(Value::Power(Watts(watts))));
    }
    assert_eq!(averaged.resolved(), Some(millis(2900 - 500)));
    let energy = averaged.total_at(millis(2000)).energy - averaged.total_at(millis(1000)).energy;
    assert_eq!(energy.as_f64(), 200.0);
}

#[test]
fn a_probe_that_fails_leaves_the_time_unmeasured() {
    let found = after(&[
        (0, Some(Value::Power(Watts(100.0)))),
        (100, Some(Value::Power(Watts(100.0)))),
        (1000, None),
        (2500, None),
        (3000, None),
        (3100, Some(Value::Power(Watts(100.0)))),
        (3200, Some(Value::Power(Watts(100.0)))),
    ]);
    assert_eq!(end(&found).energy.as_f64(), 20.0);
    assert_eq!(end(&found).unmeasured, Duration::from_secs(3));
}

#[test]
fn garbage_power_is_unmeasured() {
    for garbage in [f64::NAN, f64::INFINITY, -5.0, 1e9] {
        let found = after(&[
            (0, Some(Value::MeanPower(Watts(10.0)))),
            (1000, Some(Value::MeanPower(Watts(garbage)))),
        ]);
        assert_eq!(end(&found).energy, Joules::ZERO, "{garbage}");
        assert_eq!(end(&found).unmeasured, Duration::from_secs(1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// However the counter jumps, fails or repeats: no panic, the total never falls, it stays
    /// within the limit, and every moment is measured, unmeasured or not over yet.
    #[test]
    fn any_counter_stays_within_the_limit(
        steps in prop::collection::vec((0..400_u64, prop::option::of(0..RANGE + 10), any::<bool>()), 2..60)
    ) {
        let mut integrator = integrator(Duration::ZERO);
        let (mut now, mut raw, mut before) = (0, 1_000_000, Total::default());
        for (wait, jump, works) in steps {
            now += wait;
            raw = jump.unwrap_or(raw + wait * 100_000);
            integrator.push(millis(now), works.then_some(()).and(counter(raw)));
            let total = integrator.total_at(millis(now));
            prop_assert!(total.energy >= before.energy);
            prop_assert!(total.unmeasured >= before.unmeasured);
            prop_assert!(integrator.resolved().is_none_or(|resolved| resolved <= millis(now)));
            before = total;
        }
        let seconds = now as f64 / 1000.0 + 0.2 * 60.0;
        prop_assert!(before.energy.as_f64() <= 300.0 * 1.2 * seconds);
    }
}
