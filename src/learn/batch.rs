//! Which texts are worked on together.

use super::parallel::Workers;

/// Indices of `lengths`, longest first, cut into groups of at most `rows`.
pub fn by_length(lengths: &[usize], rows: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(lengths[at]));
    order.chunks(rows.max(1)).map(<[usize]>::to_vec).collect()
}

/// Indices of `lengths` in groups of about `rows`, each with about as many tokens as the others,
/// so that no core waits for another: dealt out longest first, to and fro.
pub fn balanced(lengths: &[usize], rows: usize) -> Vec<Vec<usize>> {
    let count = lengths.len().div_ceil(rows.max(1));
    let mut groups = vec![Vec::new(); count];
    for (round, dealt) in by_length(lengths, count).into_iter().enumerate() {
        for (at, index) in dealt.into_iter().enumerate() {
            let group = if round % 2 == 0 { at } else { count - 1 - at };
            groups[group].push(index);
        }
    }
    groups
}

/// So that threads seldom wait for each other, and a step still takes a fraction of a second.
const BATCHES_PER_STEP: usize = 4;

/// A pass over many texts, a few batches per step.
#[derive(Debug)]
pub struct Sweep {
    workers: Workers,
    batches: Vec<Vec<usize>>,
    next: usize,
    done: usize,
}

impl Sweep {
    /// Over texts of these lengths, `rows` to a batch, on so many threads.
    pub fn new(lengths: &[usize], rows: usize, threads: usize) -> Self {
        Self {
            workers: Workers::new(threads),
            batches: by_length(lengths, rows),
            next: 0,
            done: 0,
        }
    }

    /// Works on a few batches per thread; `None` when all are done.
    pub fn step<R: Send>(
        &mut self,
        work: impl Fn(&[usize]) -> R + Sync,
    ) -> Option<Vec<(&[usize], R)>> {
        let batches = &self.batches[self.next..];
        let count = self.workers.count() * BATCHES_PER_STEP;
        let batches = &batches[..batches.len().min(count)];
        if batches.is_empty() {
            return None;
        }
        let results = self.workers.map(batches, |_, batch| work(batch));
        self.next += batches.len();
        self.done += batches.iter().map(Vec::len).sum::<usize>();
        Some(batches.iter().map(Vec::as_slice).zip(results).collect())
    }

    /// About how many texts a step does.
    pub fn texts_per_step(&self) -> usize {
        let rows = self.batches.first().map_or(0, Vec::len);
        rows * self.workers.count() * BATCHES_PER_STEP
    }

    /// Texts done so far.
    pub const fn done(&self) -> usize {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_in_one_group_with_its_like() {
        let groups = by_length(&[3, 9, 4, 9, 1], 2);
        assert_eq!(groups, [vec![1, 3], vec![2, 0], vec![4]]);
        assert_eq!(by_length(&[1, 2], usize::MAX).len(), 1);
        assert!(by_length(&[], 4).is_empty());
    }

    #[test]
    fn a_sweep_counts_every_text_once() {
        let lengths: Vec<usize> = (1..=23).collect();
        let mut sweep = Sweep::new(&lengths, 2, 1);
        let mut counted = 0;
        while let Some(results) = sweep.step(<[usize]>::len) {
            counted += results.iter().map(|(_, count)| count).sum::<usize>();
            assert_eq!(sweep.done(), counted);
        }
        assert_eq!(sweep.done(), lengths.len());
    }

    #[test]
    fn groups_have_about_as_many_tokens_each() {
        let lengths: Vec<usize> = (0..32).map(|at| 4 + at * 7 % 31).collect();
        let groups = balanced(&lengths, 4);
        let tokens = |group: &Vec<usize>| group.iter().map(|&at| lengths[at]).sum::<usize>();
        let (least, most) = (
            groups.iter().map(tokens).min(),
            groups.iter().map(tokens).max(),
        );
        assert_eq!(groups.len(), 8);
        assert!(most.unwrap() - least.unwrap() <= 4, "{groups:?}");
        let mut all: Vec<usize> = groups.concat();
        all.sort_unstable();
        assert_eq!(all, (0..32).collect::<Vec<_>>());
        assert_eq!(balanced(&[5], 4), [vec![0]]);
        assert!(balanced(&[], 4).is_empty());
    }
}
