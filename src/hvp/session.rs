//! Products, from options to named tensors.

use super::{Error, FloatType, HvpOptions};
use crate::checkpoint::Checkpoint;
use crate::curvature::{LayerOperator, LinearOperator, Probe};
use crate::data::{DamagedFile, DataInfo, DataOptions, Split};
use crate::error::Result;
use crate::forecast::start_within;
use crate::memory;
use crate::models::Layer;
use crate::models::layers::{join, select};
use crate::objective::{Error as ObjectiveError, Examples, Matrix, Objective};
use crate::pixels::Pixels;
use crate::session::tensors::{Raw, f32_bytes, write_tensors};
use crate::session::vectors::{Vector, part, shaped};
use crate::session::{Context, Counted, Data, data_info, objective, pixels};
use crate::vector;
use candle_core::{DType, Tensor};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Products, ready to be computed.
pub struct HvpSession<'a> {
    /// The options.
    pub options: HvpOptions,
    checkpoint: &'a Checkpoint,
    data: Data,
    split: Split,
    images: Pixels,
    model: Objective,
    layers: Vec<Layer>,
    /// Memory available, MiB.
    room: f64,
    /// Passes over the images.
    passes: u64,
}

/// ‖v‖, ‖Av‖ and vᵀAv/vᵀv.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VectorProduct {
    /// Source of v.
    pub vector: String,
    /// ‖v‖.
    pub vector_norm: f64,
    /// ‖Av‖.
    pub product_norm: f64,
    /// vᵀAv/vᵀv; `None` if v = 0.
    pub rayleigh: Option<f64>,
}

/// The products of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerProducts {
    /// The layer.
    pub name: String,
    /// Its number of parameters.
    pub parameters: usize,
    /// ‖g‖.
    pub gradient_norm: f64,
    /// One entry per vector.
    pub products: Vec<VectorProduct>,
    /// Number of vectors per pass.
    pub vectors_at_once: usize,
}

/// Products of all layers.
pub struct HvpResult {
    /// `loss`, and `gradient/NAME` and `hvp/NAME` (or `ggn/NAME`) for each tensor of the layers. With
    /// several vectors, the first dimension of a product is the vector.
    pub tensors: Vec<Raw>,
    /// Mean loss, nats.
    pub loss_nats: f64,
    /// Comparison of two evaluations, unless it was skipped.
    pub determinism: Option<Probe>,
    /// Norms, by layer.
    pub layers: Vec<LayerProducts>,
    /// The images.
    pub data: DataInfo,
    /// Damaged image files that were decoded in part and used.
    pub damaged: Vec<DamagedFile>,
}

impl HvpResult {
    /// Writes the tensors to a safetensors file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, out: &Path) -> Result<()> {
        Ok(write_tensors(out, &self.tensors)?)
    }
}

/// Tensors, by the names in the checkpoint.
type NamedTensors = Vec<(String, Tensor)>;

impl<'a> HvpSession<'a> {
    /// Opens and checks everything. `memory_mib` limits the memory of the process.
    ///
    /// # Errors
    /// Invalid data or layers, or too little memory.
    pub fn prepare(
        options: &HvpOptions,
        checkpoint: &'a Checkpoint,
        data: &DataOptions,
        memory_mib: Option<f64>,
        context: &Context,
    ) -> Result<Self> {
        let layers = select(&checkpoint.network, &options.layer)?;
        check_disjoint(&layers)?;
        let data = Data::open(data, checkpoint)?;
        let split = data.split(options.split.as_deref())?.clone();
        let images = pixels(checkpoint, &split)?;
        data.notes.iter().for_each(|note| context.note(note));
        let mut model = objective(checkpoint, options.dtype.dtype(), context.engine)?;
        let room = match memory_mib {
            Some(limit) => {
                start_within(&mut model, limit);
                (limit - memory::resident_mib().unwrap_or(0.0)).max(0.0)
            }
            None => 0.9 * memory::available_mib().unwrap_or(f64::INFINITY),
        };
        let options = options.clone();
        let mut session =
            Self { options, checkpoint, data, split, images, model, layers, room, passes: 1 };
        session.passes += session.passes_of_layers(context)?;
        Ok(session)
    }

    /// Passes of all layers. A layer needs several if not all vectors fit in memory together.
    fn passes_of_layers(&self, context: &Context) -> Result<u64> {
        let k = self.options.vectors.len();
        let joint = join(&self.layers);
        // Copies: as read, as vectors, as products, as named tensors, and as bytes to write.
        let held = self.operator(&self.images, &joint).held_mib(5 * k);
        let mut passes = 0;
        for layer in &self.layers {
            let operator = self.operator(&self.images, layer).within(self.room);
            let fits = operator.block();
            let need = operator.mib(1) + held;
            if need > self.room {
                let (layer, room) = (layer.name.clone(), self.room);
                return Err(Error::Memory { layer, vectors: k, need, room }.into());
            }
            if fits < k {
                context.note(&format!(
                    "{}: {k} vectors do not fit in memory together; {fits} in each pass",
                    layer.name
                ));
            }
            passes += k.div_ceil(fits) as u64;
        }
        Ok(passes)
    }

    fn operator<'o>(&'o self, images: &'o dyn Examples, layer: &'o Layer) -> LayerOperator<'o> {
        LayerOperator::new(&self.model, images, layer, self.options.operator)
    }

    /// Computes the products.
    ///
    /// # Errors
    /// Invalid vectors, results that are not finite, or a product that differs between two
    /// evaluations.
    pub fn run(&self, context: &Context) -> Result<HvpResult> {
        let Self { options, checkpoint, .. } = self;
        let joint = join(&self.layers);
        let given = options.vectors.iter().map(|v| v.given(checkpoint, &joint));
        let given: Vec<Option<Vec<Tensor>>> = given.collect::<std::result::Result<_, _>>()?;
        let determinism = self.probe(context)?;
        let progress = context.task("hvp", self.passes * self.split.len() as u64, "images");
        let watched = Counted { examples: &self.images, task: &progress };
        let mut at = self.model.gradient(&watched as &dyn Examples, &joint)?;
        at.gradient = vector::to_cpu(&at.gradient).map_err(ObjectiveError::from)?;

        let names = checkpoint.weights.names();
        let loss = at.loss.to_le_bytes().to_vec();
        let mut tensors = vec![("loss".into(), Dtype::F64, Vec::new(), loss)];
        let named = |layer: &Layer, tensors: Vec<Tensor>| -> Result<NamedTensors> {
            let own = layer.tensors.iter().map(|&i| names[i].clone()).zip(tensors);
            Ok(checkpoint.to_file(&own.collect::<Vec<_>>())?)
        };
        for (name, tensor) in named(&joint, at.gradient.clone())? {
            tensors.push(raw(format!("gradient/{name}"), &tensor, options.dtype)?);
        }
        let mut layers = Vec::new();
        for layer in &self.layers {
            let operator = self.operator(&watched, layer).within(self.room);
            let gradient = part(&joint, &at.gradient, layer)?;
            let vectors = given.iter().map(|v| match v {
                Some(v) => part(&joint, v, layer),
                None => Ok(gradient.clone()),
            });
            let vectors: Vec<Vec<f64>> = vectors.collect::<crate::curvature::Result<_>>()?;
            let products = operator.apply(&vectors)?;
            write_products(&mut tensors, options, &products, &|p| {
                named(layer, shaped(checkpoint, layer, p)?)
            })?;
            let one = |((vector, v), p): ((&Vector, &Vec<f64>), &Vec<f64>)| VectorProduct {
                vector: vector.to_string(),
                vector_norm: dot(v, v).sqrt(),
                product_norm: dot(p, p).sqrt(),
                rayleigh: (dot(v, v) > 0.0).then(|| dot(v, p) / dot(v, v)),
            };
            layers.push(LayerProducts {
                name: layer.name.clone(),
                parameters: operator.dimension(),
                gradient_norm: dot(&gradient, &gradient).sqrt(),
                products: options.vectors.iter().zip(&vectors).zip(&products).map(one).collect(),
                vectors_at_once: operator.block().min(options.vectors.len()),
            });
        }
        let origin = format!("split {}, whole, in stored order", self.split.name());
        Ok(HvpResult {
            tensors,
            loss_nats: at.loss,
            determinism,
            layers,
            data: data_info(self.data.of(&self.split), &self.split, &origin),
            damaged: self.data.damaged(),
        })
    }

    /// Checks that two evaluations of a product with the first layer agree.
    fn probe(&self, context: &Context) -> Result<Option<Probe>> {
        let first = self.layers.first().filter(|_| !self.options.no_probe);
        let Some(layer) = first else { return Ok(None) };
        let found = self.operator(&self.images, layer).within(self.room).probe(context.seed)?;
        match found.identical {
            true => Ok(Some(found)),
            false => Err(Error::Differs { images: found.examples }.into()),
        }
    }
}

/// Rejects layers that share weights, because their products would have the same name.
fn check_disjoint(layers: &[Layer]) -> std::result::Result<(), Error> {
    for (i, a) in layers.iter().enumerate() {
        let shares = |b: &&Layer| a.tensors.iter().any(|t| b.tensors.contains(t));
        if let Some(b) = layers[..i].iter().find(shares) {
            return Err(Error::Shared { a: b.name.clone(), b: a.name.clone() });
        }
    }
    Ok(())
}

/// Name prefix of the products in the file.
fn product_name(matrix: Matrix) -> &'static str {
    match matrix {
        Matrix::Hessian => "hvp",
        Matrix::GaussNewton => "ggn",
    }
}

/// Products, by the names in the checkpoint. Several vectors give one tensor per name.
fn write_products(
    out: &mut Vec<Raw>,
    options: &HvpOptions,
    products: &[Vec<f64>],
    named: &dyn Fn(&[f64]) -> Result<NamedTensors>,
) -> Result<()> {
    let mut several: Vec<NamedTensors> = Vec::new();
    for product in products {
        several.push(named(product)?);
    }
    let Some(first) = several.first() else { return Ok(()) };
    for (i, (name, tensor)) in first.iter().enumerate() {
        let tensor = match several.len() {
            1 => tensor.clone(),
            _ => Tensor::stack(&several.iter().map(|one| &one[i].1).collect::<Vec<_>>(), 0)?,
        };
        out.push(raw(
            format!("{}/{name}", product_name(options.operator)),
            &tensor,
            options.dtype,
        )?);
    }
    Ok(())
}

fn raw(name: String, tensor: &Tensor, dtype: FloatType) -> candle_core::Result<Raw> {
    let values = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let (stored, bytes) = match dtype {
        FloatType::F32 => (Dtype::F32, f32_bytes(values.iter().map(|&x| x as f32))),
        FloatType::F64 => (Dtype::F64, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
    };
    Ok((name, stored, tensor.dims().to_vec(), bytes))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
