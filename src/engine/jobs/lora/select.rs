//! Which rows an update trains on.

use std::collections::{BinaryHeap, HashMap};

use crate::digest::Digest;

/// Picks `count` rows, or all when there are fewer: those that the lineage has been trained on
/// least come first, and among equals the order follows from the seed. So every row is seen once
/// before any is seen twice, and new rows count at once.
pub fn select_rows(
    rows: &[Digest],
    trained: &HashMap<Digest, u64>,
    seed: &Digest,
    count: usize,
) -> Vec<usize> {
    // Few are chosen of many, so only the first so far are kept.
    let mut first = BinaryHeap::new();
    for (at, row) in rows.iter().enumerate() {
        let times = trained.get(row).copied().unwrap_or(0);
        let place = Digest::of_parts([seed.bytes().as_slice(), row.bytes()]);
        first.push((times, place, at));
        if first.len() > count {
            first.pop();
        }
    }
    first
        .into_sorted_vec()
        .into_iter()
        .map(|(.., at)| at)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unseen_rows_come_first_in_a_seeded_order() {
        let rows: Vec<Digest> = (0..100_u8).map(|i| Digest::of(&[i])).collect();
        let seed = Digest::of(b"seed");
        let first = select_rows(&rows, &HashMap::new(), &seed, 60);
        assert_eq!(first, select_rows(&rows, &HashMap::new(), &seed, 60));
        assert_ne!(
            first,
            select_rows(&rows, &HashMap::new(), &Digest::of(b"other"), 60)
        );
        let mut trained: HashMap<Digest, u64> = first.iter().map(|&at| (rows[at], 1)).collect();
        let second = select_rows(&rows, &trained, &seed, 60);
        assert!(second[..40].iter().all(|at| !first.contains(at)));
        assert!(second[40..].iter().all(|at| first.contains(at)));
        for at in second {
            *trained.entry(rows[at]).or_default() += 1;
        }
        let mut grown = rows.clone();
        grown.push(Digest::of(b"new"));
        assert_eq!(select_rows(&grown, &trained, &seed, 1), [100]);
        // A row is chosen once, however many are wanted.
        let mut few = select_rows(&rows[..3], &HashMap::new(), &seed, 7);
        few.sort_unstable();
        assert_eq!(few, [0, 1, 2]);
        assert!(select_rows(&rows, &trained, &seed, 0).is_empty());
        assert!(select_rows(&[], &HashMap::new(), &seed, 7).is_empty());
    }
}
