//! `cryo meter` over a fake driver library and fake powercap files.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Lab, fixtures};

fn with_fake_board() -> Lab {
    let lab = Lab::new();
    let library = lab.path("libfake.so");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-o"])
        .args([&library, &fixtures().join("fake_nvml.c")])
        .status()
        .unwrap();
    assert!(status.success());
    lab.edit(
        "cryo.toml",
        "\"no-driver-here\"",
        &format!("{:?}", library.display().to_string()),
    );
    lab
}

#[test]
fn a_board_is_read_by_its_counter_else_by_its_power() {
    let lab = with_fake_board();
    for (env, provenance) in [
        (vec![], "counter"),
        (vec![("FAKE_NVML_NO_COUNTER", "1")], "power-average"),
    ] {
        let found = lab
            .cryo_with(&["meter", "--json", "--seconds", "1"], &env)
            .expect(0)
            .json();
        let board = &found["probes"][0];
        assert_eq!(board["id"], "nvml:GPU-fake", "{found:#}");
        assert_eq!(board["provenance"], provenance);
        let watts = board["watts"].as_f64().unwrap();
        assert!((watts - 120.0).abs() < 6.0, "{watts} W");
    }
}

#[test]
fn what_a_board_uses_is_on_record_with_the_weakest_provenance() {
    let lab = with_fake_board();
    // Its idle power is stated; own time needs none.
    lab.edit("cryo.toml", "baseline_seconds = 1", "idle_watts = 120.0");
    lab.apply().expect(0);
    let receipts = lab.history();
    let energy = &receipts[2]["energy"];
    assert_eq!(energy["meter"], "nvml:GPU-fake+own-time");
    assert_eq!(energy["provenance"], "modelled");
    // The board draws 120 W all the time, in the baseline too: its gross is its power times the
    // time, give or take one update, and is nearly all taken off again.
    let number = |key: &str| energy[key].as_str().unwrap().parse::<f64>().unwrap();
    let seconds = energy["duration_ms"].as_f64().unwrap() / 1000.0;
    let board = 120.0 * seconds;
    assert!(number("joules_gross") > board * 0.9 - 12.0, "{energy:#}");
    assert!(number("joules_idle") > board * 0.9 - 12.0, "{energy:#}");
    assert!(
        number("joules_gross") < (120.0 + 65.0) * seconds * 1.1 + 12.0,
        "{energy:#}"
    );
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn beside_own_time_only_the_board_is_learned() {
    let lab = with_fake_board();
    let run = lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    assert!(
        run.stdout.contains("no sensor of the processor"),
        "{}",
        run.stdout
    );
    let energy = &lab.history()[0]["energy"];
    assert_eq!(energy["baseline_label"], "short", "{energy:#}");
    let hash = energy["baseline_hash"].as_str().unwrap();
    let name = format!(".cryo/baselines/{}.json", hash.replace("sha256:", ""));
    let text = fs::read_to_string(lab.path(&name)).unwrap();
    let baseline: serde_json::Value = serde_json::from_str(&text).unwrap();
    let board = baseline["idle"][0]["watts"].as_f64().unwrap();
    assert!((board - 120.0).abs() < 6.0, "{baseline:#}");
    assert_eq!(baseline["idle"][1]["probe"], "own-time");
    assert_eq!(baseline["idle"][1]["watts"].as_f64(), Some(0.0));
    assert_eq!(baseline["idle"][1]["sigma_watts"].as_f64(), Some(0.0));
}

#[test]
fn packages_are_read_from_powercap() {
    let lab = Lab::new();
    let zone = lab.path("powercap/intel-rapl:0");
    fs::create_dir_all(&zone).unwrap();
    fs::write(zone.join("name"), "package-0\n").unwrap();
    fs::write(zone.join("max_energy_range_uj"), "262143328850\n").unwrap();
    fs::write(zone.join("energy_uj"), "000001000000\n").unwrap();
    lab.edit(
        "cryo.toml",
        "\"no-sensors-here\"",
        &format!("{:?}", lab.path("powercap").display().to_string()),
    );
    let child = lab.start(&["meter", "--json", "--seconds", "2"]);
    // 40 W, written by the test as the kernel would.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2600) {
        let microjoules = 1_000_000 + (start.elapsed().as_secs_f64() * 40e6) as u64;
        // In place and always as long, since the kernel's file has no moments in between.
        fs::OpenOptions::new()
            .write(true)
            .open(zone.join("energy_uj"))
            .and_then(|mut file| file.write_all(format!("{microjoules:012}\n").as_bytes()))
            .unwrap();
        thread::sleep(Duration::from_millis(5));
    }
    let found = crate::lab::ran(child.wait_with_output().unwrap())
        .expect(0)
        .json();
    assert_eq!(found["probes"][0]["provenance"], "counter");
    let watts = found["probes"][0]["watts"].as_f64().unwrap();
    assert!((watts - 40.0).abs() < 4.0, "{watts} W");
    assert_eq!(
        found["probes"].as_array().unwrap().len(),
        1,
        "no model beside a sensor"
    );
}
