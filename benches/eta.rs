//! What a training step buys, by setting: the loss on the tune split every ten steps, as a table
//! (`eta --model FOLDER --data FOLDER [--only NAME]`). The cost is counted in training samples,
//! which take the same time and energy whatever the batch. The gate split is not looked at:
//! defaults chosen on it would make it worthless.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::path::Path;

use clap::Parser;
use cryoflux::dataset::{Dataset, LabelColumn};
use cryoflux::digest::Digest;
use cryoflux::learn::{Compute, Evaluation, Example, TrainSettings, Trainer};
use cryoflux::model::{Adapter, Encoder, Folder, LoraShape, ModelConfig};
use cryoflux::recipe::{Decay, Layers, Scaling};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};

const LOOKS: usize = 6;

#[derive(Parser)]
struct Options {
    #[arg(long)]
    model: String,
    #[arg(long, default_value = "data")]
    data: String,
    /// Only the variants whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
    #[arg(long, default_value_t = 2)]
    seeds: u64,
    /// Training samples in all; the step size decays over them.
    #[arg(long, default_value_t = 1920)]
    samples: usize,
    /// Cargo gives this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

struct Variant {
    name: &'static str,
    settings: TrainSettings,
    shape: LoraShape,
}

fn small(settings: &mut TrainSettings) {
    settings.batch_size = 8;
    settings.learning_rate = 2e-3;
    settings.decay = Decay::Linear;
}

fn variants(config: &ModelConfig, samples: usize) -> Vec<Variant> {
    let settings = TrainSettings {
        learning_rate: 5e-4,
        decay: Decay::Constant,
        b_ratio: 1.0,
        weight_decay: 0.01,
        warmup_steps: 0,
        max_steps: samples / 32,
        batch_size: 32,
        micro_batch_size: None,
        max_grad_norm: None,
        dropout: 0.0,
        seed: 1,
    };
    let targets = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let attention: Vec<String> = targets(&["query", "key", "value", "attention.output.dense"]);
    let shape = LoraShape {
        rank: 8,
        alpha: 16.0,
        scaling: Scaling::Standard,
        dropout: 0.0,
        target_modules: attention.clone(),
    };
    let last = |shape: &LoraShape, layers| {
        shape
            .clone()
            .in_layers(Layers::Last(layers), config)
            .unwrap()
    };
    let variant = |name, change: &dyn Fn(&mut TrainSettings, &mut LoraShape)| {
        let (mut settings, mut shape) = (settings, shape.clone());
        change(&mut settings, &mut shape);
        settings.max_steps = samples / settings.batch_size;
        Variant {
            name,
            settings,
            shape,
        }
    };
    vec![
        variant("as before: 5e-4, batch 32", &|_, _| {}),
        variant("rate 1e-3", &|s, _| s.learning_rate = 1e-3),
        variant("rate 2e-3", &|s, _| s.learning_rate = 2e-3),
        variant("rate 4e-3", &|s, _| s.learning_rate = 4e-3),
        variant("rate 2e-3, linear", &|s, _| {
            s.learning_rate = 2e-3;
            s.decay = Decay::Linear;
        }),
        variant("rate 2e-3, cosine", &|s, _| {
            s.learning_rate = 2e-3;
            s.decay = Decay::Cosine;
        }),
        variant("rate 2e-3, linear, warm-up 6", &|s, _| {
            s.learning_rate = 2e-3;
            s.decay = Decay::Linear;
            s.warmup_steps = 6;
        }),
        variant("LoRA+ 4", &|s, _| s.b_ratio = 4.0),
        variant("LoRA+ 16", &|s, _| s.b_ratio = 16.0),
        variant("rate 1e-3, LoRA+ 4, linear", &|s, _| {
            s.learning_rate = 1e-3;
            s.b_ratio = 4.0;
            s.decay = Decay::Linear;
        }),
        variant("rsLoRA", &|_, shape| shape.scaling = Scaling::RsLora),
        variant("batch 16, rate 1e-3, linear", &|s, _| {
            s.batch_size = 16;
            s.learning_rate = 1e-3;
            s.decay = Decay::Linear;
        }),
        variant("batch 8, rate 1e-3, linear", &|s, _| {
            s.batch_size = 8;
            s.learning_rate = 1e-3;
            s.decay = Decay::Linear;
        }),
        variant("batch 8, rate 5e-4, linear", &|s, _| {
            s.batch_size = 8;
            s.decay = Decay::Linear;
        }),
        variant("batch 8, rate 2e-3, linear", &|s, _| {
            s.batch_size = 8;
            s.learning_rate = 2e-3;
            s.decay = Decay::Linear;
        }),
        variant("batch 8, rate 4e-3, linear", &|s, _| {
            small(s);
            s.learning_rate = 4e-3;
        }),
        variant("batch 4, rate 1e-3, linear", &|s, _| {
            small(s);
            s.batch_size = 4;
            s.learning_rate = 1e-3;
        }),
        variant("batch 4, rate 2e-3, linear", &|s, _| {
            small(s);
            s.batch_size = 4;
        }),
        variant("batch 8, rate 2e-3, constant", &|s, _| {
            small(s);
            s.decay = Decay::Constant;
        }),
        variant("batch 8, rate 2e-3, linear, clipped at 1", &|s, _| {
            small(s);
            s.max_grad_norm = Some(1.0);
        }),
        variant("batch 8, rate 2e-3, linear, warm-up 10", &|s, _| {
            small(s);
            s.warmup_steps = 10;
        }),
        variant("batch 8, rate 1e-3, linear, LoRA+ 4", &|s, _| {
            small(s);
            s.learning_rate = 1e-3;
            s.b_ratio = 4.0;
        }),
        variant("batch 8, rate 2e-3, linear, rank 4", &|s, shape| {
            small(s);
            (shape.rank, shape.alpha) = (4, 8.0);
        }),
        variant("batch 8, rate 2e-3, linear, rank 16", &|s, shape| {
            small(s);
            (shape.rank, shape.alpha) = (16, 32.0);
        }),
        variant(
            "batch 8, rate 2e-3, linear, query and value",
            &|s, shape| {
                small(s);
                shape.target_modules = vec!["query".into(), "value".into()];
            },
        ),
        variant(
            "batch 8, rate 2e-3, linear, feed-forward too",
            &|s, shape| {
                small(s);
                let more = ["intermediate.dense", "output.dense"].map(String::from);
                shape.target_modules = [&attention[..3], &more].concat();
            },
        ),
        variant("batch 8, rate 2e-3, linear, last 4 layers", &|s, shape| {
            small(s);
            *shape = last(shape, 4);
        }),
        variant("batch 8, rate 2e-3, linear, last 2 layers", &|s, shape| {
            small(s);
            *shape = last(shape, 2);
        }),
    ]
}

fn rows(folder: &Folder, options: &Options, file: &str) -> Vec<Example> {
    let names = ["negative".to_owned(), "positive".to_owned()];
    let label = LabelColumn {
        column: "label",
        names: &names,
    };
    let data = Dataset::load(Path::new(&options.data), file, "text", Some(label)).unwrap();
    let rows = data.rows.iter();
    rows.map(|row| Example {
        tokens: folder.tokenizer.encode(&row.text, 64).unwrap(),
        label: row.label,
    })
    .collect()
}

fn shuffled(rows: &[Example], seed: u64, count: usize) -> Vec<Example> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut keyed: Vec<(u64, &Example)> = rows.iter().map(|row| (random.next_u64(), row)).collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed
        .into_iter()
        .take(count)
        .map(|(_, row)| row.clone())
        .collect()
}

fn main() {
    let options = Options::parse();
    let compute = Compute::cpu();
    let folder = Folder::load(Path::new(&options.model)).unwrap();
    let encoder = Encoder::new(&folder.config, &folder.weights, &compute.arithmetic);
    let train = rows(&folder, &options, "reviews-train.csv");
    let tune = rows(&folder, &options, "reviews-tune.csv");
    println!(
        "gain on the tune split in nats, mean of {} seeds, after so many training samples",
        options.seeds
    );
    print!("{:44}", "");
    (1..=LOOKS).for_each(|look| print!("{:>8}", look * options.samples / LOOKS));
    println!();
    for variant in variants(&folder.config, options.samples) {
        if !variant.name.contains(&options.only) {
            continue;
        }
        let mut gains = [0.0; LOOKS];
        for seed in 0..options.seeds {
            let chosen = shuffled(&train, seed, options.samples);
            let digest = Digest::of(&seed.to_le_bytes());
            let start = Adapter::start(&variant.shape, &folder.config, None, 2, &digest).unwrap();
            let mut trainer = Trainer::new(&encoder, &compute, variant.settings, start, &chosen);
            for (look, gain) in gains.iter_mut().enumerate() {
                while trainer.examples_used() < (look + 1) * options.samples / LOOKS
                    && trainer.step().is_some()
                {}
                let outcome =
                    Evaluation::new(&encoder, &trainer.adapted(), &compute, &tune).finish();
                let loss = outcome.losses.iter().sum::<f64>() / tune.len() as f64;
                *gain += (2_f64.ln() - loss) / options.seeds as f64;
            }
        }
        print!("{:44}", variant.name);
        gains.iter().for_each(|gain| print!("{gain:8.4}"));
        println!();
    }
}
