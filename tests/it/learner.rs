//! The learner by itself.

use std::collections::BTreeMap;

use cryoflux::digest::Digest;
use cryoflux::learn::{Compute, Embedding, Evaluation, Example, TrainSettings, Trainer};
use cryoflux::model::{Adapter, Encoder, Folder, LoraShape};

use crate::lab::{fixtures, rows};

struct Setup {
    folder: Folder,
    encoder: Encoder,
    examples: Vec<Example>,
}

fn setup() -> Setup {
    let folder = Folder::load(&fixtures().join("bert-tiny")).unwrap();
    let encoder = Encoder::new(&folder.config, &folder.weights, &Compute::cpu().device);
    let examples = rows(640, 0)
        .lines()
        .skip(1)
        .map(|line| {
            let (text, label) = line.rsplit_once(',').unwrap();
            Example {
                tokens: folder.tokenizer.encode(text, 32).unwrap(),
                label: label.parse().unwrap(),
            }
        })
        .collect();
    Setup {
        folder,
        encoder,
        examples,
    }
}

fn settings() -> TrainSettings {
    TrainSettings {
        learning_rate: 1e-2,
        weight_decay: 0.01,
        warmup_steps: 2,
        batch_size: 32,
        dropout: 0.1,
        seed: 7,
    }
}

fn start(setup: &Setup) -> Adapter {
    let shape = LoraShape {
        rank: 4,
        alpha: 8.0,
        dropout: 0.1,
        target_modules: vec!["query".into(), "value".into()],
    };
    Adapter::start(&shape, &setup.folder.config, None, 2, &Digest::of(b"seed")).unwrap()
}

fn train(setup: &Setup, threads: usize) -> (Vec<f64>, BTreeMap<String, Vec<f32>>) {
    let compute = Compute::cpu().with_threads(threads);
    let mut trainer = Trainer::new(
        &setup.encoder,
        &compute,
        settings(),
        start(setup),
        &setup.examples,
    );
    let mut losses = Vec::new();
    while let Some(report) = trainer.step() {
        losses.push(report.loss);
    }
    let adapter = trainer.adapter();
    let head = adapter
        .head
        .iter()
        .map(|(name, array)| (name.clone(), array.data.clone()));
    let pairs = adapter
        .pairs
        .iter()
        .map(|(name, (a, b))| (name.clone(), [a.data.clone(), b.data.clone()].concat()));
    (losses, head.chain(pairs).collect())
}

#[test]
fn training_lowers_the_loss() {
    let (losses, adapter) = train(&setup(), 2);
    assert_eq!(losses.len(), 20);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(
        mean(&losses[15..]) < mean(&losses[..5]) * 0.75,
        "{losses:?}"
    );
    assert!(adapter.values().flatten().all(|value| value.is_finite()));
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let setup = setup();
    let one = train(&setup, 1);
    assert_eq!(one, train(&setup, 2));
    assert_eq!(one, train(&setup, 5));
}

#[test]
fn evaluation_is_in_the_order_of_the_examples() {
    let setup = setup();
    let compute = Compute::cpu();
    let trainable = start(&setup).to_device(&setup.folder.config, &compute.device);
    let all = Evaluation::new(&setup.encoder, &trainable, &compute, &setup.examples).finish();
    for at in [0, 17, 639] {
        let alone = Evaluation::new(
            &setup.encoder,
            &trainable,
            &compute,
            &setup.examples[at..=at],
        )
        .finish();
        assert!(
            (alone.losses[0] - all.losses[at]).abs() < 1e-4,
            "example {at}"
        );
    }
    let texts: Vec<Vec<u32>> = setup
        .examples
        .iter()
        .map(|example| example.tokens.clone())
        .collect();
    let vectors = Embedding::new(&setup.encoder, &compute, &texts).finish();
    let alone = Embedding::new(&setup.encoder, &compute, &texts[17..18]).finish();
    let difference = vectors[17]
        .iter()
        .zip(&alone[0])
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(difference < 1e-5, "{difference}");
    let length: f32 = vectors[3].iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-5);
}

#[test]
fn an_unknown_target_is_refused() {
    let setup = setup();
    let shape = LoraShape {
        rank: 4,
        alpha: 8.0,
        dropout: 0.0,
        target_modules: vec!["q_proj".into()],
    };
    let error =
        Adapter::start(&shape, &setup.folder.config, None, 2, &Digest::of(b"")).unwrap_err();
    assert!(
        error.to_string().contains("attention.self.query"),
        "{error}"
    );
}
