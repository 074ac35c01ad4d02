//! `planish hvp`: gradients, and products of Hessian or Gauss-Newton matrices of layers with vectors,
//! written to a file for other programs.

mod report;

use crate::args::{Common, Limit, ModelArgs};
use crate::render::print;
use anyhow::bail;
use candle_core::{DType, Tensor};
use planish::curvature::{LayerOperator, LinearOperator};
use planish::data::DataOptions;
use planish::forecast::start_within;
use planish::memory;
use planish::models::Layer;
use planish::models::layers::{join, select};
use planish::objective::{Examples, Matrix, Objective};
use planish::output;
use planish::session::tensors::{Raw, f32_bytes, write_tensors};
use planish::session::vectors::{Vector, part, shaped};
use planish::session::{Counted, Data, objective, pixels};
use planish::vector;
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
    /// Split whose mean loss is differentiated [default: test, or the only split]
    #[arg(long, value_name = "S", help_heading = "Product options")]
    pub split: Option<String>,
    /// Layer: a name, a comma-separated list, or a glob.
    ///
    /// Each name in a list gets a product of its own. The layers of a glob form one joint layer,
    /// including the cross-terms.
    #[arg(long, value_name = "L", help_heading = "Product options")]
    pub layer: String,
    /// Vector: a safetensors file, `gradient` or `random:SEED` (repeatable).
    ///
    /// The file contains the tensors of the layers. Entries of a random vector are +1 or -1.
    /// Several vectors share one pass.
    #[arg(
        long = "vector",
        value_name = "FILE|gradient|random:SEED",
        default_value = "gradient",
        help_heading = "Product options"
    )]
    pub vectors: Vec<Vector>,
    /// Matrix: the Hessian or the Gauss-Newton matrix
    #[arg(
        long,
        help_heading = "Product options",
        value_enum,
        default_value = "hessian",
        hide_possible_values = true,
        value_name = "hessian|ggn"
    )]
    pub operator: Matrix,
    /// Precision of the arithmetic and of the output
    #[arg(long, value_name = "f32|f64", default_value = "f32", help_heading = "Product options")]
    pub dtype: Precision,
    /// Skip the check that two evaluations of a product agree.
    ///
    /// The check costs two products with the first layer, on one micro-batch per thread.
    #[arg(long, hide_short_help = true, help_heading = "Product options")]
    pub no_probe: bool,
    /// Output file (safetensors).
    ///
    /// It contains `loss`, and `gradient/NAME` and `hvp/NAME` (or `ggn/NAME`) for each tensor of
    /// the layers. With several vectors, the first dimension of a product is the vector.
    #[arg(long, value_name = "FILE", help_heading = "Product options")]
    pub out: PathBuf,
    /// Memory limit.
    #[command(flatten)]
    pub limit: Limit,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Name prefix of the products in the file.
fn product(matrix: Matrix) -> &'static str {
    match matrix {
        Matrix::Hessian => "hvp",
        Matrix::GaussNewton => "ggn",
    }
}

/// Precision of the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// Single precision
    F32,
    /// Double precision
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

/// Tensors, by the names in the checkpoint.
type Named = Vec<(String, Tensor)>;

/// Computes the products and writes them.
///
/// # Errors
/// Invalid checkpoint, data, layers, vectors or output; results that are not finite; or a product
/// that differs between two evaluations.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let running = args.common.start()?;
    output::check(&args.out)?;
    let checkpoint = args.model.open()?;
    let vectors = args.vectors.iter().filter_map(Vector::file);
    let read: Vec<&Path> = args.data.files().into_iter().chain(vectors).collect();
    output::spare(&[Some(&args.out), args.common.json.as_deref()], &checkpoint.path, &read)?;
    let layers = select(&checkpoint.network, &args.layer)?;
    check_disjoint(&layers)?;
    let joint = join(&layers);
    let sources = Data::open(&args.data, &checkpoint)?;
    let split = sources.split(args.split.as_deref())?;
    let examples = pixels(&checkpoint, split)?;
    args.common.say_notes(&sources.notes);
    let mut objective: Objective = objective(&checkpoint, args.dtype.dtype(), running.engine())?;
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
        // Copies: as read, as vectors, as products, as named tensors, and as bytes to write.
        let held = LayerOperator::new(&objective, &examples, &joint, args.operator).held_mib(5 * k);
        let need = operator.mib(1) + held;
        if need > room {
            bail!(
                "layer {}: {k} vectors and their products need about {need:.0} MiB, but {room:.0} \
                 MiB are available; pass fewer vectors, choose a smaller layer, or raise --memory",
                layer.name
            )
        }
        if fits < k {
            let line = format!(
                "note: {}: {k} vectors do not fit in memory together; {fits} in each pass",
                layer.name
            );
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
                    "two evaluations of one product on {} images differ; check that the files \
                     are not being modified, or skip this check with --no-probe",
                    found.examples
                )
            }
            Some(found)
        }
        _ => None,
    };
    let terminal = args.common.terminal();
    let context = args.common.context(&running, &terminal);
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

/// Rejects layers that share weights, because their products would have the same name.
fn check_disjoint(layers: &[Layer]) -> anyhow::Result<()> {
    for (i, a) in layers.iter().enumerate() {
        if let Some(b) =
            layers[..i].iter().find(|b| a.tensors.iter().any(|t| b.tensors.contains(t)))
        {
            bail!(
                "--layer: `{}` and `{}` share weights; name disjoint layers, or join them with a \
                 glob",
                b.name,
                a.name
            )
        }
    }
    Ok(())
}

/// Products, by the names in the checkpoint. Several vectors give one tensor per name.
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
