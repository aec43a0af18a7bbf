//! The commitment to a holdout: a salted Merkle root (RFC 6962) over its rows.

use crate::digest::Digest;

/// From this many rows on the error rate is promised: no test sees harm to fewer than 3 in n
/// inputs, and with fewer rows that share is no longer small.
pub const HOLDOUT_CLAIM_ROWS: u64 = 2000;

/// Root over `records`. Texts are short and guessable, so each leaf is salted: without the salt
/// nobody can test whether a text is in the split.
pub fn merkle_root<'a>(salt: &Digest, records: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let leaves: Vec<Digest> = records
        .into_iter()
        .enumerate()
        .map(|(row, record)| {
            let row = (row as u64).to_be_bytes();
            let leaf_salt = Digest::of_parts([salt.bytes().as_slice(), row.as_slice()]);
            Digest::of_parts([[0].as_slice(), leaf_salt.bytes(), record])
        })
        .collect();
    tree_hash(&leaves)
}

fn tree_hash(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest::of(b""),
        [leaf] => *leaf,
        _ => {
            // RFC 6962, section 2.1: split at the largest power of two below the size.
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

    #[test]
    fn salt_order_and_content_all_count() {
        let salt = Digest::of(b"salt");
        let root = |salt: &Digest, rows: &[&[u8]]| merkle_root(salt, rows.iter().copied());
        let rows: [&[u8]; 2] = [b"a", b"b"];
        let one = root(&salt, &rows);
        assert_ne!(one, root(&Digest::of(b"other"), &rows));
        assert_ne!(one, root(&salt, &[b"b", b"a"]));
        assert_ne!(one, root(&salt, &[b"a", b"c"]));
        assert_eq!(one, root(&salt, &rows));
    }
}
