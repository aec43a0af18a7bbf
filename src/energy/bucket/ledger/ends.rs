//! The newest ends of leases.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::super::lease::{Closed, LeaseId};

/// Ends of leases that are remembered, so that a request that is sent again gets its old answer.
const REMEMBERED_ENDS: usize = 16_384;

/// Ends of leases, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Closed>", into = "Vec<Closed>")]
pub(super) struct Ends {
    order: VecDeque<LeaseId>,
    by_id: HashMap<LeaseId, Closed>,
}

impl Ends {
    pub fn get(&self, id: &LeaseId) -> Option<&Closed> {
        self.by_id.get(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Closed> {
        self.order.iter().filter_map(|id| self.by_id.get(id))
    }

    pub fn push(&mut self, closed: Closed) {
        if self.order.len() == REMEMBERED_ENDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
        self.order.push_back(closed.id.clone());
        self.by_id.insert(closed.id.clone(), closed);
    }
}

impl From<Vec<Closed>> for Ends {
    fn from(list: Vec<Closed>) -> Self {
        let mut ends = Self::default();
        list.into_iter().for_each(|closed| ends.push(closed));
        ends
    }
}

impl From<Ends> for Vec<Closed> {
    fn from(mut ends: Ends) -> Self {
        let order = std::mem::take(&mut ends.order);
        order
            .iter()
            .filter_map(|id| ends.by_id.remove(id))
            .collect()
    }
}
