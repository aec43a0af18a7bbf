//! Samples per second of training, evaluation and embedding, as one line of JSON:
//! `rates --model FOLDER --data FOLDER [--threads N] [--device cpu|flex|cuda:0]
//! [--precision f32|bf16|f16] [--batch 32,64]`. `benches/peers/run.sh` sets it beside the peers.
//!
//! `flex` is the CPU with burn's own operations in place of the program's kernels.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use clap::Parser;
use cryoflux::dataset::{Dataset, LabelColumn, Row};
use cryoflux::digest::Digest;
use cryoflux::learn::{Compute, Embedding, Evaluation, Example, TrainSettings, Trainer};
use cryoflux::model::{Adapter, Encoder, Folder, LoraShape};
use cryoflux::recipe::{Decay, Precision, Scaling};

/// Texts of an embedding run.
const EMBEDDED: usize = 2000;

#[derive(Parser)]
struct Options {
    #[arg(long)]
    model: String,
    #[arg(long, default_value = "data")]
    data: String,
    #[arg(long)]
    threads: Option<usize>,
    #[arg(long, default_value = "cpu")]
    device: String,
    #[arg(long, default_value = "f32")]
    precision: String,
    #[arg(long, value_delimiter = ',', default_value = "32")]
    batch: Vec<usize>,
    #[arg(long)]
    micro_batch: Option<usize>,
    #[arg(long, default_value_t = 64)]
    max_tokens: usize,
    /// Seconds that each figure is measured for.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Cargo gives this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn compute(options: &Options) -> Compute {
    let compute = match options.device.as_str() {
        "flex" => Compute::flex(),
        name => Compute::open(name.parse().unwrap()).unwrap(),
    };
    let precision: Precision = options.precision.parse().expect("f32, bf16 or f16");
    let compute = compute.with_precision(precision).unwrap();
    match options.threads {
        Some(threads) => compute.with_threads(threads),
        None => compute,
    }
}

fn data(options: &Options, file: &str) -> Dataset {
    let names = ["negative".to_owned(), "positive".to_owned()];
    let label = LabelColumn {
        column: "label",
        names: &names,
    };
    Dataset::load(Path::new(&options.data), file, "text", Some(label)).unwrap()
}

fn examples(folder: &Folder, rows: &[Row], max_tokens: usize) -> Vec<Example> {
    let encode = |text: &str| folder.tokenizer.encode(text, max_tokens).unwrap();
    rows.iter()
        .map(|row| Example {
            tokens: encode(&row.text),
            label: row.label,
        })
        .collect()
}

/// Items per second of `step`, after one step that does not count.
fn rate(seconds: f64, mut step: impl FnMut() -> usize) -> f64 {
    step();
    let (began, mut items) = (Instant::now(), 0);
    while began.elapsed().as_secs_f64() < seconds {
        items += step();
    }
    items as f64 / began.elapsed().as_secs_f64()
}

fn main() {
    let options = Options::parse();
    let compute = compute(&options);
    let folder = Folder::load(Path::new(&options.model)).unwrap();
    let encoder = Encoder::new(&folder.config, &folder.weights, &compute.arithmetic);
    let train = data(&options, "reviews-train.csv").rows;
    let gate = data(&options, "reviews-gate.csv").rows;
    let shape = LoraShape {
        rank: 8,
        alpha: 16.0,
        scaling: Scaling::Standard,
        dropout: 0.0,
        target_modules: ["query", "key", "value", "attention.output.dense"]
            .map(String::from)
            .to_vec(),
    };
    let start = Adapter::start(&shape, &folder.config, None, 2, &Digest::of(b"rates")).unwrap();

    let trained: Vec<(usize, f64)> = options
        .batch
        .iter()
        .map(|&batch_size| {
            let settings = TrainSettings {
                learning_rate: 5e-4,
                decay: Decay::Constant,
                b_ratio: 1.0,
                weight_decay: 0.01,
                warmup_steps: 0,
                max_steps: usize::MAX,
                batch_size,
                micro_batch_size: options.micro_batch,
                max_grad_norm: None,
                dropout: 0.0,
                seed: 1,
            };
            let many = examples(&folder, &train, options.max_tokens);
            let mut trainer = Trainer::new(&encoder, &compute, settings, start.clone(), &many);
            let rate = rate(options.seconds, || {
                let first = trainer.examples_used() % train.len();
                // The trainer takes token ids; making them is part of the work, as for the peer.
                let rows = first..(first + batch_size).min(train.len());
                black_box(examples(&folder, &train[rows], options.max_tokens));
                trainer.step();
                batch_size
            });
            (batch_size, rate)
        })
        .collect();
    let (batch_size, training) = *trained.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();

    let adapted = encoder.adapt(&start.trainable(&folder.config));
    let evaluation = rate(options.seconds, || {
        let gate = examples(&folder, &gate, options.max_tokens);
        Evaluation::new(&encoder, &adapted, &compute, &gate).finish();
        gate.len()
    });
    let embedding = rate(options.seconds, || {
        let texts = train[..EMBEDDED].iter().map(|row| row.text.as_str());
        let texts = folder
            .tokenizer
            .encode_all(texts, folder.embed_tokens)
            .unwrap();
        Embedding::new(&encoder, &compute, &texts).finish();
        texts.len()
    });
    println!(
        "{}",
        serde_json::json!({
            "device": options.device,
            "backend": compute.backend,
            "precision": options.precision,
            "threads": compute.threads,
            "batch_size": batch_size,
            "train_by_batch_size": trained,
            "train_samples_per_second": training,
            "eval_samples_per_second": evaluation,
            "embed_texts_per_second": embedding,
        })
    );
}
