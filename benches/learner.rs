//! A training step and an evaluation of MiniLM on real reviews.
//!
//! Needs the model in the cache: `cryo model pull minilm` fetches it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use cryoflux::dataset::{Dataset, LabelColumn};
use cryoflux::digest::Digest;
use cryoflux::learn::{Compute, Embedding, Evaluation, Example, TrainSettings, Trainer};
use cryoflux::model::{Adapter, Encoder, Folder, LoraShape};
use cryoflux::recipe::{Decay, Scaling};

const MINILM: &str = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db";

fn model() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || std::env::home_dir().unwrap().join(".cache"),
        PathBuf::from,
    );
    cache.join("cryoflux/models").join(MINILM)
}

fn learner(criterion: &mut Criterion) {
    let folder = Folder::load(&model()).expect("run `cryo model pull minilm` first");
    let compute = Compute::cpu();
    let encoder = Encoder::new(&folder.config, &folder.weights, &compute.arithmetic);
    let names = ["negative".to_owned(), "positive".to_owned()];
    let label = LabelColumn {
        column: "label",
        names: &names,
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = Dataset::load(root, "data/reviews-gate.csv", "text", Some(label)).unwrap();
    let examples: Vec<Example> = data.rows[..512]
        .iter()
        .map(|row| Example {
            tokens: folder.tokenizer.encode(&row.text, 64).unwrap(),
            label: row.label,
        })
        .collect();
    let shape = LoraShape {
        rank: 8,
        alpha: 16.0,
        scaling: Scaling::Standard,
        dropout: 0.0,
        target_modules: ["query", "key", "value", "attention.output.dense"]
            .map(String::from)
            .to_vec(),
    };
    let start = Adapter::start(&shape, &folder.config, None, 2, &Digest::of(b"bench")).unwrap();
    let settings = TrainSettings {
        learning_rate: 5e-4,
        decay: Decay::Constant,
        b_ratio: 1.0,
        weight_decay: 0.01,
        warmup_steps: 0,
        max_steps: 60,
        batch_size: 32,
        micro_batch_size: None,
        max_grad_norm: None,
        dropout: 0.0,
        seed: 1,
    };

    let mut group = criterion.benchmark_group("minilm");
    group.sample_size(10);
    group.throughput(Throughput::Elements(32));
    group.bench_function("training step of 32", |bench| {
        bench.iter_batched(
            || Trainer::new(&encoder, &compute, settings, start.clone(), &examples),
            |mut trainer| trainer.step(),
            BatchSize::PerIteration,
        );
    });
    let trainable = encoder.adapt(&start.trainable(&folder.config));
    group.throughput(Throughput::Elements(512));
    group.bench_function("evaluation of 512", |bench| {
        bench.iter(|| Evaluation::new(&encoder, &trainable, &compute, &examples).finish());
    });
    let texts: Vec<Vec<u32>> = examples
        .iter()
        .map(|example| example.tokens.clone())
        .collect();
    group.bench_function("embedding of 512", |bench| {
        bench.iter(|| Embedding::new(&encoder, &compute, &texts).finish());
    });
    group.finish();
}

criterion_group!(benches, learner);
criterion_main!(benches);
