use proptest::prelude::*;
use serde_json::Value;

use super::line::{Line, quantile};
use super::pairing::Logs;
use super::wall::parse;
use super::*;

fn calibration(learned: i64, probe: &str) -> Calibration {
    let unnamed = Calibration {
        gain: 1.134652,
        gain_low: 1.128285,
        gain_high: 1.141018,
        offset_watts: 39.472825,
        offset_low_watts: 38.108803,
        offset_high_watts: 40.836848,
        residual_watts: 2.392628,
        r_squared: 0.99917,
        blocks: 224,
        effective_blocks: 105.751434,
        metered_low_watts: 53.0783,
        metered_high_watts: 307.47435,
        shift_seconds: 1.35,
        held_out_error: 0.000555,
        probes: Vec::new(),
        wall_digest: Digest::ZERO,
        learned: Timestamp::from_millis(learned),
    };
    unnamed.named(vec![probe.into()], Digest::of(b"wall"))
}

#[test]
fn the_newest_of_the_same_probes_is_found_as_it_was_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let probes = vec!["gpu".to_owned()];
    let missing = folder.path().join("none");
    assert_eq!(Calibration::newest(&missing, &probes).unwrap(), None);
    for (learned, probe) in [(2, "gpu"), (3, "cpu"), (1, "gpu")] {
        calibration(learned, probe).freeze(folder.path()).unwrap();
    }
    let newest = Calibration::newest(folder.path(), &probes).unwrap();
    assert_eq!(newest, Some(calibration(2, "gpu")));
}

#[test]
fn the_hash_of_a_calibration_does_not_change_between_releases() {
    assert_eq!(
        calibration(1, "gpu").hash().to_string(),
        "sha256:910054021cd584a65edac7da0b0c0dec3c172634dca32c632af2d890be9c3f4a"
    );
}

#[test]
fn an_edited_or_unnamed_calibration_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let calibration = calibration(1, "gpu");
    calibration.freeze(folder.path()).unwrap();
    let name = format!("{}.json", calibration.hash().hex());
    let path = folder.path().join(name);
    let edited = fs::read_to_string(&path).unwrap().replace("1.13", "1.14");
    fs::write(&path, edited).unwrap();
    let error = Calibration::newest(folder.path(), &calibration.probes).unwrap_err();
    assert!(error.to_string().contains("was edited"), "{error}");
    let unnamed = calibration.named(Vec::new(), Digest::ZERO);
    let error = unnamed.freeze(folder.path()).unwrap_err();
    assert!(matches!(error, CalibrationError::Unnamed), "{error}");
}

const START: i64 = 1_795_000_000_000;

fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

fn learn(wall: &[WallReading], metered: &[MeteredPower]) -> Result<Calibration, String> {
    fit(wall, metered, time(0)).map_err(|error| error.to_string())
}

/// SplitMix64 (G. Steele, D. Lea, C. Flood, 2014), so that every run sees the same noise.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// A machine under changing load, and what a wall meter says of it.
struct Machine {
    seconds: i64,
    gain: f64,
    offset: f64,
    noise: f64,
    /// Lag-1 autocorrelation of the noise.
    neighbour: f64,
    shift_ms: i64,
    /// Metered power is between these.
    low: f64,
    high: f64,
}

const MACHINE: Machine = Machine {
    seconds: 120,
    gain: 1.2,
    offset: 35.0,
    noise: 2.0,
    neighbour: 0.0,
    shift_ms: 0,
    low: 40.0,
    high: 200.0,
};

impl Machine {
    fn logs(&self, seed: u64) -> (Vec<WallReading>, Vec<MeteredPower>) {
        let mut random = Noise(seed);
        let mut level = self.low;
        let mut metered = Vec::new();
        for span in 0..self.seconds * 4 {
            if span % 12 == 0 {
                level = self.low + (self.high - self.low) * random.uniform();
            }
            metered.push(MeteredPower {
                from: time(span * 250),
                until: time((span + 1) * 250),
                watts: Watts(level),
            });
        }
        let (mut wall, mut error) = (Vec::new(), 0.0);
        for (second, spans) in metered.chunks(4).enumerate() {
            let fresh = (1.0 - self.neighbour.powi(2)).sqrt();
            error = self.neighbour * error + fresh * self.noise * random.normal();
            let mean = spans.iter().map(|span| span.watts.0).sum::<f64>() / 4.0;
            wall.push(WallReading {
                at: time((second as i64 + 1) * 1000 + self.shift_ms),
                watts: Watts((self.offset + self.gain * mean + error).max(0.0)),
            });
        }
        (wall, metered)
    }

    /// In how many of 300 runs the intervals of gain and offset hold the truth.
    fn covered(&self) -> (u32, u32) {
        let (mut gains, mut offsets) = (0, 0);
        for seed in 0..300 {
            let mut random = Noise(1_000_000 + seed);
            let machine = Machine {
                gain: 1.0 + 0.5 * random.uniform(),
                offset: 80.0 * random.uniform(),
                ..*self
            };
            let (wall, metered) = machine.logs(seed);
            let line = learn(&wall, &metered).unwrap();
            assert_eq!(line.shift_seconds, 0.0);
            gains += u32::from((line.gain_low..=line.gain_high).contains(&machine.gain));
            let interval = line.offset_low_watts..=line.offset_high_watts;
            offsets += u32::from(interval.contains(&machine.offset));
        }
        (gains, offsets)
    }
}

fn reference() -> (Vec<WallReading>, Vec<MeteredPower>, Value) {
    let rows = include_str!("../../../tests/fixtures/calibration/metered.csv");
    let metered = rows.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        MeteredPower {
            from: Timestamp::from_millis(fields[0].parse().unwrap()),
            until: Timestamp::from_millis(fields[1].parse().unwrap()),
            watts: Watts(fields[2].parse().unwrap()),
        }
    });
    let wall = include_bytes!("../../../tests/fixtures/calibration/wall.csv");
    let expected = include_str!("../../../tests/fixtures/calibration/expected.json");
    let expected = serde_json::from_str(expected).unwrap();
    (parse(wall).unwrap(), metered.collect(), expected)
}

fn is_close(found: f64, expected: &Value, name: &str) {
    let expected = expected[name].as_f64().unwrap();
    assert!(
        (found - expected).abs() <= 1e-6,
        "{name}: {found}, not {expected}"
    );
}

#[test]
fn the_record_equals_what_scipy_finds_on_the_same_logs() {
    let (wall, metered, expected) = reference();
    let found = fit(&wall, &metered, time(0)).unwrap();
    let found = serde_json::to_value(&found).unwrap();
    for (name, expected_value) in expected.as_object().unwrap() {
        if expected_value.is_number() {
            is_close(found[name].as_f64().unwrap(), &expected, name);
        }
    }
    let corrected = &expected["corrected"];
    for (name, _) in corrected.as_object().unwrap() {
        is_close(found[name].as_f64().unwrap(), corrected, name);
    }
}

#[test]
fn intervals_of_independent_blocks_equal_scipys() {
    let (wall, metered, expected) = reference();
    let logs = Logs::new(&wall, &metered);
    let pairs = logs.pairs(logs.best_shift().unwrap());
    let line = Line::through(&pairs).unwrap();
    let squares = pairs.iter().map(|pair| line.residual(pair).powi(2)).sum();
    let reach = line.reach(squares, line.count);
    let expected = &expected["independent"];
    is_close(line.gain - reach.gain, expected, "gain_low");
    is_close(line.gain + reach.gain, expected, "gain_high");
    is_close(line.offset - reach.offset, expected, "offset_low_watts");
    is_close(line.offset + reach.offset, expected, "offset_high_watts");
}

#[test]
fn quantiles_equal_scipys_for_few_and_for_many_blocks() {
    let (_, _, expected) = reference();
    for row in expected["quantiles"].as_array().unwrap() {
        let (freedom, expected) = (row[0].as_f64().unwrap(), row[1].as_f64().unwrap());
        let found = quantile(0.975, freedom);
        assert!((found - expected).abs() <= 1e-6, "{freedom}: {found}");
    }
}

#[test]
fn the_intervals_hold_the_truth_about_as_often_as_they_say() {
    // 285 of 300 is 95 %, with a standard deviation of 4.
    let (gains, offsets) = MACHINE.covered();
    assert!((275..=295).contains(&gains), "{gains}");
    assert!((275..=295).contains(&offsets), "{offsets}");
}

#[test]
fn noise_that_lasts_makes_the_intervals_wider_and_not_wrong() {
    let machine = Machine {
        neighbour: 0.6,
        seconds: 300,
        ..MACHINE
    };
    let (gains, offsets) = machine.covered();
    assert!(gains >= 275 && offsets >= 275, "{gains} {offsets}");
}

#[test]
fn the_clock_offset_is_found_with_its_sign() {
    for shift_ms in [-4_600, -1_250, 0, 350, 3_000] {
        let machine = Machine {
            shift_ms,
            ..MACHINE
        };
        let (wall, metered) = machine.logs(3);
        let found = learn(&wall, &metered).unwrap();
        let error = found.shift_seconds - shift_ms as f64 / 1e3;
        assert!(error.abs() <= 0.1, "{shift_ms} {}", found.shift_seconds);
        assert!((found.gain - 1.2).abs() < 0.02, "{}", found.gain);
    }
}

#[test]
fn what_cannot_be_calibrated_is_refused_with_advice() {
    let still = Machine {
        high: 42.0,
        ..MACHINE
    };
    let apart = |shift_ms| Machine {
        shift_ms,
        ..MACHINE
    };
    let noisy = Machine {
        noise: 90.0,
        ..MACHINE
    };
    let short = Machine {
        seconds: 25,
        ..MACHINE
    };
    let drifting = Machine {
        neighbour: 0.9999,
        noise: 30.0,
        seconds: 40,
        ..MACHINE
    };
    for (machine, advice) in [
        (still, "run cryo stress"),
        (apart(5_000), "same time server"),
        (apart(3_600_000), "offset from UTC"),
        (noisy, "feeds this machine alone"),
        (short, "24 blocks"),
        (drifting, "several changes of load"),
    ] {
        let (wall, metered) = machine.logs(5);
        let error = learn(&wall, &metered).unwrap_err();
        assert!(error.contains(advice), "{error}");
    }
    let (wall, metered) = MACHINE.logs(5);
    for (wall, metered) in [
        (&wall[..], &[][..]),
        (&[], &metered),
        (&wall[..1], &metered),
    ] {
        assert!(learn(wall, metered).unwrap_err().contains("share 0 blocks"));
    }
}

#[test]
fn gaps_and_fast_or_slow_meters_leave_the_line_as_it_is() {
    let exact = Machine {
        noise: 0.0,
        ..MACHINE
    };
    let (mut wall, mut metered) = exact.logs(9);
    // The wall log repeats whole seconds, and pauses; the record loses a second and a half.
    let again: Vec<WallReading> = wall.iter().flat_map(|&reading| [reading; 3]).collect();
    let found = learn(&again, &metered).unwrap();
    assert_eq!(
        (found.gain, found.offset_watts, found.blocks),
        (1.2, 35.0, 119)
    );
    wall.drain(40..45);
    metered.drain(240..246);
    let found = learn(&wall, &metered).unwrap();
    assert_eq!(
        (found.gain, found.offset_watts, found.blocks),
        (1.2, 35.0, 111)
    );
    assert_eq!((found.held_out_error, found.residual_watts), (0.0, 0.0));
    assert!(found.agrees());
    let (wall, metered) = exact.logs(9);
    let slow: Vec<WallReading> = wall
        .chunks_exact(3)
        .map(|three| WallReading {
            at: three[2].at,
            watts: Watts(three.iter().map(|reading| reading.watts.0).sum::<f64>() / 3.0),
        })
        .collect();
    let found = learn(&slow, &metered).unwrap();
    assert_eq!(
        (found.gain, found.offset_watts, found.blocks),
        (1.2, 35.0, 39)
    );
}

#[test]
fn logs_out_of_order_or_without_power_are_refused() {
    let (wall, metered) = MACHINE.logs(1);
    let mut turned = wall.clone();
    turned.swap(6, 7);
    let error = learn(&turned, &metered).unwrap_err();
    assert!(
        error.starts_with("wall log, entry 8: it begins before"),
        "{error}"
    );
    let mut negative = metered.clone();
    negative[4].watts = Watts(f64::NAN);
    let error = learn(&wall, &negative).unwrap_err();
    assert!(
        error.starts_with("our record, entry 5: its power"),
        "{error}"
    );
    let mut turned = metered;
    turned[2].until = time(0);
    let error = learn(&wall, &turned).unwrap_err();
    assert!(error.starts_with("our record, entry 3: it ends"), "{error}");
}

proptest! {
    #[test]
    fn any_logs_give_a_finite_record_or_an_error(
        steps in proptest::collection::vec((0..3_000_i64, 0.0..2e7_f64, 0.0..300.0_f64), 0..90),
        scale in 0.0..1e5_f64,
        start in prop_oneof![Just(0), Just(i64::MIN), Just(i64::MAX - 200_000)],
    ) {
        let mut at = start;
        let (mut wall, mut metered) = (Vec::new(), Vec::new());
        for (step, noise, watts) in steps {
            let from = Timestamp::from_millis(at);
            at += step;
            let until = Timestamp::from_millis(at);
            metered.push(MeteredPower { from, until, watts: Watts(watts) });
            let watts = Watts(watts * scale + noise / 1e7);
            wall.push(WallReading { at: until, watts });
        }
        if let Ok(found) = fit(&wall, &metered, time(0)) {
            let text = serde_json::to_string(&found).unwrap();
            prop_assert!(!text.contains("null"), "{}", text);
            prop_assert!(found.gain_low <= found.gain && found.gain <= found.gain_high);
        }
    }
}
