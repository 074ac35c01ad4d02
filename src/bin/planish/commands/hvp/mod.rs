//! `planish hvp`: gradients, and products of layers' Hessian or Gauss-Newton matrices with vectors,
//! for any other program to use.

mod report;

use crate::args::{Common, Limit, ModelArgs};
use crate::render::print;
use anyhow::bail;
use candle_core::{DType, Tensor};
use planish::curvature::{LayerOperator, LinearOperator};
use planish::data::DataOptions;
use planish::forecast::start_within;
use planish::memory;
use planish::objective::{Examples, Matrix, Objective};
use planish::output;
use planish::session::tensors::{Raw, f32_bytes, write_tensors};
use planish::session::vectors::{Vector, part, shaped};
use planish::session::{Counted, Data, objective, pixels};
use planish::vector;
use planish::vit::Layer;
use planish::vit::layers::{join, select};
use report::{LayerProducts, OneProduct, Report};
use safetensors::Dtype;
use std::path::{Path, PathBuf};

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
    pub data: DataOptions,
    /// Split whose mean loss is differentiated, whole [default: test, or the only one]
    #[arg(long, value_name = "S")]
    pub split: Option<String>,
    /// The layer: a name; a list of names, separated by commas, each with a product of its own; or a
    /// glob, whose layers are one, cross-terms and all
    #[arg(long, value_name = "L")]
    pub layer: String,
    /// The vector: a safetensors file with the layers' tensors, `gradient`, or `random:SEED` (each
    /// entry +1 or -1); give it again for several, which share one pass
    #[arg(long = "vector", value_name = "FILE|gradient|random:SEED", default_value = "gradient")]
    pub vectors: Vec<Vector>,
    /// The matrix: the Hessian, or the Gauss-Newton matrix
    #[arg(
        long,
        value_enum,
        default_value = "hessian",
        hide_possible_values = true,
        value_name = "hessian|ggn"
    )]
    pub operator: Matrix,
    /// Precision of the arithmetic and of the output
    #[arg(long, value_name = "f32|f64", default_value = "f32")]
    pub dtype: Precision,
    /// Do not compare two evaluations of one product before the work; they cost two products on one
    /// micro-batch a thread, in the first layer
    #[arg(long)]
    pub no_probe: bool,
    /// File to write: `loss`, and `gradient/NAME` and `hvp/NAME` (`ggn/NAME`) for each tensor of the
    /// layers; products with several vectors have these as their first dimension
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Memory to keep within.
    #[command(flatten)]
    pub limit: Limit,
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
}

/// What products with the matrix are called in the file.
fn product(matrix: Matrix) -> &'static str {
    match matrix {
        Matrix::Hessian => "hvp",
        Matrix::GaussNewton => "ggn",
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

/// Tensors under the checkpoint's own names.
type Named = Vec<(String, Tensor)>;

/// Computes and writes.
///
/// # Errors
/// Anything wrong with checkpoint, data, layers, vectors or output; numbers that are not finite;
/// products that differ from one evaluation to the next.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let running = args.common.start()?;
    output::check(&args.out)?;
    let checkpoint = args.model.open()?;
    let vectors = args.vectors.iter().filter_map(Vector::file);
    let read: Vec<&Path> = args.data.files().into_iter().chain(vectors).collect();
    output::spare(&[Some(&args.out), args.common.json.as_deref()], &checkpoint.path, &read)?;
    let layers = select(&checkpoint.config, &args.layer)?;
    apart(&layers)?;
    let joint = join(&layers);
    let sources = Data::open(&args.data, &checkpoint)?;
    let split = sources.split(args.split.as_deref())?;
    let examples = pixels(&checkpoint, split)?;
    args.common.say_notes(&sources.notes);
    let mut objective: Objective = objective(&checkpoint, args.dtype.dtype())?;
    let room = match args.limit.mib() {
        Some(limit) => {
            start_within(&mut objective, limit);
            (limit - memory::resident_mib().unwrap_or(0.0)).max(0.0)
        }
        None => 0.9 * memory::available_mib().unwrap_or(f64::INFINITY),
    };

    let bare = |layer| LayerOperator::new(&objective, &examples, layer, args.operator).within(room);
    let k = args.vectors.len();
    let mut passes = 1;
    for layer in &layers {
        let operator = bare(layer);
        let fits = operator.block();
        // As read, as vectors, as products, those under their names, and as bytes to be written.
        let held = LayerOperator::new(&objective, &examples, &joint, args.operator).held_mib(5 * k);
        let need = operator.mib(1) + held;
        if need > room {
            bail!(
                "layer {}: {k} vectors and their products take about {need:.0} MiB, and {room:.0} \
                 MiB are free; give fewer at a time, name a smaller layer, or allow more with \
                 --memory",
                layer.name
            )
        }
        if fits < k {
            let line = format!("note: {}: {k} vectors in passes of {fits}", layer.name);
            args.common.say(&line);
        }
        passes += k.div_ceil(fits) as u64;
    }
    let given: Vec<Option<Vec<Tensor>>> =
        args.vectors.iter().map(|v| v.given(&checkpoint, &joint)).collect::<Result<_, _>>()?;
    let determinism = match layers.first() {
        Some(layer) if !args.no_probe => {
            let found = bare(layer).probe(args.common.seed)?;
            if !found.identical {
                bail!(
                    "two evaluations of one product on {} images differ; are the files changing \
                     meanwhile? --no-probe goes on all the same",
                    found.examples
                )
            }
            Some(found)
        }
        _ => None,
    };
    let terminal = args.common.terminal();
    let context = args.common.context(&terminal);
    let progress = context.task("hvp", passes * split.len() as u64, "images");
    let watched = Counted { examples: &examples, task: &progress };
    let mut at = objective.gradient(&watched as &dyn Examples, &joint)?;
    at.gradient = vector::to_cpu(&at.gradient)?;

    let names = checkpoint.weights.names();
    let mut out = vec![("loss".into(), Dtype::F64, Vec::new(), at.loss.to_le_bytes().to_vec())];
    let named = |layer: &Layer, tensors: Vec<Tensor>| -> anyhow::Result<Named> {
        let own = layer.tensors.iter().map(|&i| names[i].clone()).zip(tensors).collect::<Vec<_>>();
        Ok(checkpoint.to_file(&own)?)
    };
    for (name, tensor) in named(&joint, at.gradient.clone())? {
        out.push(raw(format!("gradient/{name}"), &tensor, args.dtype)?);
    }
    let mut found = Vec::new();
    for layer in &layers {
        let operator = LayerOperator::new(&objective, &watched, layer, args.operator);
        let operator = operator.within(room);
        let gradient = part(&joint, &at.gradient, layer)?;
        let vectors = given.iter().map(|v| match v {
            Some(v) => part(&joint, v, layer),
            None => Ok(gradient.clone()),
        });
        let vectors: Vec<Vec<f64>> = vectors.collect::<planish::curvature::Result<_>>()?;
        let products = operator.apply(&vectors)?;
        write_products(&mut out, args, &products, &|p| {
            named(layer, shaped(&checkpoint, layer, p)?)
        })?;
        let one = |((vector, v), p): ((&Vector, &Vec<f64>), &Vec<f64>)| OneProduct {
            vector: vector.to_string(),
            vector_norm: dot(v, v).sqrt(),
            product_norm: dot(p, p).sqrt(),
            rayleigh: (dot(v, v) > 0.0).then(|| dot(v, p) / dot(v, v)),
        };
        found.push(LayerProducts {
            name: layer.name.clone(),
            parameters: operator.dimension(),
            gradient_norm: dot(&gradient, &gradient).sqrt(),
            products: args.vectors.iter().zip(&vectors).zip(&products).map(one).collect(),
            vectors_at_once: operator.block().min(k),
        });
    }
    drop(progress);
    write_tensors(&args.out, &out)?;
    let origin = format!("split {}, whole, in stored order", split.name());
    let report = Report {
        schema: "planish/hvp/1",
        run: running.finish(),
        checkpoint: planish::session::checkpoint_info(&checkpoint),
        data: planish::session::data_info(sources.of(split), split, &origin),
        damaged: sources.damaged(),
        operator: args.operator,
        loss_nats: at.loss,
        determinism,
        layers: found,
    };
    args.common.save(&report)?;
    Ok(print(&report.text(&args.out))?)
}

/// Refuses layers that share weights: their products would have one name.
fn apart(layers: &[Layer]) -> anyhow::Result<()> {
    for (i, a) in layers.iter().enumerate() {
        if let Some(b) =
            layers[..i].iter().find(|b| a.tensors.iter().any(|t| b.tensors.contains(t)))
        {
            bail!(
                "--layer: `{}` and `{}` have weights in common; name layers apart from each other, \
                 or join them with a glob",
                b.name,
                a.name
            )
        }
    }
    Ok(())
}

/// Products under the checkpoint's own names; of several, one tensor for each name.
fn write_products(
    out: &mut Vec<Raw>,
    args: &Args,
    products: &[Vec<f64>],
    named: &dyn Fn(&[f64]) -> anyhow::Result<Named>,
) -> anyhow::Result<()> {
    let mut several: Vec<Named> = Vec::new();
    for product in products {
        several.push(named(product)?);
    }
    let Some(first) = several.first() else { return Ok(()) };
    for (i, (name, tensor)) in first.iter().enumerate() {
        let tensor = match several.len() {
            1 => tensor.clone(),
            _ => Tensor::stack(&several.iter().map(|one| &one[i].1).collect::<Vec<_>>(), 0)?,
        };
        out.push(raw(format!("{}/{name}", product(args.operator)), &tensor, args.dtype)?);
    }
    Ok(())
}

fn raw(name: String, tensor: &Tensor, precision: Precision) -> candle_core::Result<Raw> {
    let values = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let (dtype, bytes) = match precision {
        Precision::F32 => (Dtype::F32, f32_bytes(values.iter().map(|&x| x as f32))),
        Precision::F64 => (Dtype::F64, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
    };
    Ok((name, dtype, tensor.dims().to_vec(), bytes))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
