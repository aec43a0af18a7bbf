//! A Hugging Face folder: `config.json`, `tokenizer.json`, `model.safetensors`, and what stands
//! beside them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::array::{Array, ArrayError, read_safetensors, write_safetensors};
use super::config::{Architecture, ConfigError, ModelConfig};
use super::manifest::{COMPANIONS, MODEL_FILE, Manifest, ManifestError};
use super::tokenizer::{TextTokenizer, TokenizerError};
use crate::digest::Digest;
use crate::files::{self, FileError, Staging};

const CONFIG_FILE: &str = "config.json";
const TOKENIZER_FILE: &str = "tokenizer.json";
const SENTENCE_FILE: &str = "sentence_bert_config.json";

/// Any text will do to see the tokens around it.
const PROBE: &str = "a text";

/// A model folder in memory.
pub struct Folder {
    /// Where it was read from.
    pub path: PathBuf,
    /// Its shape.
    pub config: ModelConfig,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    /// Encoder weights without the family's prefix, and the head's under their own names.
    pub weights: BTreeMap<String, Array>,
    /// The files that were read.
    pub manifest: Manifest,
    /// Their name.
    pub name: Digest,
    /// SHA-256 of `model.safetensors`.
    pub weights_hash: Digest,
    /// Longest text for embeddings, in tokens.
    pub embed_tokens: usize,
    /// What a version takes along as it is, by file.
    kept: BTreeMap<&'static str, Vec<u8>>,
}

/// A model folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not the folder that it must be.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Its configuration cannot be used.
    #[error("{}: {cause}", folder.display())]
    Config {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        cause: ConfigError,
    },
    /// Its tokenizer cannot be used.
    #[error("{}: {cause}", folder.display())]
    Tokenizer {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        cause: TokenizerError,
    },
    /// Its tokenizer gives ids that its embeddings lack.
    #[error("{}: tokenizer.json has token ids up to {highest}, but the embedding table has {rows} rows, from id 0 on", folder.display())]
    Words {
        /// The folder.
        folder: PathBuf,
        /// The highest id.
        highest: u32,
        /// Rows of the table, from id 0 on.
        rows: usize,
    },
    /// Its weights cannot be used.
    #[error("{}: {cause}", file.display())]
    Weights {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        cause: ArrayError,
    },
    /// A tensor is not there.
    #[error("{} has no tensor `{name}`", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor does not have the shape that the configuration calls for.
    #[error("{}: tensor `{name}` has shape {found:?}, config.json calls for {expected:?}", file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
}

impl Folder {
    /// Reads a folder and checks that every tensor is there in its shape.
    ///
    /// # Errors
    /// Names the file, and the tensor where it is one.
    pub fn load(path: &Path) -> Result<Self, FolderError> {
        let config_bytes = files::read(&path.join(CONFIG_FILE))?;
        let tokenizer_bytes = files::read(&path.join(TOKENIZER_FILE))?;
        let (config, tokenizer) = words(path, &config_bytes, &tokenizer_bytes)?;
        let mut kept = BTreeMap::from([(TOKENIZER_FILE, tokenizer_bytes)]);
        for name in COMPANIONS {
            if let Some(bytes) = files::read_regular(&path.join(name))? {
                kept.insert(name, bytes);
            }
        }
        let bytes = files::read(&path.join(MODEL_FILE))?;
        let weights = weights(&path.join(MODEL_FILE), &bytes, &config)?;
        let weights_hash = Digest::of(&bytes);
        let manifest = manifest(&config_bytes, &kept, weights_hash);
        Ok(Self {
            path: path.to_owned(),
            name: manifest.name(),
            embed_tokens: embed_tokens(&kept)
                .unwrap_or(config.max_positions)
                .min(config.max_positions),
            config,
            tokenizer,
            weights,
            manifest,
            weights_hash,
            kept,
        })
    }

    /// Reads the folder of this name.
    ///
    /// # Errors
    /// Names the first file that makes it another one, also if it can no longer be read as a
    /// model.
    pub fn load_named(path: &Path, name: Digest) -> Result<Self, FolderError> {
        let listed = Manifest::read_named(path, &name)?;
        match Self::load(path) {
            Ok(folder) if folder.name == name => Ok(folder),
            Ok(folder) => {
                listed.compare(&folder.manifest, path)?;
                Err(ManifestError::Unknown(path.to_owned()).into())
            }
            Err(error) => {
                Manifest::check(path, &name)?;
                Err(error)
            }
        }
    }

    /// The configuration and the tokenizer, which must fit each other.
    ///
    /// # Errors
    /// When one of them cannot be used, or a token has no embedding.
    pub fn read_words(path: &Path) -> Result<(ModelConfig, TextTokenizer), FolderError> {
        let config = files::read(&path.join(CONFIG_FILE))?;
        words(path, &config, &files::read(&path.join(TOKENIZER_FILE))?)
    }

    /// The head's tensors under their full names; `None` when the folder has no trained head for
    /// these labels.
    pub fn head(&self, labels: &[String]) -> Option<BTreeMap<String, Array>> {
        if self.config.labels.as_deref() != Some(labels) {
            return None;
        }
        head_shapes(&self.config, labels.len())
            .into_iter()
            .map(|(name, shape)| {
                let array = self.weights.get(&name)?;
                (array.shape == shape).then(|| (name, array.clone()))
            })
            .collect()
    }
}

fn words(
    path: &Path,
    config: &[u8],
    tokenizer: &[u8],
) -> Result<(ModelConfig, TextTokenizer), FolderError> {
    let folder = || path.to_owned();
    let config = ModelConfig::parse(config).map_err(|cause| FolderError::Config {
        folder: folder(),
        cause,
    })?;
    let unusable = |cause| FolderError::Tokenizer {
        folder: folder(),
        cause,
    };
    let tokenizer = TextTokenizer::parse(tokenizer, config.vocabulary).map_err(unusable)?;
    match tokenizer.highest_id() {
        Some(highest) if highest as usize >= config.vocabulary => Err(FolderError::Words {
            folder: folder(),
            highest,
            rows: config.vocabulary,
        }),
        _ => {
            // The special tokens around a text are in no vocabulary.
            tokenizer.count(PROBE).map_err(unusable)?;
            Ok((config, tokenizer))
        }
    }
}

fn weights(
    file: &Path,
    bytes: &[u8],
    config: &ModelConfig,
) -> Result<BTreeMap<String, Array>, FolderError> {
    let arrays = read_safetensors(bytes).map_err(|cause| FolderError::Weights {
        file: file.to_owned(),
        cause,
    })?;
    let prefix = config.prefix();
    let weights: BTreeMap<String, Array> = arrays
        .into_iter()
        .map(|(name, array)| match name.strip_prefix(prefix) {
            Some(rest) => (rest.to_owned(), array),
            None => (name, array),
        })
        .collect();
    for (name, expected) in expected_shapes(config) {
        let array = weights.get(&name).ok_or_else(|| FolderError::Missing {
            file: file.to_owned(),
            name: name.clone(),
        })?;
        if array.shape != expected {
            return Err(FolderError::Shape {
                file: file.to_owned(),
                name,
                found: array.shape.clone(),
                expected,
            });
        }
    }
    Ok(weights)
}

fn manifest(config: &[u8], kept: &BTreeMap<&str, Vec<u8>>, weights: Digest) -> Manifest {
    let mut manifest = Manifest::default();
    for (name, bytes) in kept {
        manifest.insert(name, Digest::of(bytes));
    }
    manifest.insert(CONFIG_FILE, Digest::of(config));
    manifest.insert(MODEL_FILE, weights);
    manifest
}

fn embed_tokens(kept: &BTreeMap<&str, Vec<u8>>) -> Option<usize> {
    let sentence: serde_json::Value = serde_json::from_slice(kept.get(SENTENCE_FILE)?).ok()?;
    let tokens = usize::try_from(sentence.get("max_seq_length")?.as_u64()?).ok()?;
    // A text of no tokens is none.
    (tokens > 0).then_some(tokens)
}

/// Names and shapes of the encoder's tensors.
fn expected_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (hidden, wide) = (config.hidden, config.intermediate);
    let mut shapes = vec![
        (
            "embeddings.word_embeddings.weight".to_owned(),
            vec![config.vocabulary, hidden],
        ),
        (
            "embeddings.position_embeddings.weight".to_owned(),
            vec![config.max_positions, hidden],
        ),
    ];
    let mut dense = |name: &str, inputs: usize, outputs: usize| {
        shapes.push((format!("{name}.weight"), vec![outputs, inputs]));
        shapes.push((format!("{name}.bias"), vec![outputs]));
    };
    for (at, name) in config.linear_names().iter().enumerate() {
        match at % 6 {
            4 => dense(name, hidden, wide),
            5 => dense(name, wide, hidden),
            _ => dense(name, hidden, hidden),
        }
    }
    if config.architecture == Architecture::Bert {
        dense("pooler.dense", hidden, hidden);
    }
    for name in norm_names(config) {
        shapes.push((format!("{name}.weight"), vec![hidden]));
        shapes.push((format!("{name}.bias"), vec![hidden]));
    }
    shapes
}

/// Names of the layer norms: the embeddings' first, then two per layer.
pub(super) fn norm_names(config: &ModelConfig) -> Vec<String> {
    let (layer, parts) = match config.architecture {
        Architecture::Bert => (
            "encoder.layer",
            ["attention.output.LayerNorm", "output.LayerNorm"],
        ),
        Architecture::DistilBert => ("transformer.layer", ["sa_layer_norm", "output_layer_norm"]),
    };
    let in_layers =
        (0..config.layers).flat_map(|at| parts.map(|part| format!("{layer}.{at}.{part}")));
    std::iter::once("embeddings.LayerNorm".to_owned())
        .chain(in_layers)
        .collect()
}

/// Names and shapes of the head's tensors.
pub(super) fn head_shapes(config: &ModelConfig, classes: usize) -> Vec<(String, Vec<usize>)> {
    config
        .head_shapes(classes)
        .into_iter()
        .flat_map(|layer| {
            [
                (
                    format!("{}.weight", layer.name),
                    vec![layer.outputs, layer.inputs],
                ),
                (format!("{}.bias", layer.name), vec![layer.outputs]),
            ]
        })
        .collect()
}

/// Writes a complete folder with a head into a staging area: weights under their full names, the
/// base's tokenizer and small files, a configuration with the labels, and the list of them all.
///
/// # Errors
/// When a file cannot be written.
pub fn write_folder(
    staging: &Staging,
    base: &Folder,
    weights: &BTreeMap<String, Cow<'_, Array>>,
    labels: &[String],
) -> Result<Manifest, FolderError> {
    let weights = weight_bytes(&base.config, weights, labels.len(), &base.path)?;
    let config = base.config.with_labels(labels).to_json();
    let manifest = manifest(config.as_bytes(), &base.kept, Digest::of(&weights));
    staging.write(CONFIG_FILE, config.as_bytes())?;
    for (name, bytes) in &base.kept {
        staging.write(name, bytes)?;
    }
    staging.write(MODEL_FILE, &weights)?;
    manifest.write(staging)?;
    Ok(manifest)
}

fn weight_bytes(
    config: &ModelConfig,
    weights: &BTreeMap<String, Cow<'_, Array>>,
    classes: usize,
    path: &Path,
) -> Result<Vec<u8>, FolderError> {
    let head: Vec<String> = head_shapes(config, classes)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let full: BTreeMap<String, &Array> = weights
        .iter()
        .map(|(name, array)| {
            let name = if head.contains(name) {
                name.clone()
            } else {
                format!("{}{name}", config.prefix())
            };
            (name, &**array)
        })
        .collect();
    write_safetensors(&full).map_err(|cause| FolderError::Weights {
        file: path.join(MODEL_FILE),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_of_another_name_is_refused_by_the_file_that_makes_it_so() {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert-tiny");
        let base = Folder::load(&tiny).unwrap();
        let target = tempfile::tempdir().unwrap();
        let path = target.path().join("version");
        let staging = Staging::new(&path).unwrap();
        let mut weights = base.weights.clone();
        for (name, shape) in head_shapes(&base.config, 2) {
            weights.insert(name, Array::zeros(&shape));
        }
        let weights = weights
            .iter()
            .map(|(name, array)| (name.clone(), Cow::Borrowed(array)))
            .collect();
        let labels = ["no", "yes"].map(String::from);
        let name = write_folder(&staging, &base, &weights, &labels)
            .unwrap()
            .name();
        staging.commit().unwrap();
        assert_eq!(Folder::load_named(&path, name).unwrap().name, name);
        let refused = |file: &str, change: &dyn Fn(String) -> String| {
            let whole = fs::read(path.join(file)).ok();
            let text = whole.as_deref().map(String::from_utf8_lossy);
            fs::write(path.join(file), change(text.unwrap_or_default().into())).unwrap();
            let error = Folder::load_named(&path, name).err().unwrap();
            match whole {
                Some(whole) => fs::write(path.join(file), whole).unwrap(),
                None => fs::remove_file(path.join(file)).unwrap(),
            }
            let of_the_list = matches!(error, FolderError::Manifest(_));
            assert!(of_the_list && error.to_string().contains(file), "{error}");
        };
        // Still a model, and one that answers the opposite.
        refused("config.json", &|text| {
            let swapped = text.replace("\"no\"", "\"other\"");
            swapped
                .replace("\"yes\"", "\"no\"")
                .replace("\"other\"", "\"yes\"")
        });
        refused("tokenizer.json", &|text| text + " ");
        // A model no longer.
        refused("tokenizer.json", &|_| String::new());
        refused(MODEL_FILE, &|_| "cut".to_owned());
        refused("SHA256SUMS", &|text| text.to_uppercase());
        // More than it was.
        refused(SENTENCE_FILE, &|_| "{\"max_seq_length\": 2}".to_owned());
        Folder::load_named(&path, name).unwrap();
    }
}
