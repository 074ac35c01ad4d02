//! planish finds where a fine-tuned vision model overfits, layer by layer, and repairs it cheaply.
//!
//! # Diagnose a model in 20 lines
//!
//! ```no_run
//! use planish::prelude::*;
//!
//! fn main() -> Result<()> {
//!     // A timm, transformers or torchvision checkpoint, and what it does not say itself.
//!     let checkpoint = Checkpoint::open("model/".as_ref(), &Load::default())?;
//!     // Class folders, IDX, CIFAR or prepared tensors; which images train, validate and test.
//!     let data = DataOptions { data: vec!["images/".into()], ..DataOptions::default() };
//!     // The CPU and seed 0; an `Observer` in place of `silent` would receive progress.
//!     let context = Context::silent(0);
//!
//!     let options = DiagnoseOptions { samples: Some(2000), ..DiagnoseOptions::default() };
//!     let limit = Limit::default();
//!     let session = DiagnoseSession::prepare(&options, checkpoint, &data, limit, &context)?;
//!     let found = session.run(&context)?;
//!     for layer in &found.findings.layers {
//!         println!("{}: ΔL {:?} nats", layer.name, layer.delta_l_nats.cross_fit);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! [`DiagnosisReport`](report::diagnosis::DiagnosisReport) makes the result the JSON report that
//! `planish diagnose` writes. The other commands have sessions and reports of the same kind.
//!
//! # Post-train it
//!
//! [`PostTrainOptions`](post_train::PostTrainOptions) names the method and its options, and
//! [`PostTrainSession`](post_train::PostTrainSession) prepares, forecasts, trains, judges and saves. See
//! `examples/post_train.rs`. [`post_train::search()`] tries recipes, [`bench`](mod@bench) compares methods with their
//! controls, and [`study`] runs many recipes on many models.
//!
//! # Layers of the crate
//!
//! | module | what it does |
//! |---|---|
//! | [`engine`] | the device, and how it computes products; passed to all work |
//! | [`models`], [`tape`], [`objective`] | the network; its loss, gradients and Hessian-vector products |
//! | [`curvature`], [`line_search`] | eigenvalues, traces, densities from products alone; minima along a line |
//! | [`checkpoint`], [`data`], [`session`] | files in and out; images; both opened for work |
//! | [`diagnose`], [`remedies`], [`train`], [`evaluate`], [`shift`] | what is measured and done |
//! | [`eval`], [`finetune`], [`calibrate`], [`merge`], [`fix`], [`post_train`] | whole runs |
//! | [`bench`](mod@bench), [`study`], [`compare`] | many runs; their comparison |
//! | [`hvp`], [`selftest`] | products of layers as named tensors; checks of the numerical accuracy |
//! | [`report`] | results as JSON and HTML |
//!
//! Operations and kernels are in the crate `planish_kernels`: each states its value and its VJP once, and
//! forward derivatives and Hessian-vector products follow from dual numbers.
//!
//! # Features
//!
//! `cli` (default) builds the program and lets option structs be read from a command line; `html` writes
//! reports as pages; `cuda` computes on an NVIDIA GPU.

pub mod bench;
pub mod cache;
pub mod calibrate;
pub mod checkpoint;
pub mod compare;
pub mod curvature;
pub mod data;
pub mod device;
pub mod diagnose;
pub mod engine;
pub mod error;
pub mod eval;
pub mod evaluate;
pub mod finetune;
pub mod fingerprint;
pub mod fix;
pub mod forecast;
pub mod format;
pub mod hvp;
pub mod line_search;
pub mod lora;
pub mod memory;
pub mod merge;
pub mod models;
mod nearest;
pub mod objective;
pub mod observe;
pub mod options;
pub mod output;
mod pickle;
pub mod pixels;
pub mod post_train;
pub mod predict;
pub mod predictions;
pub mod pretrained;
pub mod random;
pub mod remedies;
pub mod report;
pub mod run;
pub mod selftest;
pub mod session;
pub mod shift;
pub mod study;
pub mod tape;
pub mod temp_file;
pub mod train;
pub mod vector;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// What most programs need.
pub mod prelude {
    pub use crate::checkpoint::{Checkpoint, Load};
    pub use crate::data::{DataOptions, Role, require};
    pub use crate::diagnose::{DiagnoseOptions, DiagnoseSession, MeasureOptions, Measurer};
    pub use crate::engine::{Engine, EngineOptions};
    pub use crate::error::{Error, Result};
    pub use crate::eval::{EvaluateOptions, EvaluateSession};
    pub use crate::finetune::{FinetuneOptions, FinetuneSession};
    pub use crate::models::Granularity;
    pub use crate::models::layers::{layers, select};
    pub use crate::observe::{Event, Observer, Silent};
    pub use crate::options::Limit;
    pub use crate::post_train::{Place, PostTrainOptions, PostTrainSession};
    pub use crate::session::{Context, Data, objective, pixels, sample};
    pub use crate::train::{MethodOptions, TrainArgs};
    pub use candle_core::DType;
}
