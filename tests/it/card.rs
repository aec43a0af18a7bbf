//! What a card must compute like the CPU, with a tolerance per precision. The tests that need one
//! are ignored elsewhere: `cargo test --release --features cuda --test it card:: -- --ignored`, or
//! `benches/gpu/run.sh`. burn's CPU device goes through the same checks everywhere, so that the
//! checks themselves are known to work.

use cryoflux::digest::Digest;
use cryoflux::learn::{Compute, DeviceChoice, Evaluation, Example, TrainSettings, Trainer};
use cryoflux::model::{Adapter, Encoder, Folder, Labelled, LoraShape, values};
use cryoflux::recipe::{Decay, Precision, Scaling};

use crate::lab::{examples, fixtures, rows};

/// Largest difference of a logit, and of a gradient as a share of the leaf's largest one. A card
/// may multiply f32 with the 10 bits of tf32.
const TOLERANCES: [(Precision, f32, f32); 3] = [
    (Precision::F32, 5e-3, 2e-2),
    (Precision::Bf16, 5e-2, 0.2),
    (Precision::F16, 1e-2, 5e-2),
];

struct Tiny {
    folder: Folder,
    examples: Vec<Example>,
    adapter: Adapter,
}

fn tiny() -> Tiny {
    let folder = Folder::load(&fixtures().join("bert-tiny")).unwrap();
    let examples = examples(&folder, 320);
    let shape = LoraShape {
        rank: 4,
        alpha: 8.0,
        scaling: Scaling::Standard,
        dropout: 0.0,
        target_modules: vec!["query".into(), "value".into(), "output.dense".into()],
    };
    let mut adapter =
        Adapter::start(&shape, &folder.config, None, 2, &Digest::of(b"card")).unwrap();
    for (_, b) in adapter.pairs.values_mut() {
        for (at, value) in b.data.iter_mut().enumerate() {
            *value = ((at * 37 % 101) as f32 / 101.0 - 0.5) * 0.2;
        }
    }
    Tiny {
        folder,
        examples,
        adapter,
    }
}

fn encoder(folder: &Folder, compute: &Compute) -> Encoder {
    Encoder::new(&folder.config, &folder.weights, &compute.arithmetic)
}

fn largest(differences: impl Iterator<Item = f32>) -> f32 {
    differences.fold(0.0, |most, off| {
        if off.is_nan() {
            f32::INFINITY
        } else {
            most.max(off)
        }
    })
}

fn computes_like_the_cpu(device: impl Fn(Precision) -> Compute) {
    let tiny = tiny();
    let texts: Vec<&[u32]> = tiny.examples[..32]
        .iter()
        .map(|example| example.tokens.as_slice())
        .collect();
    let labels: Vec<usize> = tiny.examples[..32].iter().map(|e| e.label).collect();
    let batch = Labelled {
        texts: &texts,
        labels: &labels,
        share: 1.0 / 32.0,
    };
    let computed = |compute: &Compute| {
        let encoder = encoder(&tiny.folder, compute);
        let adapted = encoder.adapt(&tiny.adapter.trainable(&tiny.folder.config));
        let logits = encoder.logits(&texts, &adapted);
        let gradients = encoder.gradients(batch, &adapted, None).leaves;
        let gradients: Vec<Vec<f32>> = gradients.into_iter().flatten().map(values).collect();
        (logits, gradients)
    };
    let (logits, gradients) = computed(&Compute::cpu());
    for (precision, logit_tolerance, gradient_tolerance) in TOLERANCES {
        let (found, found_gradients) = computed(&device(precision));
        let off = largest(found.iter().zip(&logits).map(|(a, b)| (a - b).abs()));
        println!("card: {precision} logits off by {off:.1e}, tolerance {logit_tolerance:.1e}");
        assert!(
            found.len() == logits.len() && off <= logit_tolerance,
            "{precision}: {off}"
        );
        assert_eq!(found_gradients.len(), gradients.len());
        let off = largest(
            found_gradients
                .iter()
                .zip(&gradients)
                .map(|(found, known)| {
                    let size = largest(known.iter().map(|value| value.abs()));
                    largest(found.iter().zip(known).map(|(a, b)| (a - b).abs())) / size
                }),
        );
        println!(
            "card: {precision} gradients off by {off:.1e}, tolerance {gradient_tolerance:.1e}"
        );
        assert!(off <= gradient_tolerance, "{precision}: {off}");
    }
}

fn trains_twice_alike(device: impl Fn(Precision) -> Compute) {
    let tiny = tiny();
    for (precision, ..) in TOLERANCES {
        let compute = device(precision);
        let encoder = encoder(&tiny.folder, &compute);
        let settings = TrainSettings {
            learning_rate: 1e-2,
            decay: Decay::Linear,
            b_ratio: 1.0,
            weight_decay: 0.01,
            warmup_steps: 0,
            max_steps: 10,
            batch_size: 32,
            micro_batch_size: None,
            max_grad_norm: Some(1.0),
            dropout: 0.0,
            seed: 3,
        };
        let trained = || {
            let (start, examples) = (tiny.adapter.clone(), &tiny.examples);
            let mut trainer = Trainer::new(&encoder, &compute, settings, start, examples);
            let losses: Vec<f64> = std::iter::from_fn(|| Some(trainer.step()?.loss)).collect();
            let pairs = trainer.adapter().pairs.into_values();
            let numbers: Vec<f32> = pairs.flat_map(|(a, b)| [a.data, b.data].concat()).collect();
            (losses, numbers)
        };
        let ((losses, first), (_, second)) = (trained(), trained());
        assert!(losses[9] < losses[0], "{precision}: {losses:?}");
        let off = largest(first.iter().zip(&second).map(|(a, b)| (a - b).abs()));
        println!("card: {precision} two runs of ten steps differ by {off:.1e} at most");
        assert!(off < 1e-2, "{precision}: {off}");
    }
}

#[test]
fn burns_cpu_device_passes_what_a_card_must() {
    let flex = |precision| Compute::flex().with_precision(precision).unwrap();
    computes_like_the_cpu(flex);
    trains_twice_alike(flex);
}

fn card(precision: Precision) -> Compute {
    let card = Compute::open(DeviceChoice::Cuda(0)).expect("a CUDA card and the feature cuda");
    card.with_precision(precision).unwrap()
}

#[test]
#[ignore = "needs a CUDA card"]
fn a_card_computes_like_the_cpu() {
    computes_like_the_cpu(card);
}

#[test]
#[ignore = "needs a CUDA card"]
fn a_card_trains_twice_alike() {
    trains_twice_alike(card);
}

/// How far the gate loss of the same weights lies apart: what a verifier on another device has to
/// allow for.
#[test]
#[ignore = "needs a CUDA card, and the model folder in CRYO_TEST_MODEL"]
fn the_gate_loss_is_nearly_the_same_on_a_card() {
    let path = std::env::var_os("CRYO_TEST_MODEL").expect("CRYO_TEST_MODEL names a model folder");
    let folder = Folder::load(std::path::Path::new(&path)).unwrap();
    let shape = LoraShape {
        rank: 8,
        alpha: 16.0,
        scaling: Scaling::Standard,
        dropout: 0.0,
        target_modules: vec!["query".into(), "value".into()],
    };
    let adapter = Adapter::start(&shape, &folder.config, None, 2, &Digest::of(b"gate")).unwrap();
    let examples: Vec<Example> = rows(500, 7)
        .lines()
        .skip(1)
        .map(|line| Example {
            tokens: folder.tokenizer.encode(line, 64).unwrap(),
            label: usize::from(line.ends_with('1')),
        })
        .collect();
    let losses = |compute: &Compute| {
        let encoder = encoder(&folder, compute);
        let adapted = encoder.adapt(&adapter.trainable(&folder.config));
        Evaluation::new(&encoder, &adapted, compute, &examples)
            .finish()
            .losses
    };
    let known = losses(&Compute::cpu());
    for (precision, tolerance) in [
        (Precision::F32, 1e-3),
        (Precision::Bf16, 2e-2),
        (Precision::F16, 5e-3),
    ] {
        let found = losses(&card(precision));
        let off: Vec<f64> = found.iter().zip(&known).map(|(a, b)| a - b).collect();
        let mean = off.iter().sum::<f64>() / off.len() as f64;
        let most = off.iter().map(|off| off.abs()).fold(0.0, f64::max);
        println!("card: {precision} gate loss off by {mean:+.2e} in the mean, {most:.2e} at most");
        assert!(mean.abs() < tolerance, "{precision}: {mean}");
    }
}
