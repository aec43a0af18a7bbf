//! Batches of texts of similar length: padding is work that teaches nothing.

/// Indices of `lengths`, longest first, cut into groups of at most `rows`.
pub fn by_length(lengths: &[usize], rows: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(lengths[at]));
    order.chunks(rows.max(1)).map(<[usize]>::to_vec).collect()
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
