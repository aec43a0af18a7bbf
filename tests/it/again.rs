//! Doing the work again: it comes out the same, and where it does not, the row or the byte is named
//! where a lie begins that no other check can see.

use std::fs;

use cryoflux::digest::Digest;
use cryoflux::engine::Recipe;
use cryoflux::gate::{Gate, HoldoutKey, Split, losses_root};
use cryoflux::units::{Eta, Joules, Nats};
use cryoflux::versions::{Losses, Versions};
use serde_json::{Value, json};

use crate::forge::chain::{End, Owner};
use crate::lab::Lab;

/// One update that was accepted: its commit, and its decision.
const COMMIT: usize = 1;
const DECISION: usize = 2;

fn learned() -> (Lab, Owner) {
    let lab = Lab::new();
    lab.apply().expect(0);
    let owner = Owner::of(&lab.path(""));
    assert!(owner.truth()[DECISION].says["accepted"] == true);
    (lab, owner)
}

fn digest(says: &Value, path: &str) -> Digest {
    says.pointer(path)
        .unwrap()
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

fn number<T: std::str::FromStr>(says: &Value, path: &str) -> T {
    let text = says.pointer(path).unwrap().as_str().unwrap();
    text.parse().ok().unwrap()
}

#[test]
fn losses_and_weights_come_out_the_same() {
    let (lab, _) = learned();
    let run = lab
        .cryo(&["verify", "--remeasure", "--replay", "2"])
        .expect(0);
    for line in [
        "seq 2: 400 rows measured again, before and after, to the last bit",
        "seq 2: trained again, ",
        "bytes of weights are the same; the training cost ",
    ] {
        assert!(run.stdout.contains(line), "{line}: {}", run.stdout);
    }
    let run = lab
        .cryo(&["verify", "--remeasure", "7", "--json"])
        .expect(0)
        .json();
    let checks = run["checks"].as_array().unwrap();
    let measured = checks
        .iter()
        .find(|check| check["check"] == "remeasure")
        .unwrap();
    assert!(
        measured["text"]
            .as_str()
            .unwrap()
            .starts_with("seq 2: 7 rows measured again"),
        "{measured}"
    );
    let none = lab.cryo(&["verify", "--replay", "0"]).expect(3).stderr;
    assert!(
        none.contains("no adapter") || none.contains("trained nothing"),
        "{none}"
    );
    let none = lab.cryo(&["verify", "--replay", "9"]).expect(3).stderr;
    assert!(none.contains("there is no receipt 9"), "{none}");
}

/// A row that the new model is said to lose less on, and all that follows from it.
#[test]
fn a_planted_loss_is_named_by_its_row() {
    let (lab, owner) = learned();
    let truth = &owner.truth()[DECISION].says;
    let versions = Versions::new(&lab.path(".cryo"));
    let losses = |path| versions.losses(&digest(truth, path)).unwrap().unwrap();
    let base: Losses = losses("/gate/base_losses_hash");
    let mut new: Losses = losses("/gate/new_losses_hash");
    new.rows[122] *= 0.9;
    let lie = versions.keep_losses(&new).unwrap();
    let gate = Gate {
        rule: truth["gate"]["rule"].as_str().unwrap().parse().unwrap(),
        alpha: number(truth, "/gate/alpha"),
        looks_budget: truth["gate"]["looks_budget"].as_u64().unwrap(),
        min_delta: number(truth, "/gate/min_delta"),
    };
    let verdict = gate.judge(&base.rows, &new.rows).unwrap();
    let split = versions.split(&digest(truth, "/holdout/root"));
    let split = Split::parse(&fs::read_to_string(split).unwrap()).unwrap();
    let key = HoldoutKey::load(&lab.path(".cryo/holdout.key"))
        .unwrap()
        .unwrap();
    let root = losses_root(&split.leaves(&key.salt()), &base.rows, &new.rows);
    let spent: Joules = number(truth, "/joules_spent");
    let sigma: Joules = number(truth, "/energy/joules_sigma");
    let delta: Nats = verdict.base_loss - verdict.new_loss;
    let lower = verdict.delta_lower.unwrap();
    owner.write(owner.truth(), &|was, says| {
        if was != DECISION {
            return;
        }
        says["new_loss"] = json!(verdict.new_loss);
        says["delta"] = json!(delta);
        says["delta_lower"] = json!(lower);
        says["eta"] = json!(Eta::of(delta, spent));
        says["eta_lower"] = json!(Eta::of(lower, spent + sigma + sigma));
        says["eta_gross"] = json!(Eta::of(delta, number(says, "/energy/joules_gross")));
        let numbers = &verdict.statistics;
        says["gate"]["sd"] = json!(numbers.sd);
        says["gate"]["skewness"] = json!(numbers.skewness);
        says["gate"]["t"] = json!(numbers.t);
        says["gate"]["t_skew"] = json!(numbers.t_skew);
        says["gate"]["new_losses_hash"] = json!(lie);
        says["gate"]["losses_root"] = json!(root);
    });
    assert_eq!(owner.verify(), End::Passed, "no file contradicts it");
    let run = lab.cryo(&["verify", "--remeasure"]).expect(14);
    let words = "seq 2: row 123 of its split lost ";
    assert!(run.stdout.contains(words), "{}", run.stdout);
    assert!(
        run.stdout.contains(" after the update, and "),
        "{}",
        run.stdout
    );
}

/// An adapter that another learning rate is said to have made, and all that cites it.
#[test]
fn another_recipe_is_named_by_the_first_byte_that_it_makes_otherwise() {
    let (lab, owner) = learned();
    let truth = &owner.truth()[DECISION].says;
    let versions = Versions::new(&lab.path(".cryo"));
    let folder = versions.adapter(&digest(truth, "/adapter_hash"));
    let mut recipe = Recipe::parse(&fs::read(folder.join("recipe.json")).unwrap()).unwrap();
    recipe.settings.learning_rate = 2e-2;
    fs::write(folder.join("recipe.json"), recipe.to_bytes()).unwrap();
    let recipe_hash = Digest::of(&recipe.to_bytes());
    let old = digest(truth, "/train/recipe_hash");
    let sums = fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    let sums = sums.replace(&old.hex(), &recipe_hash.hex());
    fs::write(folder.join("SHA256SUMS"), &sums).unwrap();
    let adapter = Digest::of(sums.as_bytes());
    fs::rename(&folder, versions.adapter(&adapter)).unwrap();
    let losses = versions.losses(&digest(truth, "/gate/new_losses_hash"));
    let mut losses = losses.unwrap().unwrap();
    losses.measured.adapter = Some(adapter);
    let losses = versions.keep_losses(&losses).unwrap();
    owner.write(owner.truth(), &|was, says| {
        if was == COMMIT || was == DECISION {
            says["adapter_hash"] = json!(adapter);
            says["train"]["recipe_hash"] = json!(recipe_hash);
            says["train"]["config_hash"] = json!(recipe.config_hash());
        }
        if was == DECISION {
            says["gate"]["new_losses_hash"] = json!(losses);
        }
    });
    assert_eq!(owner.verify(), End::Passed, "no file contradicts it");
    let run = lab.cryo(&["verify", "--replay", "2"]).expect(14);
    let words = "seq 2: trained again, the weights differ from byte ";
    assert!(run.stdout.contains(words), "{}", run.stdout);
}
