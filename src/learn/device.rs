//! Which device does the arithmetic.

use std::fmt;
use std::str::FromStr;
use std::thread;

use burn::tensor::Device;

use super::bytes::Bytes;
use crate::model::Arithmetic;
use crate::recipe::Precision;
use crate::words::Backend;

/// The setting `device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A CUDA card where there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA card of this number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("`{text}` is not one of auto, cpu, cuda:0")),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// A device that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// This build has no CUDA.
    #[error("device {0} was requested, but this cryo was built without CUDA")]
    NoCuda(DeviceChoice),
    /// There are fewer cards.
    #[error("device {asked} was requested, but {found} CUDA cards were found")]
    NoCard {
        /// The setting.
        asked: DeviceChoice,
        /// Cards that were found.
        found: usize,
    },
    /// The device computes in other precisions.
    #[error("precision {0} was requested, but the CPU only computes in f32")]
    NoPrecision(Precision),
    /// There is less memory than the update needs.
    #[error("the update needs about {needed} of memory, and {free} are free")]
    Memory {
        /// Estimated.
        needed: Bytes,
        /// What the system says.
        free: Bytes,
    },
    /// No thread to work on.
    #[error("a thread could not be started: {0}")]
    NoThread(String),
}

impl DeviceError {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoCuda(_) => {
                "build with `--features cuda` (docs/install.md), or set device = \"cpu\""
            }
            Self::NoCard { .. } => "check `nvidia-smi`, or set device = \"auto\"",
            Self::NoPrecision(_) => "choose f32, or use a CUDA card",
            Self::Memory { .. } => {
                "lower micro_batch_size or max_tokens, adapt fewer layers (layers = \"last:2\"), or choose a smaller base model"
            }
            Self::NoThread(_) => "raise the limit of processes (ulimit -u)",
        }
    }
}

/// An opened device.
#[derive(Debug, Clone)]
pub struct Compute {
    /// Where the optimizer's tensors are.
    pub device: Device,
    /// What computes the model.
    pub arithmetic: Arithmetic,
    /// Name of the backend in receipts.
    pub backend: Backend,
    /// `cpu` or `cuda:0`.
    pub name: String,
    /// Micro-batches that run at the same time.
    pub threads: usize,
    /// Rows per micro-batch in training. It follows from the kind of device alone, so that the
    /// number of threads does not change the result.
    pub micro_rows: usize,
    /// Rows per batch in evaluation.
    pub evaluation_rows: usize,
}

impl Compute {
    /// Opens the device that a setting asks for.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(choice: DeviceChoice) -> Result<Self, DeviceError> {
        let cards = cuda::cards();
        match choice {
            DeviceChoice::Cpu => Ok(Self::cpu()),
            DeviceChoice::Auto => Ok(cards
                .into_iter()
                .next()
                .map_or_else(Self::cpu, |card| Self::card(card, 0))),
            DeviceChoice::Cuda(_) if !cuda::BUILT => Err(DeviceError::NoCuda(choice)),
            DeviceChoice::Cuda(number) => {
                let found = cards.len();
                let card = cards.into_iter().nth(number);
                card.map(|card| Self::card(card, number))
                    .ok_or(DeviceError::NoCard {
                        asked: choice,
                        found,
                    })
            }
        }
    }

    /// The CPU, with one micro-batch per core.
    pub fn cpu() -> Self {
        Self {
            device: Device::flex(),
            arithmetic: Arithmetic::Kernels,
            backend: Backend::Kernels,
            name: "cpu".into(),
            threads: thread::available_parallelism().map_or(1, usize::from),
            micro_rows: 4,
            evaluation_rows: 8,
        }
    }

    /// The CPU with burn's own operations: what the kernels are tested and measured against.
    pub fn flex() -> Self {
        let device = Device::flex();
        Self {
            arithmetic: Arithmetic::Tensors(device.clone(), Precision::F32),
            device,
            backend: Backend::BurnFlex,
            micro_rows: 8,
            evaluation_rows: 16,
            ..Self::cpu()
        }
    }

    fn card(device: Device, number: usize) -> Self {
        Self {
            arithmetic: Arithmetic::Tensors(device.clone(), Precision::F32),
            device,
            backend: Backend::BurnCuda,
            name: format!("cuda:{number}"),
            // A card runs one batch at a time, as wide as the task says.
            threads: 1,
            micro_rows: usize::MAX,
            evaluation_rows: 256,
        }
    }

    /// Whether the CPU does the arithmetic.
    pub fn is_cpu(&self) -> bool {
        self.name == "cpu"
    }

    /// With the model's numbers in another precision.
    ///
    /// # Errors
    /// Where the device has no arithmetic for it.
    pub fn with_precision(mut self, precision: Precision) -> Result<Self, DeviceError> {
        match &mut self.arithmetic {
            Arithmetic::Tensors(_, held) => *held = precision,
            Arithmetic::Kernels if precision == Precision::F32 => {}
            Arithmetic::Kernels => return Err(DeviceError::NoPrecision(precision)),
        }
        Ok(self)
    }

    /// With another number of threads.
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use burn::tensor::{Device, DeviceType};

    pub const BUILT: bool = true;

    /// Enumerated before one is opened: opening a card without a driver panics.
    pub fn cards() -> Vec<Device> {
        Device::enumerate(DeviceType::Cuda).into_vec()
    }
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use burn::tensor::Device;

    pub const BUILT: bool = false;

    pub fn cards() -> Vec<Device> {
        Vec::new()
    }
}
