//! A cache of the frozen layers' activations, within a run and across runs.
//!
//! The layers below the lowest layer that post-training changes are frozen, so their output for an
//! image is computed once. It is kept in memory, or in a file that later runs use. The file name is
//! a digest of everything its content depends on (`key.rs`). Files are written atomically and have
//! a checksum per row (`file.rs`). `folder.rs` manages the folder; `plan.rs` chooses between
//! memory, files and no cache.
//!
//! This module handles only files and bytes; [`crate::train::Source`] runs the model.

mod error;
mod file;
mod folder;
mod info;
mod key;
mod layout;
mod options;
mod plan;
mod stored;

pub use error::{Error, Result};
pub use file::{ActivationReader, CacheLookup, Writer};
pub use folder::{CacheFile, CacheFileKind, clear, default_folder, list, room};
pub use info::CacheInfo;
pub use key::{FORMAT, Frozen, digest, key};
pub use layout::{About, ActivationLayout};
pub use options::{CacheDtype, CacheOptions};
pub use plan::{CacheMode, CachePolicy, StorageChoice, StoragePlan, plan};
pub use stored::ActivationDtype;
