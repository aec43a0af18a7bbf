//! Models: fetched by digest, read from Hugging Face folders, run on burn, adapted with LoRA.

mod adapter;
mod array;
mod config;
mod encoder;
pub mod fetch;
mod folder;
mod merge;
mod tokenizer;

pub use adapter::{Adapter, AdapterError, LoraShape};
pub use array::{Array, ArrayError, read_safetensors, write_safetensors};
pub use config::{Activation, Architecture, ConfigError, HeadShape, ModelConfig};
pub use encoder::{Dropout, Encoder, HeadTensors, Lora, Tokens, Trainable};
pub use folder::{Folder, FolderError, MODEL_FILE, write_folder};
pub use merge::merge;
pub use tokenizer::{TextTokenizer, TokenizerError};
