//! Activations of frozen layers, kept from step to step and from run to run.
//!
//! Below the lowest layer that post-training touches nothing ever changes, so what an image is
//! turned into there is computed once: kept in memory, or in a file that the next run finds. A file
//! is found by a digest of all that its contents follow from (`key.rs`), is written whole or
//! not at all, and each of its rows has a checksum (`file.rs`). Where it lies and what lies beside
//! it is `folder.rs`; which way is taken, `plan.rs`.
//!
//! Only files and bytes are known here; [`crate::train::Source`] runs the model.

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
pub use file::{Opened, Reader, Writer};
pub use folder::{Entry, Found, clear, default_folder, list, room};
pub use info::CacheInfo;
pub use key::{FORMAT, Frozen, digest, key};
pub use layout::{About, Layout};
pub use options::{CacheDtype, CacheOptions};
pub use plan::{CachePolicy, Choice, Mode, Plan, plan};
pub use stored::Stored;
