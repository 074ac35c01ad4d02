//! Memory limit of a command.

use super::as_text;
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// Memory limit, for commands that forecast their memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Common options"))]
pub struct Limit {
    /// Limit the memory of the process, for example to 4GiB.
    ///
    /// To stay within the limit, the program processes fewer images at a time and keeps the
    /// activations of frozen layers on disk or not at all.
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "SIZE", value_parser = super::text::memory
    ))]
    #[serde(with = "as_text::option")]
    pub memory: Option<ByteSize>,
}

impl Limit {
    /// The limit in MiB.
    pub fn mib(&self) -> Option<f64> {
        self.memory.map(|size| size.as_u64() as f64 / (1 << 20) as f64)
    }
}
