//! Looks at gate splits, and what they spend of alpha.
//!
//! Splits that share rows are one family: a look at one tells something of the others, so the
//! looks of all count, and their shares of alpha add up to no more than the smallest alpha that
//! was ever named for any of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::fault::{Fault, claim, require};
use crate::digest::Digest;
use crate::receipts::{Holdout, Terms};
use crate::units::Chance;

/// Splits that share rows, directly or through others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// Looks at any of its splits.
    pub looks: u64,
    /// What they have spent of alpha, in millionths of a millionth.
    pub spent_picos: u64,
    /// The smallest alpha that was named, likewise.
    pub alpha_picos: u64,
}

impl Family {
    const NEW: Self = Self {
        looks: 0,
        spent_picos: 0,
        alpha_picos: u64::MAX,
    };

    fn join(self, other: Self) -> Self {
        Self {
            looks: self.looks + other.looks,
            spent_picos: self.spent_picos + other.spent_picos,
            alpha_picos: self.alpha_picos.min(other.alpha_picos),
        }
    }

    /// How many more looks alpha pays for.
    pub fn looks_left(self, alpha: Chance, alpha_look: Chance) -> u64 {
        let limit = self.alpha_picos.min(alpha.picos());
        limit.saturating_sub(self.spent_picos) / alpha_look.picos()
    }
}

/// What is known of one split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Split {
    family: u64,
    texts: u64,
    salt_id: String,
}

/// All splits that decided something, and their families.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Splits {
    splits: BTreeMap<Digest, Split>,
    families: BTreeMap<u64, Family>,
    next: u64,
}

impl Splits {
    /// The roots, in no order that means anything.
    pub fn roots(&self) -> impl Iterator<Item = Digest> + '_ {
        self.splits.keys().copied()
    }

    /// The keys that salted them.
    pub fn salt_ids(&self) -> impl Iterator<Item = &str> {
        self.splits.values().map(|split| split.salt_id.as_str())
    }

    /// What the family of a split and of those that it shares rows with have been used for.
    pub fn family(&self, root: Digest, shares: impl IntoIterator<Item = Digest>) -> Family {
        let families = self.families_of(root, shares);
        let known = families.iter().filter_map(|id| self.families.get(id));
        known.copied().fold(Family::NEW, Family::join)
    }

    fn families_of(&self, root: Digest, shares: impl IntoIterator<Item = Digest>) -> Vec<u64> {
        let roots = std::iter::once(root).chain(shares);
        let mut families: Vec<u64> = roots
            .filter_map(|root| Some(self.splits.get(&root)?.family))
            .collect();
        families.sort_unstable();
        families.dedup();
        families
    }

    /// Whether a look may be taken as its commit says.
    pub(super) fn check(&self, holdout: &Holdout, terms: &Terms) -> Result<(), Fault> {
        if let Some(known) = self.splits.get(&holdout.root) {
            claim("gate.n", terms.n, known.texts)?;
        }
        self.check_shares(holdout)?;
        let rows = holdout.shares.iter().map(|share| share.rows);
        require(
            rows.max().unwrap_or_default() <= terms.n,
            "holdout.shares",
            "it shares more rows than it has",
        )?;
        let shares = holdout.shares.iter().map(|share| share.root);
        let family = self.family(holdout.root, shares);
        claim("gate.look", terms.look, family.looks + 1)?;
        require(
            family.looks_left(terms.alpha, terms.alpha_look) > 0,
            "gate.alpha_look",
            "the looks at this split and those that share rows with it have used up alpha",
        )
    }

    /// Whether what a split says of earlier ones can be.
    pub(super) fn check_shares(&self, holdout: &Holdout) -> Result<(), Fault> {
        if let Some(known) = self.splits.get(&holdout.root) {
            require(
                known.salt_id == holdout.salt_id,
                "holdout.salt_id",
                "another key salted this split before",
            )?;
        }
        let mut named = BTreeSet::new();
        for share in &holdout.shares {
            require(
                self.splits.contains_key(&share.root) && share.root != holdout.root,
                "holdout.shares",
                &format!("{} is no earlier split", share.root),
            )?;
            require(
                share.rows > 0 && named.insert(share.root),
                "holdout.shares",
                "it names a split twice, or without a row",
            )?;
        }
        Ok(())
    }

    /// Counts a look that was announced.
    pub(super) fn apply(&mut self, holdout: &Holdout, terms: &Terms) {
        let shares = || holdout.shares.iter().map(|share| share.root);
        let families = self.families_of(holdout.root, shares());
        let mut family = self.family(holdout.root, shares());
        family.looks += 1;
        family.spent_picos += terms.alpha_look.picos();
        family.alpha_picos = family.alpha_picos.min(terms.alpha.picos());
        let id = families.first().copied().unwrap_or(self.next);
        self.next = self.next.max(id + 1);
        for other in families.iter().skip(1) {
            self.families.remove(other);
            for split in self.splits.values_mut() {
                if split.family == *other {
                    split.family = id;
                }
            }
        }
        self.families.insert(id, family);
        self.splits.entry(holdout.root).or_insert_with(|| Split {
            family: id,
            texts: terms.n,
            salt_id: holdout.salt_id.clone(),
        });
    }

    /// Looks in all, and how many splits had them.
    pub fn totals(&self) -> (u64, u64) {
        let looks = self.families.values().map(|family| family.looks).sum();
        (looks, self.splits.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn holdout() -> Holdout {
        serde_json::from_value(json!({
            "root": Digest::of(b"split"),
            "salt_id": "key",
            "custody": "local",
            "id": "gate.csv",
            "repeats": 0,
            "leakage": {"exact": 0, "checked": "texts"},
        }))
        .unwrap()
    }

    /// A look that spends all of its alpha, as the terms of a test with one look do.
    fn terms(look: u64, alpha: &str) -> Terms {
        serde_json::from_value(json!({
            "rule": "paired-t-skew/1",
            "alpha": alpha,
            "looks_budget": 1,
            "look": look,
            "alpha_look": alpha,
            "min_delta": "0.000000000",
            "n": 200,
            "unit": "row",
            "max_tokens": 32,
            "z": "1.652547",
        }))
        .unwrap()
    }

    #[test]
    fn no_change_of_terms_gives_alpha_back() {
        let mut splits = Splits::default();
        splits.check(&holdout(), &terms(1, "0.05")).unwrap();
        splits.apply(&holdout(), &terms(1, "0.05"));
        // Neither the same terms again, nor a larger alpha: the smallest that was named counts.
        for alpha in ["0.05", "0.04", "0.5"] {
            let refused = splits.check(&holdout(), &terms(2, alpha)).unwrap_err();
            assert_eq!(refused.member, "gate.alpha_look", "{refused}");
        }
        let refused = splits.check(&holdout(), &terms(1, "0.05")).unwrap_err();
        assert_eq!(refused.member, "gate.look", "{refused}");
    }
}
