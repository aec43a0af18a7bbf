//! Load for its own sake: matrix products and tanh, without end, on a device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use burn::tensor::{Device, Distribution, FloatDType, Tensor};

use super::device::{Compute, DeviceError};
use crate::model::Arithmetic;
use crate::recipe::Precision;

/// Side of the square matrices: they fit into a core's cache, or fill a card.
const CPU_SIDE: usize = 384;
const CARD_SIDE: usize = 4096;

/// A running load.
pub struct Stress {
    stop: Arc<AtomicBool>,
    operations: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Stress {
    /// Puts devices to work: every core of a CPU, one stream of a card, on matrices of this side,
    /// in the precision of each device.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(devices: &[Compute], side: Option<usize>) -> Result<Self, DeviceError> {
        let mut stress = Self {
            stop: Arc::new(AtomicBool::new(false)),
            operations: Arc::new(AtomicU64::new(0)),
            threads: Vec::new(),
        };
        for compute in devices {
            let (usual, count) = if compute.is_cpu() {
                (CPU_SIDE, compute.threads)
            } else {
                (CARD_SIDE, 1)
            };
            let side = side.unwrap_or(usual);
            let precision = match &compute.arithmetic {
                Arithmetic::Kernels => Precision::F32,
                Arithmetic::Tensors(_, precision) => *precision,
            };
            for _ in 0..count {
                let (stop, operations) = (Arc::clone(&stress.stop), Arc::clone(&stress.operations));
                let device = compute.device.clone();
                let thread = thread::Builder::new()
                    .name("stress".into())
                    .spawn(move || work(&device, side, precision, &stop, &operations))
                    .map_err(|error| DeviceError::NoThread(error.to_string()))?;
                stress.threads.push(thread);
            }
        }
        Ok(stress)
    }

    /// Floating-point operations so far.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }
}

impl Drop for Stress {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A device that failed has said so, and has stopped to draw power.
            let _ = thread.join();
        }
    }
}

fn work(
    device: &Device,
    side: usize,
    precision: Precision,
    stop: &AtomicBool,
    operations: &AtomicU64,
) {
    let random = || {
        let even = Distribution::Uniform(-0.05, 0.05);
        let tensor = Tensor::<2>::random([side, side], even, device);
        match precision {
            Precision::F32 => tensor,
            Precision::Bf16 => tensor.cast(FloatDType::BF16),
            Precision::F16 => tensor.cast(FloatDType::F16),
        }
    };
    let (mut state, weight) = (random(), random());
    let side = side as u64;
    while !stop.load(Ordering::Relaxed) {
        // The tanh keeps the numbers small for ever.
        state = state.matmul(weight.clone()).tanh() + 0.01;
        // Reading one number back waits for the device: work is not queued beyond the end.
        let _ = state.clone().slice([0..1, 0..1]).into_data();
        operations.fetch_add(2 * side * side * side, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_load_works_until_it_is_dropped() {
        let stress = Stress::start(&[Compute::cpu()], Some(64)).unwrap();
        thread::sleep(Duration::from_millis(300));
        assert!(stress.operations() > 0);
    }
}
