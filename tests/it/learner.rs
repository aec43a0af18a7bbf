//! The learner by itself.

use std::collections::BTreeMap;

use cryoflux::digest::Digest;
use cryoflux::learn::{Compute, Embedding, Evaluation, Example, TrainSettings, Trainer};
use cryoflux::model::{Adapter, Encoder, Folder, Labelled, LoraShape, values};
use cryoflux::recipe::{Decay, Precision, Scaling};

use crate::lab::{examples, fixtures};

struct Setup {
    folder: Folder,
    encoder: Encoder,
    examples: Vec<Example>,
}

fn setup() -> Setup {
    let folder = Folder::load(&fixtures().join("bert-tiny")).unwrap();
    let encoder = Encoder::new(&folder.config, &folder.weights, &Compute::cpu().arithmetic);
    let examples = examples(&folder, 640);
    Setup {
        folder,
        encoder,
        examples,
    }
}

fn settings() -> TrainSettings {
    TrainSettings {
        learning_rate: 1e-2,
        decay: Decay::Constant,
        b_ratio: 1.0,
        weight_decay: 0.01,
        warmup_steps: 2,
        max_steps: 20,
        batch_size: 32,
        micro_batch_size: None,
        max_grad_norm: None,
        dropout: 0.1,
        seed: 7,
    }
}

fn start(setup: &Setup) -> Adapter {
    let shape = LoraShape {
        rank: 4,
        alpha: 8.0,
        scaling: Scaling::Standard,
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
    let trainable = setup
        .encoder
        .adapt(&start(&setup).trainable(&setup.folder.config));
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

/// Gradients of the same batch by the kernels and by burn, which differentiates by itself.
#[test]
fn the_kernels_have_burns_gradients() {
    for (name, targets) in [
        (
            "bert-tiny",
            vec!["query", "key", "value", "attention.output.dense"],
        ),
        ("bert-tiny", vec!["intermediate.dense", "output.dense"]),
        ("distilbert-tiny", vec!["q_lin", "v_lin", "lin1", "lin2"]),
    ] {
        let folder = Folder::load(&fixtures().join(name)).unwrap();
        let shape = LoraShape {
            rank: 3,
            alpha: 5.0,
            scaling: Scaling::Standard,
            dropout: 0.0,
            target_modules: targets.into_iter().map(String::from).collect(),
        };
        let mut adapter =
            Adapter::start(&shape, &folder.config, None, 3, &Digest::of(b"seed")).unwrap();
        for (_, b) in adapter.pairs.values_mut() {
            // With B at zero, A would have no gradient to compare.
            for (at, value) in b.data.iter_mut().enumerate() {
                *value = ((at * 37 % 101) as f32 / 101.0 - 0.5) * 0.2;
            }
        }
        for text in adapter.head.values_mut() {
            text.data.iter_mut().for_each(|value| *value *= 20.0);
        }
        let texts: Vec<Vec<u32>> = ["a good film", "bad", "the end of a long story it was not"]
            .map(|text| folder.tokenizer.encode(text, 32).unwrap())
            .to_vec();
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let batch = Labelled {
            texts: &texts,
            labels: &[2, 0, 1],
            share: 1.0 / 3.0,
        };
        let [ours, burns] = [Compute::cpu(), Compute::flex()].map(|compute| {
            let encoder = Encoder::new(&folder.config, &folder.weights, &compute.arithmetic);
            let adapted = encoder.adapt(&adapter.trainable(&folder.config));
            encoder.gradients(batch, &adapted, None)
        });
        assert!((ours.loss - burns.loss).abs() < 1e-5, "{name}");
        assert_eq!(ours.leaves.len(), burns.leaves.len());
        for (at, (ours, burns)) in ours.leaves.into_iter().zip(burns.leaves).enumerate() {
            let (ours, burns) = (values(ours.unwrap()), values(burns.unwrap()));
            let largest = burns.iter().map(|value| value.abs()).fold(0.0, f32::max);
            assert!(largest > 0.0, "{name}: leaf {at} has no gradient");
            for (ours, burns) in ours.iter().zip(&burns) {
                let off = (ours - burns).abs() / largest;
                assert!(off < 2e-4, "{name}: leaf {at}: {ours} and {burns}");
            }
        }
    }
}

#[test]
fn a_text_may_be_as_long_as_the_model_has_positions() {
    let setup = setup();
    let longest = setup.folder.config.max_positions;
    let words = setup.examples.iter().flat_map(|example| &example.tokens);
    let long: Vec<u32> = words.copied().take(longest).collect();
    assert_eq!(long.len(), longest);
    let texts: [&[u32]; 2] = [&long, &setup.examples[0].tokens];
    let batch = Labelled {
        texts: &texts,
        labels: &[1, 0],
        share: 0.5,
    };
    let [ours, burns] = [Compute::cpu(), Compute::flex()].map(|compute| {
        let folder = &setup.folder;
        let encoder = Encoder::new(&folder.config, &folder.weights, &compute.arithmetic);
        let adapted = encoder.adapt(&start(&setup).trainable(&folder.config));
        (
            encoder.logits(&texts, &adapted),
            encoder.gradients(batch, &adapted, None).loss,
        )
    });
    for (ours, burns) in ours.0.iter().zip(&burns.0) {
        assert!((ours - burns).abs() < 1e-4, "{ours} and {burns}");
    }
    assert!((ours.1 - burns.1).abs() < 1e-5);
}

/// Half precision on burn's CPU backend, which a card shares all but the kernels with.
#[test]
fn half_precision_is_near_and_trains() {
    let setup = setup();
    let examples = &setup.examples[..320];
    let texts: Vec<&[u32]> = examples[..32].iter().map(|e| e.tokens.as_slice()).collect();
    let start = start(&setup);
    let exact = setup.encoder.logits(
        &texts,
        &setup.encoder.adapt(&start.trainable(&setup.folder.config)),
    );
    for (precision, tolerance) in [(Precision::Bf16, 2e-2), (Precision::F16, 2e-3)] {
        let compute = Compute::flex().with_precision(precision).unwrap();
        let encoder = Encoder::new(
            &setup.folder.config,
            &setup.folder.weights,
            &compute.arithmetic,
        );
        let adapted = encoder.adapt(&start.trainable(&setup.folder.config));
        let logits = encoder.logits(&texts, &adapted);
        let off = logits.iter().zip(&exact).map(|(a, b)| (a - b).abs());
        let off = off.fold(0.0, f32::max);
        assert!(off > 0.0 && off < tolerance, "{precision}: {off}");
        let settings = TrainSettings {
            max_steps: 10,
            ..settings()
        };
        let mut trainer = Trainer::new(&encoder, &compute, settings, start.clone(), examples);
        let losses: Vec<f64> = std::iter::from_fn(|| Some(trainer.step()?.loss)).collect();
        assert!(losses[9] < losses[0], "{precision}: {losses:?}");
    }
    let refused = Compute::cpu().with_precision(Precision::Bf16).unwrap_err();
    assert!(refused.to_string().contains("f32"), "{refused}");
}

#[test]
fn micro_batches_and_clipping_change_what_they_should() {
    let setup = setup();
    let compute = Compute::cpu();
    let after = |change: &dyn Fn(&mut TrainSettings)| {
        let mut settings = TrainSettings {
            dropout: 0.0,
            max_steps: 2,
            ..settings()
        };
        change(&mut settings);
        let mut trainer = Trainer::new(
            &setup.encoder,
            &compute,
            settings,
            start(&setup),
            &setup.examples[..64],
        );
        while trainer.step().is_some() {}
        let adapter = trainer.adapter();
        let pairs = adapter.pairs.values();
        pairs
            .flat_map(|(a, b)| [a.data.clone(), b.data.clone()].concat())
            .collect::<Vec<f32>>()
    };
    let distance = |a: &[f32], b: &[f32]| {
        let off = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        off.fold(0.0, f32::max)
    };
    let plain = after(&|_| {});
    // A sum in another order: the same but for rounding, which Adam's first steps enlarge.
    let accumulated = after(&|settings| settings.micro_batch_size = Some(1));
    assert!(
        distance(&plain, &accumulated) < 2e-3,
        "{}",
        distance(&plain, &accumulated)
    );
    let at_once = after(&|settings| settings.micro_batch_size = Some(32));
    assert!(distance(&plain, &at_once) < 2e-3 && plain != at_once);
    assert_eq!(plain, after(&|settings| settings.max_grad_norm = Some(1e9)));
    let b_moves_more = after(&|settings| settings.b_ratio = 8.0);
    assert!(distance(&plain, &b_moves_more) > 1e-3);
}

#[test]
fn an_unknown_target_is_refused() {
    let setup = setup();
    let shape = LoraShape {
        rank: 4,
        alpha: 8.0,
        scaling: Scaling::Standard,
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
