//! The name of a cell.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256 of what a cell follows from, in hexadecimal.
///
/// What is hashed is the JSON text of `key` on one line, whose members keep the order they were put
/// in; a member that is missing and one that is null are two keys.
pub fn digest(key: &Value) -> String {
    let hash = Sha256::digest(key.to_string().as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
