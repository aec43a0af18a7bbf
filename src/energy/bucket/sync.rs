//! The locks of the group commit; its model check puts loom's in their place.

pub use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
