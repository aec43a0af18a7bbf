//! The group commit under every order of threads: its source, compiled against loom's locks.

#![allow(dead_code)]

mod sync {
    pub use std::sync::PoisonError;

    pub use loom::sync::{Condvar, Mutex, MutexGuard};
}

#[path = "../../src/energy/bucket/group.rs"]
mod group;

use std::sync::atomic::{AtomicU32, Ordering};

use group::{Group, Store};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// A disk: the bytes that are on it, and the write that fails.
#[derive(Clone)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    fails_at: Option<u32>,
    writes: u32,
}

impl Disk {
    fn new(fails_at: Option<u32>) -> Self {
        Self {
            bytes: Arc::new(Mutex::new(Vec::new())),
            fails_at,
            writes: 0,
        }
    }
}

impl Store for Disk {
    /// What is left of ten joules.
    type State = u8;
    type Error = &'static str;

    fn write(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.writes += 1;
        if self.fails_at == Some(self.writes) {
            return Err("the disk is full");
        }
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn reload(&mut self) -> Result<u8, Self::Error> {
        Ok(10 - self.bytes.lock().unwrap().iter().sum::<u8>())
    }
}

/// Takes six of what is left, if that is there.
fn take(group: &Group<Disk>) -> Result<bool, &'static str> {
    group.commit(|left, line| {
        if *left < 6 {
            return false;
        }
        *left -= 6;
        line.push(6);
        true
    })
}

#[test]
fn two_takers_never_get_more_than_there_is() {
    loom::model(|| {
        let disk = Disk::new(None);
        let bytes = Arc::clone(&disk.bytes);
        let group = Arc::new(Group::new(10, disk));
        let other = thread::spawn({
            let (group, bytes) = (Arc::clone(&group), Arc::clone(&bytes));
            move || {
                let taken = take(&group).unwrap();
                // What is answered is on disk.
                assert!(!taken || bytes.lock().unwrap().contains(&6));
                taken
            }
        });
        let mine = take(&group).unwrap();
        let both = [mine, other.join().unwrap()];
        assert_eq!(both.iter().filter(|taken| **taken).count(), 1);
        assert_eq!(*bytes.lock().unwrap(), [6]);
        assert_eq!(group.look(|left| *left), 4);
    });
}

#[test]
fn a_write_that_fails_is_nobodys_take() {
    static SUCCESSES: AtomicU32 = AtomicU32::new(0);
    loom::model(|| {
        let disk = Disk::new(Some(1));
        let bytes = Arc::clone(&disk.bytes);
        let group = Arc::new(Group::new(10, disk));
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || take(&group)
        });
        let results = [take(&group), other.join().unwrap()];
        let taken = results.iter().filter(|r| **r == Ok(true)).count();
        SUCCESSES.fetch_add(taken as u32, Ordering::Relaxed);
        // Whoever was told yes is on disk, and nobody else is.
        assert_eq!(bytes.lock().unwrap().len(), taken);
        assert_eq!(group.look(|left| *left), 10 - 6 * taken as u8);
        assert!(results.contains(&Err("the disk is full")));
    });
    // In some orders the second taker comes after the failure, and succeeds.
    assert!(SUCCESSES.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_note_is_on_disk_with_the_commit_after_it() {
    loom::model(|| {
        let disk = Disk::new(None);
        let bytes = Arc::clone(&disk.bytes);
        let group = Arc::new(Group::new(10, disk));
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || {
                group.note(|left, line| {
                    *left -= 1;
                    line.push(1);
                });
            }
        });
        let taken = take(&group).unwrap();
        other.join().unwrap();
        group.commit(|_, _| ()).unwrap();
        assert!(taken);
        assert_eq!(bytes.lock().unwrap().iter().sum::<u8>(), 7);
    });
}

#[test]
fn whoever_wants_quiet_gets_it_and_sees_what_is_on_disk() {
    loom::model(|| {
        let disk = Disk::new(None);
        let bytes = Arc::clone(&disk.bytes);
        let group = Arc::new(Group::new(10, disk));
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || take(&group).unwrap()
        });
        let (left, written) = group
            .quiet(|left, disk| (*left, disk.bytes.lock().unwrap().iter().sum::<u8>()))
            .unwrap();
        assert_eq!(left + written, 10);
        assert!(other.join().unwrap());
        assert_eq!(*bytes.lock().unwrap(), [6]);
    });
}
