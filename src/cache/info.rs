//! Cache information in reports.

use super::CacheMode;
use serde::{Deserialize, Serialize};

/// Where the frozen layers' activations were cached. The place does not affect results; the type
/// does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheInfo {
    /// In memory, in files, or nowhere.
    pub mode: CacheMode,
    /// `f32` or `bf16`.
    pub dtype: String,
    /// Views of each image.
    pub views: usize,
    /// Number of views whose valid files were found and used.
    pub found: usize,
    /// Bytes of all views.
    pub bytes: u64,
    /// Seconds that computing, writing, reading and verifying them took.
    pub seconds: f64,
    /// Folder of the files.
    pub folder: Option<String>,
    /// Keys of the files, one per view.
    pub keys: Vec<String>,
}
