//! One micro-batch per core: products of this size gain more from that than from being split.

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Threads that stay for as long as a pass goes on: what they have in their caches and free lists
/// is of use to the next batch.
#[derive(Debug)]
pub struct Workers {
    /// `None` works on the thread that asks.
    pool: Option<ThreadPool>,
}

impl Workers {
    /// Starts threads. For one there is none to start, and where the operating system gives none
    /// the work is done all the same.
    pub fn new(threads: usize) -> Self {
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|number| format!("learn-{number}"));
        Self {
            pool: (threads > 1).then(|| pool.build().ok()).flatten(),
        }
    }

    /// How many items are worked on at a time.
    pub fn count(&self) -> usize {
        self.pool
            .as_ref()
            .map_or(1, ThreadPool::current_num_threads)
    }

    /// Applies `work` to every item; results are in the items' order.
    pub fn map<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: impl Fn(usize, &T) -> R + Sync,
    ) -> Vec<R> {
        match &self.pool {
            None => {
                let items = items.iter().enumerate();
                items.map(|(at, item)| work(at, item)).collect()
            }
            Some(pool) => pool.install(|| {
                let items = items.par_iter().enumerate().with_max_len(1);
                items.map(|(at, item)| work(at, item)).collect()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_for_any_number_of_threads() {
        let items: Vec<usize> = (0..50).collect();
        for threads in [1, 2, 7, 100] {
            let workers = Workers::new(threads);
            let doubled = workers.map(&items, |at, item| at + item);
            assert_eq!(doubled, (0..50).map(|i| 2 * i).collect::<Vec<_>>());
        }
    }
}
