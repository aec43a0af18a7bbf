//! Receipts left out, moved, repeated, cut off, or signed by somebody else.

use std::fs;

use cryoflux::receipts::{Envelope, NodeKey};
use serde_json::{Value, json};

use super::chain::{End, Owner, Receipt};

/// A chain whose receipts are whole, and not all there or not in their order.
pub struct Story {
    pub title: String,
    /// The receipts that are left out, moved or repeated.
    pub of: Vec<usize>,
    pub receipts: Vec<Receipt>,
}

/// All such chains.
pub fn all(owner: &Owner) -> Vec<Story> {
    let truth = owner.truth();
    let mut stories = Vec::new();
    let mut tell = |title: String, of: Vec<usize>, receipts: Vec<Receipt>| {
        stories.push(Story {
            title,
            of,
            receipts,
        });
    };
    let without = |left_out: &[usize]| {
        let kept = truth
            .iter()
            .filter(|receipt| !left_out.contains(&receipt.was));
        kept.cloned().collect::<Vec<_>>()
    };
    for seq in 0..truth.len() {
        tell(format!("{seq} left out"), vec![seq], without(&[seq]));
        if let Some(other) = owner.partner(seq).filter(|other| *other > seq) {
            let pair = [seq, other];
            tell(
                format!("{seq} and its answer left out"),
                pair.to_vec(),
                without(&pair),
            );
        }
        if seq > 0 {
            let end: Vec<usize> = (seq..truth.len()).collect();
            tell(format!("cut off before {seq}"), end, truth[..seq].to_vec());
            let mut moved = truth.to_vec();
            moved.swap(seq - 1, seq);
            // Nothing tells when these were written.
            let is_timeless = |seq| owner.is_undone(seq) || owner.is_of_a_dead_run(seq);
            if !is_timeless(seq - 1) && !is_timeless(seq) {
                tell(format!("{seq} moved up"), vec![seq - 1, seq], moved);
            }
        }
        let again = [&truth[..=seq], &truth[seq..]].concat();
        tell(format!("{seq} twice"), vec![seq], again.clone());
        let mut anew = again;
        let id = cryoflux::id::new_id(cryoflux::clock::Timestamp::now()).unwrap();
        anew[seq + 1].says["task_id"] = json!(id);
        tell(format!("{seq} twice, as another run"), vec![seq], anew);
    }
    stories
}

/// What is done to a statement.
type Change<'a> = &'a dyn Fn(&mut Value);

/// What is signed otherwise than a receipt is, each with the words that tell of it.
pub fn signed_otherwise(owner: &Owner, seq: usize) -> Vec<(&'static str, End)> {
    let extra = json!({"name": "extra", "digest": {"sha256": "0".repeat(64)}});
    let edits: [(&str, Change<'_>); 7] = [
        ("subject", &|statement| statement["subject"] = json!([])),
        ("subject", &|statement| {
            statement["subject"]
                .as_array_mut()
                .unwrap()
                .push(extra.clone());
        }),
        ("subject", &|statement| {
            statement["subject"][0]["name"] = json!("other");
        }),
        ("subject", &|statement| {
            statement["subject"][0]["digest"]["sha256"] = json!("0".repeat(64));
        }),
        ("subject", &|statement| {
            statement["subject"][0]["digest"]["sha512"] = json!("0".repeat(128));
        }),
        ("_type", &|statement| {
            statement["_type"] = json!("https://in-toto.io/Statement/v0.1");
        }),
        ("predicateType", &|statement| {
            statement["predicateType"] = json!("other");
        }),
    ];
    let mut ends = Vec::new();
    for (words, edit) in edits {
        owner.write_lines(owner.truth(), &|_, _| {}, &|was, statement| {
            let mut statement = statement.clone();
            if was == seq {
                edit(&mut statement);
            }
            let payload = serde_json_canonicalizer::to_vec(&statement).unwrap();
            (payload.clone(), Envelope::seal(&payload, owner.key()))
        });
        ends.push((words, owner.verify()));
    }
    ends
}

/// All receipts from one on, signed by a second key that lies among the public ones.
pub fn by_a_second_key(owner: &Owner, from: usize) -> End {
    let folder = tempfile::tempdir().unwrap();
    let keys = owner.root().join("receipts/keys");
    let second = NodeKey::load_or_create(&folder.path().join("key.pem"), &keys).unwrap();
    let named = |was: usize, says: &mut Value| {
        if was >= from {
            says["node"] = json!(second.id());
        }
    };
    owner.write_lines(owner.truth(), &named, &|was, statement| {
        let payload = serde_json_canonicalizer::to_vec(statement).unwrap();
        let key = if was >= from { &second } else { owner.key() };
        (payload.clone(), Envelope::seal(&payload, key))
    });
    let end = owner.verify();
    fs::remove_file(keys.join(format!("{}.pem", second.id()))).unwrap();
    end
}
