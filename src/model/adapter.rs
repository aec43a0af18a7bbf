//! Adapters in PEFT's format, so that `peft` loads what is written here and the reverse.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::array::{Array, ArrayError, read_safetensors, write_safetensors};
use super::config::{LINEARS_PER_LAYER, ModelConfig};
use super::encoder::{Head, Lora, Trainable};
use super::folder::head_shapes;
use super::manifest::{Manifest, ManifestError};
use crate::digest::Digest;
use crate::files::{self, FileError, Staging};
use crate::recipe::{Layers, Scaling};

const WEIGHTS_FILE: &str = "adapter_model.safetensors";
const CONFIG_FILE: &str = "adapter_config.json";
/// The files of an adapter in PEFT's format.
pub const ADAPTER_FILES: [&str; 2] = [CONFIG_FILE, WEIGHTS_FILE];
const PEFT_PREFIX: &str = "base_model.model.";
/// Uniform numbers up to this size have the standard deviation 0.02 of BERT's own start.
const HEAD_BOUND: f32 = 0.034_641_016;

/// What an adapter looks like, in PEFT's words.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraShape {
    /// Inner width.
    pub rank: usize,
    /// The update is scaled by this, over the rank or its root.
    pub alpha: f64,
    /// By which of the two.
    pub scaling: Scaling,
    /// Dropout on the input while training.
    pub dropout: f64,
    /// Endings of the names of the linear layers to adapt.
    pub target_modules: Vec<String>,
}

/// An adapter on the host: LoRA pairs and the head that was trained along.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// Its shape.
    pub shape: LoraShape,
    /// Per linear layer: A [rank, inputs] and B [outputs, rank].
    pub pairs: BTreeMap<String, (Array, Array)>,
    /// The head's tensors under their full names.
    pub head: BTreeMap<String, Array>,
}

/// An adapter that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its weights are not safetensors of floats.
    #[error("{}: {cause}", file.display())]
    Weights {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        cause: ArrayError,
    },
    /// Its configuration cannot be used.
    #[error("{}: {cause}", file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A target name fits no linear layer.
    #[error("no linear layer of this model matches target module `{name}`; available: {known}")]
    NoSuchModule {
        /// The name.
        name: String,
        /// The endings that exist.
        known: String,
    },
    /// It is not the one that was meant.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A tensor is missing, or does not fit the model.
    #[error("{}: tensor `{name}` {what}", file.display())]
    Tensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong with it.
        what: String,
    },
}

#[derive(Serialize, Deserialize)]
struct PeftConfig {
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    #[serde(default)]
    use_rslora: bool,
    target_modules: Vec<String>,
}

impl LoraShape {
    /// What PEFT's configuration says.
    fn read(file: PathBuf) -> Result<Self, AdapterError> {
        let bytes = files::read(&file)?;
        let read: Result<PeftConfig, _> = serde_json::from_slice(&bytes);
        let peft = read.map_err(|error| AdapterError::Config {
            file,
            cause: error.to_string(),
        })?;
        Ok(Self {
            rank: peft.r,
            alpha: peft.lora_alpha,
            scaling: if peft.use_rslora {
                Scaling::RsLora
            } else {
                Scaling::Standard
            },
            dropout: peft.lora_dropout,
            target_modules: peft.target_modules,
        })
    }

    /// The text of PEFT's configuration.
    pub fn to_peft(&self, config: &ModelConfig, base: &str) -> String {
        let modules_to_save: Vec<&str> = config
            .head_shapes(1)
            .iter()
            .map(|layer| layer.name)
            .collect();
        let peft = json!({
            "base_model_name_or_path": base,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "modules_to_save": modules_to_save,
            "peft_type": "LORA",
            "r": self.rank,
            "target_modules": self.target_modules,
            "task_type": "SEQ_CLS",
            "use_rslora": self.scaling == Scaling::RsLora,
        });
        format!("{peft:#}\n")
    }

    /// What the low-rank product is multiplied with.
    pub fn scale(&self) -> f64 {
        self.scaling.factor(self.alpha, self.rank)
    }

    /// With the target layers of the last layers of a model alone. They are named in full, which
    /// PEFT understands as it does endings.
    ///
    /// # Errors
    /// When a target names no layer.
    pub fn in_layers(mut self, layers: Layers, config: &ModelConfig) -> Result<Self, AdapterError> {
        if layers == Layers::All {
            return Ok(self);
        }
        let names = config.linear_names();
        let first = layers.first(config.layers);
        self.target_modules = self
            .targets(config)?
            .into_iter()
            .filter(|at| at / LINEARS_PER_LAYER >= first)
            .map(|at| names[at].clone())
            .collect();
        Ok(self)
    }

    /// Indices of the linear layers that the targets name, with PEFT's rule: a name equals the
    /// target, or ends in `.` and the target.
    ///
    /// # Errors
    /// When a target names none.
    pub fn targets(&self, config: &ModelConfig) -> Result<Vec<usize>, AdapterError> {
        let names = config.linear_names();
        let fits = |name: &str, target: &str| {
            name == target
                || name
                    .strip_suffix(target)
                    .is_some_and(|rest| rest.ends_with('.'))
        };
        for target in &self.target_modules {
            if !names.iter().any(|name| fits(name, target)) {
                let layer: Vec<&str> = names[..LINEARS_PER_LAYER]
                    .iter()
                    .filter_map(|name| name.split_once(".0.").map(|(_, rest)| rest))
                    .collect();
                return Err(AdapterError::NoSuchModule {
                    name: target.clone(),
                    known: layer.join(", "),
                });
            }
        }
        Ok((0..names.len())
            .filter(|&at| {
                self.target_modules
                    .iter()
                    .any(|target| fits(&names[at], target))
            })
            .collect())
    }
}

impl Adapter {
    /// A new adapter that changes no layer yet: A random (Kaiming uniform, as in PEFT), B zero,
    /// and the head of the model, or a small random one.
    ///
    /// # Errors
    /// When a target names no layer.
    pub fn start(
        shape: &LoraShape,
        config: &ModelConfig,
        head: Option<BTreeMap<String, Array>>,
        classes: usize,
        seed: &Digest,
    ) -> Result<Self, AdapterError> {
        let mut random = ChaCha8Rng::from_seed(*seed.bytes());
        let names = config.linear_names();
        let pairs = shape
            .targets(config)?
            .into_iter()
            .map(|at| {
                let (inputs, outputs) = linear_size(config, at);
                let bound = 1.0 / (inputs as f32).sqrt();
                let a = Array {
                    shape: vec![shape.rank, inputs],
                    data: uniform(&mut random, shape.rank * inputs, bound),
                };
                (names[at].clone(), (a, Array::zeros(&[outputs, shape.rank])))
            })
            .collect();
        let head = head.unwrap_or_else(|| {
            head_shapes(config, classes)
                .into_iter()
                .map(|(name, shape)| {
                    let array = if name.ends_with(".weight") {
                        Array {
                            data: uniform(&mut random, shape.iter().product(), HEAD_BOUND),
                            shape,
                        }
                    } else {
                        Array::zeros(&shape)
                    };
                    (name, array)
                })
                .collect()
        });
        Ok(Self {
            shape: shape.clone(),
            pairs,
            head,
        })
    }

    /// No LoRA at all: a model as it is, with its head.
    pub fn head_only(head: BTreeMap<String, Array>) -> Self {
        Self {
            shape: LoraShape {
                rank: 1,
                alpha: 1.0,
                scaling: Scaling::Standard,
                dropout: 0.0,
                target_modules: Vec::new(),
            },
            pairs: BTreeMap::new(),
            head,
        }
    }

    /// In the order and layout that encoders compute with.
    pub fn trainable(&self, config: &ModelConfig) -> Trainable<Array> {
        let loras = config
            .linear_names()
            .iter()
            .map(|name| {
                let (a, b) = self.pairs.get(name)?;
                Some(Lora {
                    a: a.transposed(),
                    b: b.transposed(),
                })
            })
            .collect();
        let layers = config
            .head_shapes(1)
            .iter()
            .map(|layer| {
                let weight = &self.head[&format!("{}.weight", layer.name)];
                let bias = &self.head[&format!("{}.bias", layer.name)];
                (weight.transposed(), bias.clone())
            })
            .collect();
        Trainable {
            loras,
            scale: self.shape.scale(),
            head: Head { layers },
        }
    }

    /// The same adapter with the values of `leaves`, which are in the order of
    /// [`Trainable::leaves`] and in its layout.
    ///
    /// # Panics
    /// When there are fewer arrays than leaves.
    pub fn with_leaves(&self, config: &ModelConfig, leaves: Vec<Vec<f32>>) -> Self {
        let mut rest = leaves.into_iter();
        let mut next = |shape: &[usize]| {
            let data = rest.next().expect("as many arrays as leaves");
            match *shape {
                // On the device a matrix is [inputs, outputs], in the file [outputs, inputs].
                [outputs, inputs] => Array {
                    shape: vec![inputs, outputs],
                    data,
                }
                .transposed(),
                _ => Array {
                    shape: shape.to_vec(),
                    data,
                },
            }
        };
        let mut adapter = self.clone();
        for name in config.linear_names() {
            if let Some((a, b)) = adapter.pairs.get_mut(&name) {
                *a = next(&a.shape);
                *b = next(&b.shape);
            }
        }
        for layer in config.head_shapes(1) {
            for part in ["weight", "bias"] {
                if let Some(array) = adapter.head.get_mut(&format!("{}.{part}", layer.name)) {
                    *array = next(&array.shape);
                }
            }
        }
        adapter
    }

    /// The bytes of `adapter_model.safetensors`; their digest names the adapter.
    ///
    /// # Errors
    /// When the format refuses the arrays.
    pub fn weight_bytes(&self, config: &ModelConfig) -> Result<Vec<u8>, AdapterError> {
        let mut arrays: BTreeMap<String, Array> = self
            .head
            .iter()
            .map(|(name, array)| (format!("{PEFT_PREFIX}{name}"), array.clone()))
            .collect();
        let prefix = config.prefix();
        for (name, (a, b)) in &self.pairs {
            let full = format!("{PEFT_PREFIX}{prefix}{name}");
            arrays.insert(format!("{full}.lora_A.weight"), a.clone());
            arrays.insert(format!("{full}.lora_B.weight"), b.clone());
        }
        write_safetensors(&arrays).map_err(|cause| AdapterError::Weights {
            file: WEIGHTS_FILE.into(),
            cause,
        })
    }

    /// Writes a PEFT folder and returns the adapter's digest.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(
        &self,
        staging: &Staging,
        config: &ModelConfig,
        base: &str,
    ) -> Result<Digest, AdapterError> {
        let bytes = self.weight_bytes(config)?;
        staging.write(CONFIG_FILE, self.shape.to_peft(config, base).as_bytes())?;
        staging.write(WEIGHTS_FILE, &bytes)?;
        Ok(Digest::of(&bytes))
    }

    /// Reads the adapter of a name.
    ///
    /// # Errors
    /// As [`Self::load`]; names the file that makes it another one.
    pub fn load_named(
        folder: &Path,
        name: Digest,
        config: &ModelConfig,
    ) -> Result<Self, AdapterError> {
        Manifest::check(folder, &name)?;
        Self::load(folder, config)
    }

    /// Reads a PEFT folder for a model.
    ///
    /// # Errors
    /// When it is not one, or does not fit the model.
    pub fn load(folder: &Path, config: &ModelConfig) -> Result<Self, AdapterError> {
        let shape = LoraShape::read(folder.join(CONFIG_FILE))?;
        let file = folder.join(WEIGHTS_FILE);
        let mut arrays =
            read_safetensors(&files::read(&file)?).map_err(|cause| AdapterError::Weights {
                file: file.clone(),
                cause,
            })?;
        let mut take = |name: String, expected: Option<Vec<usize>>| {
            let error = |what: String| AdapterError::Tensor {
                file: file.clone(),
                name: name.clone(),
                what,
            };
            let array = arrays
                .remove(&name)
                .ok_or_else(|| error("is missing".into()))?;
            match expected {
                Some(expected) if expected != array.shape => Err(error(format!(
                    "has shape {:?}, not {expected:?}",
                    array.shape
                ))),
                _ => Ok(array),
            }
        };
        let names = config.linear_names();
        let prefix = config.prefix();
        let mut pairs = BTreeMap::new();
        for at in shape.targets(config)? {
            let (inputs, outputs) = linear_size(config, at);
            let full = format!("{PEFT_PREFIX}{prefix}{}", names[at]);
            let a = take(
                format!("{full}.lora_A.weight"),
                Some(vec![shape.rank, inputs]),
            )?;
            let b = take(
                format!("{full}.lora_B.weight"),
                Some(vec![outputs, shape.rank]),
            )?;
            pairs.insert(names[at].clone(), (a, b));
        }
        let mut head = BTreeMap::new();
        for layer in config.head_shapes(1) {
            for part in ["weight", "bias"] {
                let name = format!("{}.{part}", layer.name);
                head.insert(name.clone(), take(format!("{PEFT_PREFIX}{name}"), None)?);
            }
        }
        Ok(Self { shape, pairs, head })
    }
}

/// Inputs and outputs of a linear layer of the encoder.
fn linear_size(config: &ModelConfig, at: usize) -> (usize, usize) {
    match at % LINEARS_PER_LAYER {
        4 => (config.hidden, config.intermediate),
        5 => (config.intermediate, config.hidden),
        _ => (config.hidden, config.hidden),
    }
}

fn uniform(random: &mut ChaCha8Rng, count: usize, bound: f32) -> Vec<f32> {
    let unit = |bits: u32| (bits >> 8) as f32 / (1 << 24) as f32;
    (0..count)
        .map(|_| (unit(random.next_u32()) * 2.0 - 1.0) * bound)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_no_layer_is_told_with_those_that_are() {
        let file = include_bytes!("../../tests/fixtures/bert-tiny/config.json");
        let config = ModelConfig::parse(file).unwrap();
        for target in ["q_lin", "", "uery"] {
            let shape = LoraShape {
                target_modules: vec![target.to_owned()],
                ..Adapter::head_only(BTreeMap::new()).shape
            };
            let error = shape.targets(&config).unwrap_err().to_string();
            let told =
                format!("matches target module `{target}`; available: attention.self.query, ");
            assert!(error.contains(&told), "{error}");
        }
    }
}
