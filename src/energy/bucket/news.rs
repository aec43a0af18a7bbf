//! What the journal tells a person.

use super::ledger::{Event, Record};
use crate::units::Joules;

/// The records without time in which nothing was credited; its allowance is that of the next one.
pub(super) fn of(records: Vec<Record>) -> Vec<Record> {
    let mut allowance = Joules::ZERO;
    let mut shown = Vec::new();
    for record in records {
        allowance += record.allowance;
        let is_news = match &record.event {
            Event::Checkpoint(_) => false,
            Event::Flowed(flow) => flow.credited > Joules::ZERO,
            _ => true,
        };
        if is_news {
            shown.push(Record {
                allowance,
                ..record
            });
            allowance = Joules::ZERO;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Flow;
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn time_without_credit_is_left_out_and_its_allowance_is_not() {
        let joules = Joules::from_smallest;
        let record = |seq, allowance, event| Record {
            seq,
            at: Timestamp::from_millis(0),
            allowance: joules(allowance),
            event,
        };
        let flowed = |credited| {
            Event::Flowed(Flow {
                credited: joules(credited),
                ..Flow::default()
            })
        };
        let shown = of(vec![
            record(1, 0, Event::Opened { joules: joules(9) }),
            record(2, 5, flowed(0)),
            record(3, 7, flowed(0)),
            record(4, 1, flowed(2)),
            record(5, 4, flowed(0)),
        ]);
        let seen: Vec<(u64, i64)> = shown
            .iter()
            .map(|record| (record.seq, record.allowance.smallest()))
            .collect();
        assert_eq!(seen, [(1, 0), (4, 13)]);
    }
}
