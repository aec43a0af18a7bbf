//! Group commit: many threads change one state, and each returns when its change is on disk.
//! Whoever finds nobody writing writes for all that wait, so that one sync serves them together.
//!
//! `tests/it/group_model.rs` compiles this file against loom's locks and tries every order of
//! threads.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Failures that a slow thread may still have to hear of.
const REMEMBERED_FAILURES: usize = 64;

/// What the state is written to.
pub trait Store {
    /// The state.
    type State;
    /// Why it cannot be written or read.
    type Error: Clone;

    /// Puts bytes on disk, all or none.
    ///
    /// # Errors
    /// When they are not on disk.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;

    /// The state as it is on disk.
    ///
    /// # Errors
    /// When it cannot be read.
    fn reload(&mut self) -> Result<Self::State, Self::Error>;
}

struct Inner<S: Store> {
    state: S::State,
    waiting: Vec<u8>,
    /// Commits so far, and those of them that are decided: on disk or lost.
    made: u64,
    decided: u64,
    /// Away while a thread writes.
    store: Option<S>,
    lost: VecDeque<(RangeInclusive<u64>, S::Error)>,
    /// So many wait for a moment in which nobody writes; until then nobody begins to.
    quiet_wanted: u32,
    /// The state is ahead of the disk since a write failed.
    is_ahead: bool,
}

impl<S: Store> Inner<S> {
    /// Everything since the last success is lost, also what lined up meanwhile: it was built on
    /// what is lost.
    fn lose(&mut self, error: S::Error) {
        self.waiting.clear();
        if self.lost.len() == REMEMBERED_FAILURES {
            self.lost.pop_front();
        }
        self.lost.push_back((self.decided + 1..=self.made, error));
        self.decided = self.made;
        self.is_ahead = true;
    }

    /// After a failure the state is read again, since nothing may be built on what is not there.
    fn catch_up(&mut self) -> Result<(), S::Error> {
        if let (true, Some(store)) = (self.is_ahead, &mut self.store) {
            self.state = store.reload()?;
            self.waiting.clear();
            self.is_ahead = false;
        }
        Ok(())
    }
}

/// A state whose changes are on disk before they are believed.
pub struct Group<S: Store> {
    inner: Mutex<Inner<S>>,
    turn: Condvar,
}

impl<S: Store> Group<S> {
    /// Starts from what is on disk.
    pub fn new(state: S::State, store: S) -> Self {
        Self {
            inner: Mutex::new(Inner {
                state,
                waiting: Vec::new(),
                made: 0,
                decided: 0,
                store: Some(store),
                lost: VecDeque::new(),
                quiet_wanted: 0,
                is_ahead: false,
            }),
            turn: Condvar::new(),
        }
    }

    /// Looks at the state.
    pub fn look<R>(&self, look: impl FnOnce(&S::State) -> R) -> R {
        look(&self.lock().state)
    }

    /// Changes the state without waiting for the disk; the next commit takes it along.
    /// While the disk fails, nothing is changed.
    pub fn note(&self, change: impl FnOnce(&mut S::State, &mut Vec<u8>)) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if inner.catch_up().is_ok() {
            change(&mut inner.state, &mut inner.waiting);
        }
    }

    /// Changes the state, and returns once that and all before it is on disk. A change that adds
    /// no bytes waits too, for those that it has seen.
    ///
    /// # Errors
    /// When it could not be written. The state is then again what is on disk.
    pub fn commit<R>(
        &self,
        change: impl FnOnce(&mut S::State, &mut Vec<u8>) -> R,
    ) -> Result<R, S::Error> {
        let mut inner = self.lock();
        inner.catch_up()?;
        let result = {
            let inner = &mut *inner;
            change(&mut inner.state, &mut inner.waiting)
        };
        inner.made += 1;
        let ticket = inner.made;
        loop {
            if let Some((_, error)) = inner.lost.iter().find(|(lost, _)| lost.contains(&ticket)) {
                return Err(error.clone());
            }
            if inner.decided >= ticket {
                return Ok(result);
            }
            let is_free = inner.quiet_wanted == 0;
            inner = match inner.store.take_if(|_| is_free) {
                Some(store) => self.write(inner, store),
                None => self
                    .turn
                    .wait(inner)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Writes what waits, without the lock, so that others can line up meanwhile.
    fn write<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner<S>>,
        mut store: S,
    ) -> MutexGuard<'a, Inner<S>> {
        let until = inner.made;
        let bytes = std::mem::take(&mut inner.waiting);
        let written = if bytes.is_empty() {
            Ok(())
        } else {
            drop(inner);
            let written = store.write(&bytes);
            inner = self.lock();
            written
        };
        match written {
            Ok(()) => inner.decided = until,
            Err(error) => inner.lose(error),
        }
        inner.store = Some(store);
        // Where this fails, the next commit tries again.
        let _ = inner.catch_up();
        self.turn.notify_all();
        inner
    }

    /// Works on state and store while nobody writes and nothing waits. Others line up meanwhile.
    ///
    /// # Errors
    /// When what waited could not be written.
    pub fn quiet<R>(&self, work: impl FnOnce(&mut S::State, &mut S) -> R) -> Result<R, S::Error> {
        let mut inner = self.lock();
        inner.quiet_wanted += 1;
        let mut store = loop {
            if let Some(store) = inner.store.take() {
                break store;
            }
            inner = self
                .turn
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        };
        inner.quiet_wanted -= 1;
        let result = Self::work_alone(&mut inner, &mut store, work);
        inner.store = Some(store);
        drop(inner);
        self.turn.notify_all();
        result
    }

    fn work_alone<R>(
        inner: &mut Inner<S>,
        store: &mut S,
        work: impl FnOnce(&mut S::State, &mut S) -> R,
    ) -> Result<R, S::Error> {
        if inner.is_ahead {
            inner.state = store.reload()?;
            inner.is_ahead = false;
            inner.waiting.clear();
        }
        let bytes = std::mem::take(&mut inner.waiting);
        if !bytes.is_empty()
            && let Err(error) = store.write(&bytes)
        {
            inner.lose(error.clone());
            return Err(error);
        }
        inner.decided = inner.made;
        Ok(work(&mut inner.state, store))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
