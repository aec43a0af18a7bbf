//! Memory that is used again: asking the system for fresh pages in every pass cost a fifth of the
//! time.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Numbers per cache line; a buffer begins at one.
const LINE: usize = 16;

thread_local! {
    /// Memory of dropped buffers, by size class.
    static FREE: RefCell<Vec<Vec<Vec<f32>>>> = const { RefCell::new(Vec::new()) };
}

/// Numbers in memory that goes back to its thread when they are dropped.
#[derive(Debug, Default)]
pub struct Buffer {
    store: Vec<f32>,
    offset: usize,
    len: usize,
}

/// Four classes per power of two, so that at most a quarter of a buffer is not used.
const fn class_and_size(len: usize) -> (usize, usize) {
    let len = if len < 64 { 64 } else { len };
    let power = (len - 1).ilog2();
    let quarter = 1_usize << (power - 2);
    let steps = (len - (1 << power)).div_ceil(quarter);
    (power as usize * 4 + steps, (1 << power) + steps * quarter)
}

impl Buffer {
    /// Numbers without meaning, for whoever writes all of them.
    pub fn stale(len: usize) -> Self {
        let (class, size) = class_and_size(len + LINE);
        let store = FREE
            .with_borrow_mut(|free| free.get_mut(class).and_then(Vec::pop))
            .unwrap_or_else(|| vec![0.0; size]);
        let offset = store
            .as_ptr()
            .align_offset(LINE * size_of::<f32>())
            .min(LINE);
        let mut buffer = Self { store, offset, len };
        if cfg!(test) {
            // A number that is read before it is written shows.
            buffer.fill(f32::NAN);
        }
        buffer
    }

    /// Zeros.
    pub fn zeros(len: usize) -> Self {
        let mut buffer = Self::stale(len);
        buffer.fill(0.0);
        buffer
    }

    /// A copy.
    pub fn copy(values: &[f32]) -> Self {
        let mut buffer = Self::stale(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.store.is_empty() {
            return;
        }
        let store = std::mem::take(&mut self.store);
        let (class, _) = class_and_size(store.len());
        // A thread that ends has given up its memory already; then this frees it.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() <= class {
                free.resize_with(class + 1, Vec::new);
            }
            free[class].push(store);
        });
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self::copy(self)
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.store[self.offset..self.offset + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.store[self.offset..self.offset + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_used_again() {
        for len in [0, 1, 63, 64, 65, 1000, 4096, 4097, 100_000] {
            let (class, size) = class_and_size(len + LINE);
            assert!(
                size >= len + LINE && size <= (len + LINE) * 5 / 4 + 64,
                "{len} {size}"
            );
            // What comes back finds its own class.
            assert_eq!(class_and_size(size), (class, size));
            let buffer = Buffer::zeros(len);
            assert_eq!(buffer.as_ptr().align_offset(64), 0);
            assert_eq!(*buffer, vec![0.0; len]);
        }
        let first = Buffer::copy(&[1.0; 5000]);
        let place = first.as_ptr();
        drop(first);
        assert_eq!(Buffer::stale(4900).as_ptr(), place);
        let moved = Buffer::copy(&[2.0; 100]);
        assert_eq!(*moved.clone(), *moved);
        assert_eq!(*Buffer::default(), [0.0; 0]);
    }
}
