//! Data options that may be given several times: written as one text if there is one source, otherwise as a list.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    None,
    One(String),
    Several(Vec<String>),
}

/// Writes nothing as null, one source as a text, several as a list.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(sources: &[String], to: S) -> Result<S::Ok, S::Error> {
    match sources {
        [] => to.serialize_none(),
        [one] => one.serialize(to),
        several => several.serialize(to),
    }
}

/// Reads what [`serialize`] writes.
///
/// # Errors
/// A value that is neither a text nor a list of texts.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(match Given::deserialize(from)? {
        Given::None => Vec::new(),
        Given::One(one) => vec![one],
        Given::Several(several) => several,
    })
}
