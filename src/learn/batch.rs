//! Batches of texts of similar length: padding is work that teaches nothing.

use super::parallel;

/// Indices of `lengths`, longest first, cut into groups of at most `rows`.
pub fn by_length(lengths: &[usize], rows: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(lengths[at]));
    order.chunks(rows.max(1)).map(<[usize]>::to_vec).collect()
}

/// A pass over many texts, a few batches per step.
#[derive(Debug)]
pub struct Sweep {
    batches: Vec<Vec<usize>>,
    next: usize,
}

impl Sweep {
    /// Over texts of these lengths, `rows` to a batch.
    pub fn new(lengths: &[usize], rows: usize) -> Self {
        Self {
            batches: by_length(lengths, rows),
            next: 0,
        }
    }

    /// Works on one batch per thread; `None` when all are done.
    pub fn step<R: Send>(
        &mut self,
        threads: usize,
        work: impl Fn(&[usize]) -> R + Sync,
    ) -> Option<Vec<(&[usize], R)>> {
        let batches = &self.batches[self.next..];
        let batches = &batches[..batches.len().min(threads.max(1))];
        if batches.is_empty() {
            return None;
        }
        let results = parallel::map(threads, batches, |_, batch| work(batch));
        self.next += batches.len();
        Some(batches.iter().map(Vec::as_slice).zip(results).collect())
    }

    /// Texts done so far.
    pub fn done(&self) -> usize {
        self.batches[..self.next].iter().map(Vec::len).sum()
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
}
