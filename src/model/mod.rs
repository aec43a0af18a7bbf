//! Models: fetched by digest, read from Hugging Face folders, run on the CPU or on burn, adapted
//! with LoRA.

mod adapter;
mod array;
mod config;
mod encoder;
pub mod fetch;
mod folder;
mod manifest;
mod merge;
mod tokenizer;

pub use adapter::{ADAPTER_FILES, Adapter, AdapterError, LoraShape};
pub use array::{Array, ArrayError, read_safetensors, write_safetensors};
pub use config::{Activation, Architecture, ConfigError, HeadShape, ModelConfig};
pub use encoder::{
    Adapted, Arithmetic, Dropout, Encoder, Gradients, Head, Labelled, Lora, PackedAdapter,
    PackedEncoder, TensorEncoder, Trainable, tensor2, values,
};
pub use folder::{Folder, FolderError, write_folder};
pub use manifest::{
    COMPANIONS, MODEL_FILE, Manifest, ManifestError, ParseManifestError, REQUIRED, SUMS_FILE,
    decisive,
};
pub use merge::merge;
pub use tokenizer::{TextTokenizer, TokenizerError};
