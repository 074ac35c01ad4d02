//! What reports say of the cache.

use super::Mode;
use serde::{Deserialize, Serialize};

/// Where the frozen layers' activations were kept. The place changes no result; the type does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheInfo {
    /// In memory, in files, or nowhere.
    pub mode: Mode,
    /// `f32` or `bf16`.
    pub dtype: String,
    /// Views of each image.
    pub views: usize,
    /// Views whose files were there, sound, and used: a hit if all were.
    pub found: usize,
    /// Bytes of all views.
    pub bytes: u64,
    /// Seconds that computing, writing, reading and checking them took, once.
    pub seconds: f64,
    /// Folder of the files.
    pub folder: Option<String>,
    /// Digests that the files are named by, one a view.
    pub keys: Vec<String>,
}
