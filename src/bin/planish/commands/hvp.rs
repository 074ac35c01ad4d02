//! `planish hvp`: gradients, and products of Hessian or Gauss-Newton matrices of layers with vectors,
//! written to a file for other programs.

use crate::args::{Common, Limit, ModelArgs};
use crate::render::hvp::text;
use planish::data::DataOptions;
use planish::hvp::{HvpOptions, HvpSession};
use planish::output;
use planish::report::hvp::HvpReport;
use planish::session::checkpoint_info;
use planish::session::vectors::Vector;
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
    /// Options of the products.
    #[command(flatten)]
    pub options: HvpOptions,
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

/// Computes the products and writes them.
///
/// # Errors
/// Invalid checkpoint, data, layers, vectors or output; results that are not finite; or a product
/// that differs between two evaluations.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    output::check(&args.out)?;
    let checkpoint = args.model.open()?;
    let vectors = args.options.vectors.iter().filter_map(Vector::file);
    let read: Vec<&Path> = args.data.files().into_iter().chain(vectors).collect();
    output::spare(&[Some(&args.out), args.common.json_file()], &checkpoint.path, &read)?;
    let terminal = args.common.terminal();
    let context = args.common.context(&clock, &terminal);
    let (options, limit) = (&args.options, args.limit.mib());
    let session = HvpSession::prepare(options, &checkpoint, &args.data, limit, &context)?;
    let found = session.run(&context)?;
    found.save(&args.out)?;
    let info = checkpoint_info(&checkpoint);
    let report = HvpReport::new(clock.finish(), info, options.operator, found);
    args.common.save(&report)?;
    Ok(args.common.print(&text(&report, &args.out))?)
}
