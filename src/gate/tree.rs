//! The Merkle tree of RFC 6962, section 2.1: one digest for many leaves in their order.

use crate::digest::Digest;

/// The root over leaves that are hashed already.
pub(super) fn tree_hash(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest::of(b""),
        [leaf] => *leaf,
        _ => {
            // Split at the largest power of two below the size.
            let split = leaves.len().next_power_of_two() / 2;
            let (left, right) = leaves.split_at(split);
            Digest::of_parts([
                [1].as_slice(),
                tree_hash(left).bytes(),
                tree_hash(right).bytes(),
            ])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_that_of_rfc_6962() {
        let leaf = |byte: u8| Digest::of_parts([[0].as_slice(), &[byte]]);
        let node = |l: Digest, r: Digest| Digest::of_parts([[1].as_slice(), l.bytes(), r.bytes()]);
        let leaves: Vec<Digest> = (0..5).map(leaf).collect();
        let four = node(node(leaves[0], leaves[1]), node(leaves[2], leaves[3]));
        assert_eq!(tree_hash(&leaves), node(four, leaves[4]));
        assert_eq!(tree_hash(&leaves[..1]), leaves[0]);
    }
}
