//! How each event changes the ledger.

use super::super::lease::{Closed, LeaseId};
use super::accounts::Flow;
use super::event::{Event, Record};
use super::state::State;
use crate::clock::Timestamp;
use crate::units::Joules;

/// How a lease ends.
#[derive(Debug, Clone, Copy)]
enum How {
    /// At a measured value.
    Settled,
    /// At what it can have used.
    Forfeited,
}

impl State {
    pub(super) fn apply(&mut self, record: Record) {
        self.allowance_until = record.at;
        self.level += record.allowance;
        self.accounts.granted += record.allowance;
        match record.event {
            Event::Checkpoint(whole) => *self = *whole,
            Event::Opened { joules } | Event::Granted { joules } => {
                self.level += joules;
                self.accounts.granted += joules;
            }
            Event::Taken(lease) => {
                self.level -= lease.reserved;
                self.reserved += lease.reserved;
                self.leases.insert(lease.id.clone(), lease);
            }
            Event::Renewed { id, expires } => {
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.expires = expires;
                }
            }
            Event::Settled { id, charged } => {
                if self.close(&id, charged, How::Settled) {
                    self.accounts.charged += charged;
                }
            }
            Event::Forfeited { id, charged } => {
                if self.close(&id, charged, How::Forfeited) {
                    self.accounts.forfeited += charged;
                }
            }
            Event::Charged {
                id,
                reserved,
                charged,
            } => {
                self.level -= charged;
                self.accounts.charged += charged;
                self.ends.push(Closed {
                    id,
                    reserved,
                    charged,
                    measured: Some(Joules::ZERO),
                });
            }
            Event::Flowed(flow) => self.flow(flow, record.at),
        }
    }

    fn flow(&mut self, flow: Flow, at: Timestamp) {
        self.level += flow.credited;
        let accounts = &mut self.accounts;
        accounts.credited += flow.credited;
        accounts.gross += flow.gross;
        accounts.idle += flow.idle;
        accounts.own += flow.own;
        accounts.withheld += flow.withheld;
        accounts.unmeasured_ms += flow.unmeasured_ms;
        for (id, measured) in flow.measured {
            if let Some(lease) = self.leases.get_mut(&id) {
                // It falls where the machine uses less than idle power for a while.
                lease.measured = measured;
                lease.measured_at = Some(at);
                lease.unseen_ms = flow.unseen_ms.get(&id).copied().unwrap_or(0);
            }
        }
    }

    fn close(&mut self, id: &LeaseId, charged: Joules, how: How) -> bool {
        let Some(lease) = self.leases.remove(id) else {
            return false;
        };
        self.reserved -= lease.reserved;
        self.level += lease.reserved - charged;
        self.ends.push(Closed {
            id: lease.id,
            reserved: lease.reserved,
            charged,
            measured: match how {
                How::Settled => None,
                How::Forfeited => Some(lease.measured),
            },
        });
        true
    }
}
