//! `planish hvp`: gradient and Hessian-vector product of a layer, for any other program to use.

use super::common::Common;
use super::format::{count, number};
use super::images::{DataArgs, pixels};
use super::model::{ModelArgs, Watched, objective};
use super::output;
use super::tensors::{Raw, f32_bytes, read_vector, write_tensors};
use crate::checkpoint::Checkpoint;
use crate::data::order::{below, stream};
use crate::objective::{Derivatives, Objective};
use crate::vit::Layer;
use crate::vit::layers::select;
use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use std::path::PathBuf;

/// Arguments of `planish hvp`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  planish hvp vit/ --data tensors:batch.safetensors --layer head \
                  --vector random:0 --dtype f64 --out hv.safetensors"
)]
pub struct Args {
    /// The checkpoint.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The images.
    #[command(flatten)]
    pub data: DataArgs,
    /// Split whose mean loss is differentiated, whole [default: test, or the only one]
    #[arg(long, value_name = "S")]
    pub split: Option<String>,
    /// The layer: a name, or a glob that names one joint layer
    #[arg(long, value_name = "L")]
    pub layer: String,
    /// The vector: a safetensors file with the layer's tensors, `gradient`, or `random:SEED`
    /// (each entry +1 or -1)
    #[arg(long, value_name = "FILE|gradient|random:SEED", default_value = "gradient")]
    pub vector: Vector,
    /// Precision of the arithmetic and of the output
    #[arg(long, value_name = "f32|f64", default_value = "f32")]
    pub dtype: Precision,
    /// File to write: `loss`, and `gradient/NAME` and `hvp/NAME` for each tensor of the layer
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
}

/// Where the vector comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Vector {
    /// The gradient at the weights.
    Gradient,
    /// Signs drawn with this seed.
    Random(u64),
    /// A safetensors file.
    File(PathBuf),
}

impl std::str::FromStr for Vector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("random:") {
            Some(seed) => seed
                .parse()
                .map(Vector::Random)
                .map_err(|_| "expected a whole number after `random:`, as in random:0".into()),
            None if text == "gradient" => Ok(Vector::Gradient),
            None => Ok(Vector::File(text.into())),
        }
    }
}

/// Precision of the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// Single.
    F32,
    /// Double.
    F64,
}

impl Precision {
    fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::F64 => DType::F64,
        }
    }
}

/// A pattern that names several layers, where one is needed.
#[derive(Debug, thiserror::Error)]
#[error(
    "--layer: expected one layer, found {found} in `{pattern}`; name one, or join several with a \
     glob such as block.*"
)]
pub struct SeveralLayers {
    pattern: String,
    found: usize,
}

/// What `--json` says.
#[derive(serde::Serialize)]
struct Report {
    schema: &'static str,
    run: crate::run::Run,
    checkpoint: crate::report::CheckpointInfo,
    data: crate::report::DataInfo,
    layer: String,
    loss_nats: f64,
    gradient_norm: f64,
    hvp_norm: f64,
}

/// Computes and writes.
///
/// # Errors
/// Anything wrong with checkpoint, data, layer, vector or output; a loss that is not finite.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let running = args.common.start()?;
    output::check(&args.out)?;
    let checkpoint = args.model.open()?;
    let layer = one_layer(&checkpoint, &args.layer)?;
    let given = match &args.vector {
        Vector::Gradient => None,
        Vector::Random(seed) => Some(signs(&checkpoint, &layer, *seed, args.dtype.dtype())?),
        Vector::File(path) => Some(read_vector(path, &checkpoint, &layer, args.dtype.dtype())?),
    };
    let sources = args.data.open(&checkpoint)?;
    let split = sources.split(args.split.as_deref())?;
    let examples = pixels(&checkpoint, split)?;
    let objective: Objective = objective(&checkpoint, args.dtype.dtype())?;
    let passes = if given.is_some() { 1 } else { 2 };
    let progress = args.common.progress("hvp", passes * split.len() as u64, "images");
    if !args.common.quiet {
        sources.notes.iter().for_each(|note| progress.line(&format!("note: {note}")));
    }
    let watched = Watched { examples: &examples, progress: &progress };
    let vector = match given {
        Some(vector) => vector,
        None => objective.gradient(&watched, &layer)?.gradient,
    };
    let found = objective.hvp(&watched, &layer, &vector)?;
    drop(progress);
    write_tensors(&args.out, &raw(&checkpoint, &layer, &found, args.dtype)?)?;
    let origin = format!("split {}, whole, in stored order", split.name());
    let report = Report {
        schema: "planish/hvp/1",
        run: running.finish(),
        checkpoint: super::model::checkpoint_info(&checkpoint),
        data: super::images::data_info(sources.of(split), split, &origin),
        layer: layer.name.clone(),
        loss_nats: found.loss,
        gradient_norm: norm(&found.gradient)?,
        hvp_norm: norm(&found.hvp)?,
    };
    args.common.save(&report)?;
    Ok(output::print(&format!(
        "{}: loss {} nats over {} images, ‖g‖ {}, ‖Hv‖ {}; written to {}",
        report.layer,
        number(report.loss_nats),
        count(report.data.images as u64),
        number(report.gradient_norm),
        number(report.hvp_norm),
        args.out.display()
    ))?)
}

fn one_layer(checkpoint: &Checkpoint, pattern: &str) -> anyhow::Result<Layer> {
    let mut found = select(&checkpoint.config, pattern)?;
    match (found.pop(), found.len()) {
        (Some(layer), 0) => Ok(layer),
        (_, others) => Err(SeveralLayers { pattern: pattern.into(), found: others + 1 }.into()),
    }
}

/// A vector of seeded signs.
fn signs(
    checkpoint: &Checkpoint,
    layer: &Layer,
    seed: u64,
    dtype: DType,
) -> candle_core::Result<Vec<Tensor>> {
    let mut rng = stream(seed, "hvp vector");
    let mut sign = || if below(&mut rng, 2) == 1 { 1f32 } else { -1.0 };
    let weights = layer.tensors.iter().map(|&i| checkpoint.weights.tensor(i));
    weights
        .map(|w| {
            let signs: Vec<f32> = (0..w.elem_count()).map(|_| sign()).collect();
            Tensor::from_vec(signs, w.shape(), &Device::Cpu)?.to_dtype(dtype)
        })
        .collect()
}

fn raw(
    checkpoint: &Checkpoint,
    layer: &Layer,
    found: &Derivatives,
    precision: Precision,
) -> anyhow::Result<Vec<Raw>> {
    let mut out = vec![("loss".into(), Dtype::F64, Vec::new(), found.loss.to_le_bytes().to_vec())];
    let names = checkpoint.weights.names();
    for (what, tensors) in [("gradient", &found.gradient), ("hvp", &found.hvp)] {
        let canonical: Vec<(String, Tensor)> =
            layer.tensors.iter().map(|&i| names[i].clone()).zip(tensors.iter().cloned()).collect();
        for (name, tensor) in checkpoint.to_file(&canonical)? {
            let values = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
            let (dtype, bytes) = match precision {
                Precision::F32 => (Dtype::F32, f32_bytes(values.iter().map(|&x| x as f32))),
                Precision::F64 => {
                    (Dtype::F64, values.iter().flat_map(|x| x.to_le_bytes()).collect())
                }
            };
            out.push((format!("{what}/{name}"), dtype, tensor.dims().to_vec(), bytes));
        }
    }
    Ok(out)
}

fn norm(tensors: &[Tensor]) -> candle_core::Result<f64> {
    let mut squares = 0.0;
    for tensor in tensors {
        let values = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        squares += values.iter().map(|x| x * x).sum::<f64>();
    }
    Ok(squares.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_read() {
        assert_eq!("gradient".parse(), Ok(Vector::Gradient));
        assert_eq!("random:7".parse(), Ok(Vector::Random(7)));
        assert_eq!("v.safetensors".parse(), Ok(Vector::File("v.safetensors".into())));
        assert!("random:x".parse::<Vector>().is_err());
    }
}
