//! Stable fingerprints: the SHA-256 of versioned canonical JSON.
//!
//! Cache files and study cells are named by a fingerprint of everything they depend on. Canonical
//! JSON has sorted object keys and no white space, so names depend neither on field order nor on
//! `Debug` output. The schema is part of the hash: when the meaning of a field changes, raise the
//! version, and old names are no longer found.

use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// SHA-256, as 64 hexadecimal digits, of `{"schema": schema, "of": of}` in canonical JSON.
///
/// `schema` names what is fingerprinted and its version, such as `planish/activations/2`.
///
/// # Errors
/// A value that JSON cannot represent, such as a map with keys that are not strings.
pub fn fingerprint(schema: &str, of: &impl Serialize) -> serde_json::Result<String> {
    let value = json!({ "schema": schema, "of": serde_json::to_value(of)? });
    Ok(sha256_hex(serde_json::to_string(&canonical(value))?.as_bytes()))
}

/// SHA-256 as 64 hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same value with the keys of every object sorted.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> =
                members.into_iter().map(|(key, value)| (key, canonical(value))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(Map::from_iter(members))
        }
        Value::Array(values) => Value::Array(values.into_iter().map(canonical).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_the_canonical_text() {
        let text = r#"{"of":{"a":1,"b":[{"x":0.5,"y":null}]},"schema":"test/1"}"#;
        let value = json!({ "b": [{ "y": null, "x": 0.5 }], "a": 1 });
        assert_eq!(fingerprint("test/1", &value).unwrap(), sha256_hex(text.as_bytes()));
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(b"abc"), abc);
    }

    #[test]
    fn ignores_key_order_only() {
        let of = |value| fingerprint("test/1", &value).unwrap();
        let base = of(json!({ "a": 1, "b": [1, 2] }));
        assert_eq!(of(json!({ "b": [1, 2], "a": 1 })), base);
        let others =
            [json!({ "a": 1, "b": [2, 1] }), json!({ "a": 1.5, "b": [1, 2] }), json!({ "a": 1 })];
        assert!(others.into_iter().all(|other| of(other) != base));
        assert_ne!(fingerprint("test/2", &json!({ "a": 1, "b": [1, 2] })).unwrap(), base);
    }
}
