//! Host arrays in f32, read from and written to safetensors.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

/// A dense row-major array.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Length of each dimension.
    pub shape: Vec<usize>,
    /// Elements, last dimension fastest.
    pub data: Vec<f32>,
}

/// A safetensors file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArrayError {
    /// Not the format.
    #[error("not a safetensors file: {0}")]
    Malformed(String),
    /// A tensor of integers or of a quantised type where weights are expected.
    #[error("tensor `{name}` has type {dtype}; f32, f16 and bf16 can be read")]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: String,
    },
}

impl Array {
    /// All zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self {
            shape: shape.to_vec(),
            data: vec![0.0; shape.iter().product()],
        }
    }

    /// Of a matrix [rows, columns], the matrix [columns, rows].
    ///
    /// # Panics
    /// When it does not have two dimensions.
    pub fn transposed(&self) -> Self {
        let &[rows, columns] = self.shape.as_slice() else {
            panic!(
                "only a matrix can be transposed, this has shape {:?}",
                self.shape
            );
        };
        let mut data = vec![0.0; self.data.len()];
        for row in 0..rows {
            for column in 0..columns {
                data[column * rows + row] = self.data[row * columns + column];
            }
        }
        Self {
            shape: vec![columns, rows],
            data,
        }
    }
}

/// Reads every weight tensor as f32. Integer tensors (position buffers) are left out.
///
/// # Errors
/// When the bytes are not safetensors or a weight has a type that cannot be read.
pub fn read_safetensors(bytes: &[u8]) -> Result<BTreeMap<String, Array>, ArrayError> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| ArrayError::Malformed(error.to_string()))?;
    let mut arrays = BTreeMap::new();
    for (name, view) in file.tensors() {
        let raw = view.data();
        let data: Vec<f32> = match view.dtype() {
            Dtype::F32 => words::<4>(raw).map(f32::from_le_bytes).collect(),
            Dtype::F16 => words::<2>(raw)
                .map(|b| f16::from_le_bytes(b).to_f32())
                .collect(),
            Dtype::BF16 => words::<2>(raw)
                .map(|b| bf16::from_le_bytes(b).to_f32())
                .collect(),
            Dtype::I64 | Dtype::I32 | Dtype::U8 | Dtype::BOOL => continue,
            other => {
                return Err(ArrayError::Type {
                    name,
                    dtype: format!("{other:?}"),
                });
            }
        };
        arrays.insert(
            name,
            Array {
                shape: view.shape().to_vec(),
                data,
            },
        );
    }
    Ok(arrays)
}

fn words<const N: usize>(raw: &[u8]) -> impl Iterator<Item = [u8; N]> {
    raw.as_chunks::<N>().0.iter().copied()
}

/// Writes f32 tensors in the order that every writer of this format uses, so that equal arrays
/// are equal bytes.
///
/// # Errors
/// When the format refuses the arrays.
pub fn write_safetensors(
    arrays: &BTreeMap<String, impl Borrow<Array>>,
) -> Result<Vec<u8>, ArrayError> {
    // A base model takes most of the memory there is: its numbers are not copied for writing.
    const {
        assert!(
            cfg!(target_endian = "little"),
            "the format is little-endian"
        );
    };
    let malformed = |error: safetensors::SafeTensorError| ArrayError::Malformed(error.to_string());
    let views = arrays
        .iter()
        .map(|(name, array)| {
            let array = array.borrow();
            let bytes = bytemuck::cast_slice(&array.data);
            let view = TensorView::new(Dtype::F32, array.shape.clone(), bytes)?;
            Ok((name.as_str(), view))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(malformed)?;
    // transformers refuses a file without this entry.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    serialize(views, Some(metadata)).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_round_trip_to_equal_bytes() {
        let array = Array {
            shape: vec![2, 3],
            data: vec![1.0, 2.0, 3.0, 4.0, 5.0, f32::MIN_POSITIVE],
        };
        let arrays = BTreeMap::from([
            ("b".to_owned(), array.clone()),
            ("a".to_owned(), Array::zeros(&[1])),
        ]);
        let bytes = write_safetensors(&arrays).unwrap();
        assert_eq!(read_safetensors(&bytes).unwrap(), arrays);
        assert_eq!(write_safetensors(&arrays).unwrap(), bytes);
        assert_eq!(
            array.transposed().data,
            [1.0, 4.0, 2.0, 5.0, 3.0, f32::MIN_POSITIVE]
        );
        assert_eq!(array.transposed().transposed(), array);
    }

    #[test]
    fn half_precision_is_widened_and_garbage_is_refused() {
        let raw: Vec<u8> = [1.5, -2.0]
            .iter()
            .flat_map(|v| f16::from_f32(*v).to_le_bytes())
            .collect();
        let view = TensorView::new(Dtype::F16, vec![2], &raw).unwrap();
        let bytes = serialize([("w", view)], None).unwrap();
        assert_eq!(read_safetensors(&bytes).unwrap()["w"].data, [1.5, -2.0]);
        assert!(read_safetensors(b"no").is_err());
        assert!(read_safetensors(&bytes[..bytes.len() - 1]).is_err());
    }
}
