//! Studies: many cells, each computed once, wherever and in however many runs.
//!
//! A cell is one measurement with one setting of everything. Its name is the
//! [`fingerprint`](crate::fingerprint) of everything it depends on. A [`Log`] in the study's folder holds every finished cell as a line of
//! JSON, flushed to the disk as soon as it is there; a [`Plan`] lists the cells that a study wants, in
//! its order. What the plan wants and the log lacks is what is left to do, so a killed run goes on
//! where it was, an edited study computes its new cells alone, and a cell whose checkpoint, images or
//! settings have changed has another name and is never taken for the old one. [`merge`] joins the
//! logs of a plan's parts, and [`tables`] makes rows of a plan and a log: the same bytes however the
//! cells came about, but for the column `seconds`.

mod bench;
mod cells;
mod diagnosis;
mod error;
mod evaluation;
mod file;
mod log;
mod merge;
mod plan;
mod problem;
mod runs;
mod setup;
mod share;
mod tables;
mod work;

pub use cells::{Cell, all, plan};
pub use error::{Error, Result};
pub use file::{File, parse};
pub use log::{CELLS, Entry, Log, differing, read_log};
pub use merge::{Merged, merge};
pub use plan::{Kind, PLAN, Plan, Planned, SCHEMA, set_aside};
pub use problem::{Problem, Text, read};
pub use setup::Setup;
pub use share::Share;
pub use tables::{Row, TABLES, Table, tables};
pub use work::{compute, counted};

#[cfg(test)]
mod tests;
