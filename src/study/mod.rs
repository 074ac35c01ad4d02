//! Studies: many cells, each computed once, across any number of runs and machines.
//!
//! A cell is one measurement with one setting of everything. Its name is the
//! [`fingerprint`](crate::fingerprint) of everything it depends on. A [`Log`] in the study folder
//! holds every finished cell as a line of JSON, flushed to disk immediately. A [`StudyPlan`] lists the
//! cells of a study in order. Cells in the plan but not in the log remain to be computed.
//!
//! So a killed run resumes where it stopped, and an edited study computes only its new cells. A
//! cell whose checkpoint, images or settings changed has a new name and is never confused with the
//! old one. [`StudySession`] does this for one study file; [`join`] joins the folders of its parts.
//! [`tables`] builds rows from a plan and a log. They are byte-identical however the cells were
//! computed, except for the column `seconds`.

mod bench;
mod cells;
mod diagnosis;
mod error;
mod evaluation;
mod figures;
mod file;
mod log;
mod merge;
mod plan;
mod problem;
mod rows;
mod runs;
mod session;
mod settings;
mod setup;
mod share;
mod tables;
mod work;

pub use cells::{Cell, all, plan};
pub use error::{Error, Result};
pub use figures::{
    CellFigures, DiagnosisFigures, LayerFigures, ModelScore, OodFigures, RunFigures, SplitFigures,
};
pub use file::{StudyFile, parse};
pub use log::{CELLS, Log, LogEntry, differing, read_log};
pub use merge::{MergedStudy, merge};
pub use plan::{CellKind, PLAN, Planned, SCHEMA, StudyPlan, earlier, set_aside};
pub use problem::{Problem, Text, read};
pub use rows::{EvaluationRow, LayerRow, ModelRow, OodRow, RunRow, stated};
pub use session::{StudyOutlook, StudySession, StudyTables, join};
pub use settings::{
    Attribute, CellSettings, EvaluationSettings, ImageSettings, ModelSettings, OodSettings,
    RunSettings, Scoring,
};
pub use setup::Setup;
pub use share::Share;
pub use tables::{TABLES, Table, TableRow, tables};
pub use work::{compute, counted};

#[cfg(test)]
mod tests;
