//! Post-training methods compared with their controls, over seeds.
//!
//! A bench has one row for each method and one for its control: plain SGD on the same layers, batches and
//! settings. [`BenchSession`] names the layers, by a diagnosis if needed, forecasts the rows, trains each
//! with every seed, and tests the gains over seeds and test images. A [`BenchRunner`] makes the runs. [`InProcess`] makes them in this
//! process. The program starts a process for each run, which gives each its own memory figures.
//!
//! ```no_run
//! # fn main() -> planish::error::Result<()> {
//! use planish::bench::{BenchOptions, BenchSession, InProcess};
//! use planish::post_train::Preview;
//! use planish::prelude::*;
//!
//! let checkpoint = Checkpoint::open("model/".as_ref(), &Load::default())?;
//! let data = DataOptions { data: vec!["images/".into()], ..DataOptions::default() };
//! let (options, context) = (BenchOptions::default(), Context::silent(0));
//! let runner = InProcess::new(&checkpoint, &data);
//! let session =
//!     BenchSession::prepare(&options, &checkpoint, &data, &runner, Preview::None, &context)?;
//! session.run(&context)?.verdicts.iter().for_each(|verdict| println!("{verdict}"));
//! # Ok(())
//! # }
//! ```

mod answers;
mod epoch_zero;
mod forecast;
mod in_process;
mod options;
mod plan;
mod result;
mod rows;
mod runner;
mod session;
mod tally;
mod verdicts;

pub use answers::Answers;
pub use epoch_zero::EpochZero;
pub use in_process::InProcess;
pub use options::{BenchMethod, BenchOptions};
pub use plan::PlannedLayers;
pub use result::{BenchResult, Cost, RowResult};
pub use rows::BenchRow;
pub use runner::{BenchRun, BenchRunner, RunForecast, RunResult};
pub use session::BenchSession;
