//! The ledger's rules, one by one and in any order.

use proptest::prelude::*;

use super::super::lease::Affordable;
use super::*;

const POLICY: BucketPolicy = BucketPolicy {
    cap: Joules::from_smallest(10_000_000_000),
    allowance: Watts(2.0),
    opening_grant: Joules::from_smallest(5_000_000_000),
};

fn joules(whole: i64) -> Joules {
    Joules::from_smallest(whole * 1_000_000)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn take(id: &str, whole: i64) -> Take {
    Take {
        id: id.parse().unwrap(),
        joules: joules(whole),
        purpose: "test".into(),
        ttl: Duration::from_secs(3600),
    }
}

fn opened() -> Ledger {
    let mut ledger = Ledger::new(POLICY, at(0));
    ledger.record(
        Event::Opened {
            joules: joules(5000),
        },
        at(0),
    );
    ledger
}

fn taken(ledger: &mut Ledger, id: &str, whole: i64, now: i64) -> Result<Taken, Refusal> {
    let (taken, event) = ledger.take(&take(id, whole), at(now))?;
    event.map(|event| ledger.record(event, at(now)));
    Ok(taken)
}

#[test]
fn a_lease_is_settled_at_the_measured_value() {
    let mut ledger = opened();
    taken(&mut ledger, "a", 4000, 0).unwrap();
    assert_eq!(ledger.level(), joules(1000));
    let id = "a".parse().unwrap();
    let (closed, event) = ledger.settle(&id, joules(4500)).unwrap();
    assert_eq!(closed.charged, joules(4500));
    ledger.record(event.unwrap(), at(0));
    assert_eq!(ledger.level(), joules(500));
    assert_eq!(ledger.level_at(at(100)), joules(700));
    // A second settlement gets the old answer and changes nothing.
    let (again, event) = ledger.settle(&id, joules(1)).unwrap();
    assert_eq!((again.charged, event), (joules(4500), None));
}

#[test]
fn being_short_says_until_when() {
    let mut ledger = opened();
    let Err(Refusal::Short(short)) = taken(&mut ledger, "a", 6000, 0) else {
        panic!("taken");
    };
    assert_eq!(short.missing, joules(1000));
    assert_eq!(short.affordable, Affordable::At(at(500)));
    taken(&mut ledger, "a", 6000, 500).unwrap();
    let Err(Refusal::Short(short)) = taken(&mut opened(), "a", 11_000, 0) else {
        panic!("taken");
    };
    assert_eq!(short.affordable, Affordable::AboveCap(joules(10_000)));
}

#[test]
fn one_id_takes_once() {
    let mut ledger = opened();
    let first = taken(&mut ledger, "a", 1000, 0).unwrap();
    assert_eq!(taken(&mut ledger, "a", 1000, 0).unwrap(), first);
    assert_eq!(ledger.level(), joules(4000));
    let other = taken(&mut ledger, "a", 2000, 0);
    assert!(matches!(other, Err(Refusal::IdReused(_))));
    let (_, event) = ledger.settle(&first.id, joules(10)).unwrap();
    ledger.record(event.unwrap(), at(0));
    taken(&mut ledger, "a", 1000, 0).unwrap();
    assert_eq!(
        ledger.level(),
        joules(4990),
        "an ended lease is not taken again"
    );
}

#[test]
fn what_expires_is_charged_in_full_and_more_when_more_was_measured() {
    let mut ledger = opened();
    taken(&mut ledger, "a", 1000, 0).unwrap();
    taken(&mut ledger, "b", 1000, 0).unwrap();
    let b: LeaseId = "b".parse().unwrap();
    let flow = Flow {
        measured: BTreeMap::from([(b, joules(1200))]),
        ..Flow::default()
    };
    ledger.record(Event::Flowed(flow), at(0));
    assert!(ledger.expired(at(3599)).is_empty());
    for id in ledger.expired(at(3600)) {
        let (_, event) = ledger.forfeit(&id).unwrap();
        ledger.record(event.unwrap(), at(0));
    }
    assert_eq!(ledger.level(), joules(5000 - 1000 - 1200));
    assert_eq!(ledger.accounts().forfeited, joules(2200));
}

#[test]
fn odd_requests_are_refused() {
    let ledger = opened();
    for whole in [0, -5] {
        let refused = ledger.take(&take("a", whole), at(0));
        assert!(matches!(refused, Err(Refusal::NotAnAmount(_))));
    }
    let forever = Take {
        ttl: Duration::from_secs(u64::MAX),
        ..take("a", 1)
    };
    assert_eq!(ledger.take(&forever, at(0)), Err(Refusal::BadTtl));
    for id in ["", "a b", "ä", &"x".repeat(65)] {
        assert!(id.parse::<LeaseId>().is_err(), "{id}");
    }
}

#[test]
fn a_clock_set_back_grants_nothing() {
    let mut ledger = opened();
    let nothing = |ledger: &mut Ledger, now| {
        ledger.record(Event::Flowed(Flow::default()), at(now));
    };
    nothing(&mut ledger, 1000);
    nothing(&mut ledger, 0);
    nothing(&mut ledger, 1000);
    assert_eq!(ledger.level(), joules(7000));
}

proptest! {
    /// Whatever happens in whatever order: both sums hold, the bucket is never above its cap,
    /// no total of the bucket shrinks, and the records alone give the same ledger.
    #[test]
    fn joules_are_conserved(steps in prop::collection::vec((0..7_u8, 0..9_u8, 0..6000_i64), 1..60)) {
        let mut ledger = opened();
        let mut records = vec![ledger.checkpoint(at(0))];
        let mut now = 0;
        for (what, which, amount) in steps {
            let before = *ledger.accounts();
            now += amount % 60;
            let id: LeaseId = format!("l{which}").parse().unwrap();
            let event = match what {
                0 | 1 => ledger.take(&take(id.as_str(), amount), at(now)).ok().and_then(|taken| taken.1),
                2 => ledger.settle(&id, joules(amount)).ok().and_then(|closed| closed.1),
                3 => ledger.forfeit(&id).ok().and_then(|closed| closed.1),
                4 => Some(Event::Granted { joules: ledger.room_for(joules(amount), at(now)) }),
                5 => Some(Event::Flowed(ledger.bookable(Flow {
                    gross: joules(amount), idle: joules(7), credited: joules(amount - 7 - 3), own: joules(3),
                    measured: BTreeMap::from([(id, joules(amount))]), ..Flow::default()
                }, at(now)))),
                _ => None,
            };
            if let Some(event) = event {
                records.push(ledger.record(event, at(now)));
            }
            let accounts = *ledger.accounts();
            prop_assert_eq!(ledger.level(), accounts.granted + accounts.credited
                - accounts.charged - accounts.forfeited - ledger.reserved());
            prop_assert_eq!(accounts.gross, accounts.idle + accounts.own + accounts.credited + accounts.withheld);
            prop_assert_eq!(ledger.reserved(), ledger.leases().values().map(|lease| lease.reserved).sum());
            prop_assert!(ledger.level() + ledger.reserved() <= POLICY.cap);
            prop_assert!(accounts.granted >= before.granted && accounts.charged >= before.charged
                && accounts.forfeited >= before.forfeited && accounts.credited >= before.credited);
        }
        let mut again = Ledger::new(POLICY, at(0));
        for record in &records {
            let text = serde_json::to_string(record).unwrap();
            again.apply(serde_json::from_str(&text).unwrap());
        }
        prop_assert_eq!(again, ledger);
    }
}
