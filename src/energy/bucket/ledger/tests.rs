//! The ledger's rules, one by one and in any order.

use std::time::Duration;

use proptest::prelude::*;

use super::super::audit;
use super::super::lease::{Affordable, Closed, LONGEST_LEASE, Refusal, Take, Unseen};
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
fn a_lease_that_is_renewed_does_not_expire_at_its_first_time() {
    let mut ledger = opened();
    let id = taken(&mut ledger, "a", 1000, 0).unwrap().id;
    let renew = |ledger: &Ledger, seconds, now| {
        let ttl = Duration::from_secs(seconds);
        ledger.renew(&id, ttl, at(now))
    };
    let event = renew(&ledger, 7200, 3000).unwrap().unwrap();
    ledger.record(event, at(3000));
    assert!(ledger.expired(at(10_199)).is_empty());
    assert_eq!(ledger.expired(at(10_200)), std::slice::from_ref(&id));
    assert_eq!(renew(&ledger, 60, 3001), Ok(None), "never shorter");
    for seconds in [0, LONGEST_LEASE.as_secs() + 1] {
        assert_eq!(renew(&ledger, seconds, 3001), Err(Refusal::BadTtl));
    }
    assert!(
        renew(&ledger, LONGEST_LEASE.as_secs(), 3001)
            .unwrap()
            .is_some()
    );
    let (_, event) = ledger.settle(&id, joules(10)).unwrap();
    ledger.record(event.unwrap(), at(3002));
    assert_eq!(renew(&ledger, 60, 3003), Err(Refusal::Ended(id.clone())));
    let none = ledger.renew(&"none".parse().unwrap(), Duration::from_secs(60), at(0));
    assert!(matches!(none, Err(Refusal::NoLease(_))));
}

fn measured(id: &LeaseId, whole: i64, unseen_ms: u64) -> Event {
    Event::Flowed(Flow {
        measured: BTreeMap::from([(id.clone(), joules(whole))]),
        unseen_ms: BTreeMap::from([(id.clone(), unseen_ms)]),
        ..Flow::default()
    })
}

#[test]
fn who_died_is_charged_what_was_measured_and_the_highest_power_for_what_nobody_saw() {
    const HUNDRED: Option<Watts> = Some(Watts(100.0));
    let ended = |whole, unseen_ms, most_watts, now| {
        let mut ledger = opened();
        let id = taken(&mut ledger, "a", 2000, 0).unwrap().id;
        ledger.record(measured(&id, whole, unseen_ms), at(10));
        let unseen = Unseen {
            most_watts,
            longest: Duration::from_secs(11),
        };
        let (end, event) = ledger.abandon(&id, &unseen, at(now)).unwrap();
        ledger.record(event.unwrap(), at(now));
        assert_eq!(ledger.accounts().forfeited, end.charged);
        let (again, event) = ledger.abandon(&id, &unseen, at(now)).unwrap();
        // What was measured and what was not are told apart also by whoever asks again.
        assert_eq!((again.measured, again.charged), (end.measured, end.charged));
        assert_eq!((again.unseen, event), (None, None));
        (end.unseen.unwrap().as_millis(), end.charged)
    };
    assert_eq!(ended(50, 0, HUNDRED, 13), (3000, joules(350)));
    assert_eq!(ended(50, 500, HUNDRED, 13), (3500, joules(400)));
    assert_eq!(ended(50, 0, HUNDRED, 90_000), (11_000, joules(1150)));
    // Never more than the lease, unless more was measured, and never less than that.
    assert_eq!(ended(1500, 0, HUNDRED, 90_000).1, joules(2000));
    assert_eq!(ended(2500, 0, HUNDRED, 90_000).1, joules(2500));
    for no_limit in [None, Some(Watts(f64::INFINITY)), Some(Watts(1e300))] {
        assert_eq!(ended(50, 0, no_limit, 13).1, joules(2000));
    }
}

#[test]
fn ten_that_died_cost_ten_times_what_one_costs() {
    let mut ledger = opened();
    let unseen = Unseen {
        most_watts: Some(Watts(10.0)),
        longest: Duration::from_secs(11),
    };
    for number in 0..10 {
        let start = number * 100;
        let id = taken(&mut ledger, &format!("l{number}"), 1000, start)
            .unwrap()
            .id;
        ledger.record(measured(&id, 20, 0), at(start + 5));
        let (_, event) = ledger.abandon(&id, &unseen, at(start + 7)).unwrap();
        ledger.record(event.unwrap(), at(start + 7));
    }
    assert_eq!(ledger.accounts().forfeited, joules(10 * (20 + 2 * 10)));
}

#[test]
fn without_a_measurement_nobody_saw_a_lease_since_it_was_taken() {
    let mut ledger = opened();
    let id = taken(&mut ledger, "a", 1000, 5).unwrap().id;
    let lease = &ledger.leases()[&id];
    assert_eq!(lease.unseen(at(8), LONGEST_LEASE), Duration::from_secs(3));
}

#[test]
fn a_lease_of_an_older_journal_is_read() {
    let text = r#"{"id":"a","purpose":"p","reserved":"3.000000","opened":"2026-11-23T16:26:23.865Z",
        "expires":"2026-11-23T17:26:23.865Z","measured":"1.000000"}"#;
    let lease: Lease = serde_json::from_str(text).unwrap();
    let unseen = lease.unseen(lease.opened.plus(Duration::from_secs(9)), LONGEST_LEASE);
    assert_eq!(unseen, Duration::from_secs(9));
}

#[test]
fn what_was_missed_is_charged_once_whatever_the_level_is() {
    let mut ledger = opened();
    let missed = |whole| Closed {
        id: "lost".parse().unwrap(),
        reserved: joules(7000),
        charged: joules(whole),
        measured: Some(Joules::ZERO),
    };
    let (closed, event) = ledger.charge_missed(&missed(6000)).unwrap();
    ledger.record(event.unwrap(), at(0));
    assert_eq!((ledger.level(), closed), (joules(-1000), missed(6000)));
    let (again, event) = ledger.charge_missed(&missed(1)).unwrap();
    assert_eq!((again, event), (missed(6000), None));
    assert_eq!(ledger.imbalance(), None);
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
    /// no total of the bucket shrinks, and the records alone give the same ledger, each of them
    /// one that an audit lets pass.
    #[test]
    fn joules_are_conserved(steps in prop::collection::vec((0..10_u8, 0..9_u8, 0..6000_i64), 1..60)) {
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
                6 => ledger.renew(&id, Duration::from_secs(amount as u64), at(now)).ok().flatten(),
                7 => {
                    let unseen = Unseen { most_watts: Some(Watts(amount as f64)), longest: Duration::from_secs(11) };
                    ledger.abandon(&id, &unseen, at(now)).ok().and_then(|ended| ended.1)
                }
                8 => ledger.charge_missed(&Closed { id, reserved: joules(5), charged: joules(amount), measured: Some(Joules::ZERO) }).ok().and_then(|closed| closed.1),
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
            prop_assert_eq!(audit::flaw(&again, record), None);
            again.apply(serde_json::from_str(&text).unwrap());
            prop_assert_eq!(again.imbalance(), None);
        }
        prop_assert_eq!(again, ledger);
    }
}
