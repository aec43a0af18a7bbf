//! Which baseline fits, and what a file of one must be.

use std::time::Duration;

use super::*;
use crate::energy::probe::{Provenance, Scope};

#[test]
fn an_edited_baseline_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let baseline = Baseline {
        idle: Vec::new(),
        state: IdleState::Bare,
        label: Label::Short,
        block_ms: 250,
        blocks: 12,
        facts: BTreeMap::new(),
        learned: Timestamp::from_millis(1),
    };
    baseline.freeze(folder.path()).unwrap();
    assert_eq!(
        Baseline::all(folder.path()).unwrap(),
        std::slice::from_ref(&baseline)
    );
    let path = folder
        .path()
        .join(format!("{}.json", baseline.hash().hex()));
    let edited = fs::read_to_string(&path).unwrap().replace("short", "shirt");
    fs::write(&path, edited).unwrap();
    let error = Baseline::all(folder.path()).unwrap_err();
    assert!(error.to_string().contains("was edited"), "{error}");
}

fn probe(id: &str, scope: Scope) -> ProbeInfo {
    ProbeInfo {
        id: id.into(),
        name: id.into(),
        scope,
        provenance: Provenance::Counter,
        max_watts: Watts(300.0),
        window: Duration::ZERO,
    }
}

fn given() -> Given {
    Given {
        state: IdleState::Bare,
        facts: BTreeMap::new(),
        now: Timestamp::from_millis(1),
    }
}

#[test]
fn what_could_not_be_learned_is_nothing_give_or_take_what_was_seen() {
    let probes = [probe("board", Scope::Gpu), probe("own", Scope::OwnTime)];
    let gross = Baseline::gross(&probes, &[Watts(60.0), Watts(9.0)], given());
    assert_eq!(gross.watts(), Watts(0.0));
    assert_eq!(gross.sigma_watts_of(0), Watts(34.641016));
    assert_eq!(gross.sigma_watts_of(1), Watts(0.0));
    // The next run tries again.
    assert!(!gross.fits(&probes, IdleState::Bare, &BTreeMap::new()));
    assert_eq!(Baseline::not_needed(&probes, given()), None);
}

#[test]
fn stated_idle_power_belongs_to_the_probes_that_need_it() {
    let probes = [probe("board", Scope::Gpu), probe("own", Scope::OwnTime)];
    let stated = Baseline::configured(&probes, Watts(40.0), given());
    assert_eq!(stated.idle_watts(0), Watts(40.0));
    assert_eq!(stated.idle_watts(1), Watts(0.0));
    let none = Baseline::not_needed(&probes[1..], given()).unwrap();
    assert_eq!((none.watts(), none.sigma_watts()), (Watts(0.0), Watts(0.0)));
    assert!(none.fits(&probes[1..], IdleState::Bare, &BTreeMap::new()));
}
