//! Reads and writes named tensors in safetensors files.

use crate::checkpoint::{Checkpoint, Error as CheckpointError, Header, TensorDtype};
use crate::models::Layer;
use crate::output;
use crate::tape::is_finite;
use candle_core::{DType, Tensor};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Why tensors cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be written.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// The tensors cannot be serialised.
    #[error("{}: the tensors cannot be serialised as safetensors: {source}", .path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// The serialiser's error.
        source: safetensors::SafeTensorError,
    },
    /// A vector file is damaged, or has names that are not the checkpoint's.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A vector file cannot be read.
    #[error("{}: cannot be read: {source}; give a safetensors file, `gradient` or `random:SEED`",
        .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A tensor of the layer is missing in a vector.
    #[error(
        "{}: expected a tensor \"{name}\" of shape {shape:?}, found none; a vector needs every tensor \
         of layer {layer}, under the checkpoint's own names", .path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The layer.
        layer: String,
    },
    /// A tensor of a vector does not belong to the layer.
    #[error(
        "{}: expected only tensors of layer {layer}, found \"{name}\"; remove it, or name the \
         layer it belongs to", .path.display()
    )]
    Unexpected {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The layer.
        layer: String,
    },
    /// A tensor of a vector has a different shape than the weight.
    #[error(
        "{}: tensor \"{name}\": expected shape {expected:?}, found {found:?}; give it the shape of \
         the checkpoint's tensor", .path.display()
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The weight's shape.
        expected: Vec<usize>,
        /// The vector's.
        found: Vec<usize>,
    },
    /// A tensor of a vector is not of a real float type.
    #[error(
        "{}: tensor \"{name}\": expected F32, F64, F16 or BF16, found {found}; convert it",
        .path.display()
    )]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// A number of a vector is not finite.
    #[error("{}: tensor \"{name}\" holds NaN or infinity; a vector must be finite", .path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// The numbers cannot be read.
    #[error(transparent)]
    Kernel(#[from] planish_kernels::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Name, type, shape and little-endian bytes.
pub type Raw = (String, Dtype, Vec<usize>, Vec<u8>);

/// Single-precision numbers as little-endian bytes.
pub fn f32_bytes(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

/// Writes a safetensors file atomically.
///
/// # Errors
/// The file cannot be written.
pub fn write_tensors(path: &Path, tensors: &[Raw]) -> Result<(), Error> {
    let layout = |source| Error::Layout { path: path.into(), source };
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(layout)?;
    let bytes = serialize(views, None).map_err(layout)?;
    Ok(output::write(path, &bytes)?)
}

/// Reads a vector in the space of a layer's weights: tensors under the checkpoint's names, returned
/// in the layer's order.
///
/// # Errors
/// A file that is not safetensors; tensors that are missing, unexpected, misshapen or of the wrong
/// type.
pub fn read_vector(
    path: &Path,
    checkpoint: &Checkpoint,
    layer: &Layer,
    dtype: DType,
) -> Result<Vec<Tensor>, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let header = Header::read(path, &bytes)?;
    let own = own_shapes(checkpoint, layer)?;
    let mut found = HashMap::new();
    for entry in &header.entries {
        let Some(shape) = own.get(&entry.name) else {
            let (path, name, layer) = (path.into(), entry.name.clone(), layer.name.clone());
            return Err(Error::Unexpected { path, name, layer });
        };
        if *shape != entry.shape {
            return Err(Error::Shape {
                path: path.into(),
                name: entry.name.clone(),
                expected: shape.clone(),
                found: entry.shape.clone(),
            });
        }
        let stored = TensorDtype::parse(&entry.dtype).ok_or_else(|| Error::Dtype {
            path: path.into(),
            name: entry.name.clone(),
            found: entry.dtype.clone(),
        })?;
        let tensor = stored.decode(header.bytes_of(entry, &bytes), &entry.shape, dtype)?;
        if !is_finite(&tensor)? {
            return Err(Error::NotFinite { path: path.into(), name: entry.name.clone() });
        }
        found.insert(entry.name.clone(), tensor);
    }
    if let Some((name, shape)) = own.iter().find(|(name, _)| !found.contains_key(*name)) {
        let (path, name, layer) = (path.into(), name.clone(), layer.name.clone());
        return Err(Error::Missing { path, name, shape: shape.clone(), layer });
    }
    let canonical: HashMap<_, _> =
        checkpoint.to_canonical(found.into_iter().collect())?.into_iter().collect();
    let names = checkpoint.weights.names();
    Ok(layer.tensors.iter().filter_map(|&i| canonical.get(&names[i]).cloned()).collect())
}

/// Names and shapes of a layer's tensors in the checkpoint's layout.
fn own_shapes(
    checkpoint: &Checkpoint,
    layer: &Layer,
) -> Result<BTreeMap<String, Vec<usize>>, CheckpointError> {
    let weights = &checkpoint.weights;
    let own = |&i: &usize| (weights.names()[i].clone(), weights.tensor(i).clone());
    let tensors: Vec<_> = layer.tensors.iter().map(own).collect();
    let named = checkpoint.to_file(&tensors)?.into_iter();
    Ok(named.map(|(name, tensor)| (name, tensor.dims().to_vec())).collect())
}
