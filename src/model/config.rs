//! `config.json` of a Hugging Face folder, for the architectures that can be run.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A family of encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// BERT, and so MiniLM.
    Bert,
    /// DistilBERT: no token types, another head.
    DistilBert,
}

/// The non-linearity of the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Exact, with erf.
    Gelu,
    /// With tanh.
    GeluTanh,
    /// Rectifier.
    Relu,
}

/// Linear layers of an encoder layer: query, key, value, attention output, feed-forward in and
/// out.
pub const LINEARS_PER_LAYER: usize = 6;

/// The shape of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Family.
    pub architecture: Architecture,
    /// Width.
    pub hidden: usize,
    /// Depth.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the feed-forward block.
    pub intermediate: usize,
    /// Its non-linearity.
    pub activation: Activation,
    /// Longest input in tokens.
    pub max_positions: usize,
    /// Entries of the token table.
    pub vocabulary: usize,
    /// Added to the variance in layer norms.
    pub norm_epsilon: f64,
    /// Class names in order, when the folder has a trained head.
    pub labels: Option<Vec<String>>,
    raw: Map<String, Value>,
}

/// A tensor of the classification head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadShape {
    /// Its name in the checkpoint, before `.weight` and `.bias`.
    pub name: &'static str,
    /// Inputs.
    pub inputs: usize,
    /// Outputs.
    pub outputs: usize,
}

/// A `config.json` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or a field is missing.
    #[error("config.json: {0}")]
    Malformed(String),
    /// Another model family.
    #[error("config.json: model_type `{0}` is not supported; `bert` and `distilbert` are")]
    Architecture(String),
    /// Another non-linearity.
    #[error("config.json: activation `{0}` is not supported; gelu, gelu_new and relu are")]
    Activation(String),
    /// A size of nothing.
    #[error("config.json: {0} is 0; a model has at least 1")]
    Zero(&'static str),
    /// Sizes that contradict each other.
    #[error("config.json: hidden size {hidden} is not a multiple of {heads} heads")]
    Heads {
        /// Width.
        hidden: usize,
        /// Heads.
        heads: usize,
    },
}

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    #[serde(alias = "dim")]
    hidden_size: usize,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    #[serde(alias = "hidden_dim")]
    intermediate_size: usize,
    #[serde(alias = "activation")]
    hidden_act: String,
    max_position_embeddings: usize,
    vocab_size: usize,
    layer_norm_eps: Option<f64>,
}

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// When it is not one, or names something that cannot be run.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let malformed = |error: serde_json::Error| ConfigError::Malformed(error.to_string());
        let raw: Raw = serde_json::from_slice(bytes).map_err(malformed)?;
        let map: Map<String, Value> = serde_json::from_slice(bytes).map_err(malformed)?;
        let architecture = match raw.model_type.as_str() {
            "bert" => Architecture::Bert,
            "distilbert" => Architecture::DistilBert,
            _ => return Err(ConfigError::Architecture(raw.model_type)),
        };
        let activation = match raw.hidden_act.as_str() {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            _ => return Err(ConfigError::Activation(raw.hidden_act)),
        };
        let (hidden, heads) = (raw.hidden_size, raw.num_attention_heads);
        let sizes = [
            ("hidden_size", hidden),
            ("num_hidden_layers", raw.num_hidden_layers),
            ("num_attention_heads", heads),
            ("intermediate_size", raw.intermediate_size),
            ("max_position_embeddings", raw.max_position_embeddings),
            ("vocab_size", raw.vocab_size),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(ConfigError::Zero(name));
        }
        if !hidden.is_multiple_of(heads) {
            return Err(ConfigError::Heads { hidden, heads });
        }
        Ok(Self {
            architecture,
            hidden,
            layers: raw.num_hidden_layers,
            heads,
            intermediate: raw.intermediate_size,
            activation,
            max_positions: raw.max_position_embeddings,
            vocabulary: raw.vocab_size,
            norm_epsilon: raw.layer_norm_eps.unwrap_or(1e-12),
            labels: labels(&map),
            raw: map,
        })
    }

    /// The `config.json` of this model with a classification head for `labels`.
    pub fn with_labels(&self, labels: &[String]) -> Self {
        let mut raw = self.raw.clone();
        let class = match self.architecture {
            Architecture::Bert => "BertForSequenceClassification",
            Architecture::DistilBert => "DistilBertForSequenceClassification",
        };
        let by_id = labels
            .iter()
            .enumerate()
            .map(|(id, label)| (id.to_string(), json!(label)));
        let by_label = labels
            .iter()
            .enumerate()
            .map(|(id, label)| (label.clone(), json!(id)));
        raw.insert("architectures".into(), json!([class]));
        raw.insert("id2label".into(), Value::Object(by_id.collect()));
        raw.insert("label2id".into(), Value::Object(by_label.collect()));
        raw.insert("problem_type".into(), json!("single_label_classification"));
        raw.insert("torch_dtype".into(), json!("float32"));
        Self {
            labels: Some(labels.to_vec()),
            raw,
            ..self.clone()
        }
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", Value::Object(self.raw.clone()))
    }

    /// What stands before a tensor's name in a checkpoint with a head.
    pub const fn prefix(&self) -> &'static str {
        match self.architecture {
            Architecture::Bert => "bert.",
            Architecture::DistilBert => "distilbert.",
        }
    }

    /// The head's linear layers, in the order of the forward pass.
    pub fn head_shapes(&self, classes: usize) -> Vec<HeadShape> {
        let classifier = HeadShape {
            name: "classifier",
            inputs: self.hidden,
            outputs: classes,
        };
        match self.architecture {
            Architecture::Bert => vec![classifier],
            Architecture::DistilBert => vec![
                HeadShape {
                    name: "pre_classifier",
                    inputs: self.hidden,
                    outputs: self.hidden,
                },
                classifier,
            ],
        }
    }

    /// Names of the linear layers that LoRA can adapt, without prefix, in the order in which the
    /// encoder holds them: six per layer.
    pub fn linear_names(&self) -> Vec<String> {
        let (layer, parts) = match self.architecture {
            Architecture::Bert => (
                "encoder.layer",
                [
                    "attention.self.query",
                    "attention.self.key",
                    "attention.self.value",
                    "attention.output.dense",
                    "intermediate.dense",
                    "output.dense",
                ],
            ),
            Architecture::DistilBert => (
                "transformer.layer",
                [
                    "attention.q_lin",
                    "attention.k_lin",
                    "attention.v_lin",
                    "attention.out_lin",
                    "ffn.lin1",
                    "ffn.lin2",
                ],
            ),
        };
        (0..self.layers)
            .flat_map(|at| parts.map(|part| format!("{layer}.{at}.{part}")))
            .collect()
    }
}

fn labels(raw: &Map<String, Value>) -> Option<Vec<String>> {
    let has_head = raw.get("architectures")?.as_array()?.iter().any(|class| {
        class
            .as_str()
            .is_some_and(|class| class.ends_with("ForSequenceClassification"))
    });
    let by_id = raw.get("id2label")?.as_object()?;
    if !has_head {
        return None;
    }
    (0..by_id.len())
        .map(|id| Some(by_id.get(&id.to_string())?.as_str()?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BERT: &str = include_str!("../../tests/fixtures/bert-tiny/config.json");
    const DISTILBERT: &str = include_str!("../../tests/fixtures/distilbert-tiny/config.json");

    #[test]
    fn both_families_are_read() {
        let bert = ModelConfig::parse(BERT.as_bytes()).unwrap();
        assert_eq!(
            (bert.hidden, bert.layers, bert.heads, bert.intermediate),
            (32, 2, 4, 64)
        );
        assert_eq!(bert.labels, None);
        let distil = ModelConfig::parse(DISTILBERT.as_bytes()).unwrap();
        assert_eq!(
            (
                distil.hidden,
                distil.layers,
                distil.heads,
                distil.intermediate
            ),
            (32, 2, 4, 64)
        );
        assert_eq!(distil.linear_names().len(), 12);
    }

    #[test]
    fn labels_survive_the_file() {
        let labels = ["no".to_owned(), "yes".to_owned()];
        let written = ModelConfig::parse(BERT.as_bytes())
            .unwrap()
            .with_labels(&labels);
        let read = ModelConfig::parse(written.to_json().as_bytes()).unwrap();
        assert_eq!(read.labels.as_deref(), Some(labels.as_slice()));
    }

    #[test]
    fn what_cannot_be_run_is_named() {
        let gpt = BERT.replace("\"bert\"", "\"gpt2\"");
        let error = ModelConfig::parse(gpt.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("`gpt2` is not supported"), "{error}");
        assert!(ModelConfig::parse(b"{}").is_err());
        let heads = BERT.replace("\"num_attention_heads\": 4", "\"num_attention_heads\": 5");
        assert!(matches!(
            ModelConfig::parse(heads.as_bytes()),
            Err(ConfigError::Heads { .. })
        ));
    }

    #[test]
    fn a_model_of_size_zero_is_refused_by_the_name_of_its_size() {
        let value: Value = serde_json::from_str(BERT).unwrap();
        for name in [
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "vocab_size",
        ] {
            let mut none = value.clone();
            none[name] = json!(0);
            let parsed = ModelConfig::parse(none.to_string().as_bytes());
            assert_eq!(parsed, Err(ConfigError::Zero(name)));
        }
    }
}
