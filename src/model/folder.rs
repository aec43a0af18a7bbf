//! A Hugging Face folder: `config.json`, `tokenizer.json`, `model.safetensors`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::array::{Array, ArrayError, read_safetensors, write_safetensors};
use super::config::{Architecture, ConfigError, ModelConfig};
use super::tokenizer::{TextTokenizer, TokenizerError};
use crate::digest::Digest;
use crate::files::{self, FileError, Staging};

/// The weights' file name.
pub const MODEL_FILE: &str = "model.safetensors";
const SENTENCE_FILE: &str = "sentence_bert_config.json";
/// Small files that other programs like to find beside the weights.
const COMPANIONS: [&str; 4] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    SENTENCE_FILE,
];

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
    /// SHA-256 of `model.safetensors`.
    pub hash: Digest,
    /// Longest text for embeddings, in tokens.
    pub embed_tokens: usize,
}

/// A model folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
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
        let (config, tokenizer) = Self::read_words(path)?;
        let file = path.join(MODEL_FILE);
        let bytes = files::read(&file)?;
        let hash = Digest::of(&bytes);
        let arrays = read_safetensors(&bytes).map_err(|cause| FolderError::Weights {
            file: file.clone(),
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
        for (name, expected) in expected_shapes(&config) {
            let array = weights.get(&name).ok_or_else(|| FolderError::Missing {
                file: file.clone(),
                name: name.clone(),
            })?;
            if array.shape != expected {
                return Err(FolderError::Shape {
                    file,
                    name,
                    found: array.shape.clone(),
                    expected,
                });
            }
        }
        let embed_tokens = embed_tokens(path)
            .unwrap_or(config.max_positions)
            .min(config.max_positions);
        Ok(Self {
            path: path.to_owned(),
            config,
            tokenizer,
            weights,
            hash,
            embed_tokens,
        })
    }

    /// The configuration and the tokenizer, which must fit each other.
    ///
    /// # Errors
    /// When one of them cannot be used, or a token has no embedding.
    pub fn read_words(path: &Path) -> Result<(ModelConfig, TextTokenizer), FolderError> {
        let folder = || path.to_owned();
        let config =
            ModelConfig::parse(&files::read(&path.join("config.json"))?).map_err(|cause| {
                FolderError::Config {
                    folder: folder(),
                    cause,
                }
            })?;
        let bytes = files::read(&path.join("tokenizer.json"))?;
        let unusable = |cause| FolderError::Tokenizer {
            folder: folder(),
            cause,
        };
        let tokenizer = TextTokenizer::parse(&bytes, config.vocabulary).map_err(unusable)?;
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

fn embed_tokens(folder: &Path) -> Option<usize> {
    let bytes = files::read_if_there(&folder.join(SENTENCE_FILE)).ok()??;
    let sentence: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    usize::try_from(sentence.get("max_seq_length")?.as_u64()?).ok()
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
/// base's tokenizer and small files, and a configuration with the labels. Returns the hash of
/// the weights.
///
/// # Errors
/// When a file cannot be read or written.
pub fn write_folder(
    staging: &Staging,
    base: &Folder,
    weights: &BTreeMap<String, Cow<'_, Array>>,
    labels: &[String],
) -> Result<Digest, FolderError> {
    let bytes = weight_bytes(&base.config, weights, labels.len(), &base.path)?;
    staging.write(
        "config.json",
        base.config.with_labels(labels).to_json().as_bytes(),
    )?;
    staging.write(
        "tokenizer.json",
        &files::read(&base.path.join("tokenizer.json"))?,
    )?;
    for name in COMPANIONS {
        if let Some(content) = files::read_if_there(&base.path.join(name))? {
            staging.write(name, &content)?;
        }
    }
    staging.write(MODEL_FILE, &bytes)?;
    Ok(Digest::of(&bytes))
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
