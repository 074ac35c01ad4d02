//! The commands, one file each.

pub mod bench;
pub mod cache;
pub mod calibrate;
pub mod compare;
pub mod completions;
pub mod demo;
pub mod diagnose;
pub mod eval;
pub mod finetune;
pub mod fix;
pub mod hvp;
pub mod inspect;
pub mod merge;
pub mod patch;
pub mod post_train;
pub mod predict;
pub mod report;
pub mod selftest;
pub mod study;
pub mod undo;
