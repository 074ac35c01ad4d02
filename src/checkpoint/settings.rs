//! A configuration as found: `config.json`, or the same JSON in a file's metadata.

use super::Error;
use super::header::kind;
use serde_json::{Map, Value};
use std::path::Path;

/// Metadata key of the configuration in a file without a folder.
pub const CONFIG_KEY: &str = "planish.config";
/// Metadata key of transformers' `preprocessor_config.json` in a file without a folder.
pub const PREPROCESSOR_KEY: &str = "planish.preprocessor";
/// transformers' preprocessing file, next to the configuration.
pub(super) const PREPROCESSOR_FILE: &str = "preprocessor_config.json";

/// A configuration and where it was found.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// File, or key in a file's metadata.
    pub place: String,
    /// The original text, which is written when the checkpoint is saved.
    pub text: String,
    json: Value,
}

impl Settings {
    /// Parses a configuration.
    pub fn parse(place: String, text: String) -> Result<Settings, Error> {
        let json: Value = serde_json::from_str(&text)
            .map_err(|source| Error::Json { place: place.clone(), source })?;
        let settings = Settings { place, text, json };
        match settings.json {
            Value::Object(_) => Ok(settings),
            ref other => Err(settings.wrong("the whole", "an object", kind(other).into())),
        }
    }

    /// A configuration without keys.
    pub fn empty(place: &str) -> Settings {
        let json = Value::Object(Map::new());
        Settings { place: place.into(), text: json.to_string(), json }
    }

    /// The configuration of a weights file; see [`Settings::look`].
    pub fn find(
        file: &Path,
        metadata: &[(String, String)],
        whole_folder: bool,
    ) -> Result<Option<Settings>, Error> {
        Settings::look(file, metadata, whole_folder, CONFIG_KEY, "config.json")
    }

    /// The configuration of transformers' image processor; see [`Settings::look`].
    pub fn find_images(
        file: &Path,
        metadata: &[(String, String)],
        whole_folder: bool,
    ) -> Result<Option<Settings>, Error> {
        Settings::look(file, metadata, whole_folder, PREPROCESSOR_KEY, PREPROCESSOR_FILE)
    }

    /// For a folder, the file of that name has priority. For a weights file given by itself, its
    /// metadata has priority, because files next to it may belong to another checkpoint.
    fn look(
        file: &Path,
        metadata: &[(String, String)],
        whole_folder: bool,
        key: &str,
        name: &str,
    ) -> Result<Option<Settings>, Error> {
        let inside = || match metadata.iter().find(|(known, _)| known == key) {
            Some((_, text)) => {
                let place = format!("{}: metadata \"{key}\"", file.display());
                Settings::parse(place, text.clone()).map(Some)
            }
            None => Ok(None),
        };
        if !whole_folder && let Some(found) = inside()? {
            return Ok(Some(found));
        }
        let beside = file.with_file_name(name);
        match std::fs::read(&beside) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                Settings::parse(beside.display().to_string(), text).map(Some)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => inside(),
            Err(e) => Err(Error::io(&beside, "read the configuration")(e)),
        }
    }

    /// The configuration after an edit; the text is kept if nothing changed.
    pub fn edited(&self, edit: impl FnOnce(&mut Map<String, Value>)) -> Settings {
        let mut json = self.json.clone();
        if let Value::Object(map) = &mut json {
            edit(map);
        }
        match json == self.json {
            true => self.clone(),
            false => Settings { place: self.place.clone(), text: format!("{json:#}\n"), json },
        }
    }

    /// All keys and values.
    pub fn whole(&self) -> Map<String, Value> {
        self.json.as_object().cloned().unwrap_or_default()
    }

    /// Whether both have the same values, regardless of formatting.
    pub fn same_values(&self, other: &Settings) -> bool {
        self.json == other.json
    }

    /// A value by its path, `a.b`; `None` if it is null.
    pub fn get(&self, path: &str) -> Option<&Value> {
        self.find_value(path).filter(|found| !found.is_null())
    }

    /// Whether a key exists, even with the value null.
    pub fn states(&self, path: &str) -> bool {
        self.find_value(path).is_some()
    }

    /// Whether a setting is false or empty.
    pub fn is_off(&self, path: &str) -> bool {
        self.get(path).is_none_or(|value| match value {
            Value::Bool(on) => !on,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        })
    }

    /// The keys of an object whose values are not null, in order; empty for other values. An empty
    /// path is the whole.
    pub fn keys(&self, path: &str) -> Vec<&str> {
        let object = match path {
            "" => self.json.as_object(),
            path => self.get(path).and_then(Value::as_object),
        };
        let stated = object.into_iter().flatten().filter(|(_, value)| !value.is_null());
        stated.map(|(key, _)| key.as_str()).collect()
    }

    fn find_value(&self, path: &str) -> Option<&Value> {
        // timm's old format has no `pretrained_cfg`: its keys are next to `architecture`.
        let first_form =
            self.json.get("architecture").is_some() && self.json.get("pretrained_cfg").is_none();
        let path = match path.strip_prefix("pretrained_cfg.") {
            Some(rest) if first_form => rest,
            _ => path,
        };
        // A key may contain a dot: `transformers.js_config`.
        let nested = || path.split('.').try_fold(&self.json, |value, key| value.get(key));
        self.json.get(path).or_else(nested)
    }

    fn wrong(&self, key: &str, expected: &str, found: String) -> Error {
        Error::Setting {
            place: self.place.clone(),
            key: key.to_string(),
            expected: expected.to_string(),
            found,
            remedy: "correct it".into(),
        }
    }

    fn read<T>(
        &self,
        path: &str,
        expected: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(path) else { return Ok(None) };
        match convert(value) {
            Some(read) => Ok(Some(read)),
            None => Err(self.wrong(path, expected, value.to_string())),
        }
    }

    /// A non-negative integer.
    pub fn count(&self, path: &str) -> Result<Option<usize>, Error> {
        self.read(path, "a whole number", count)
    }

    /// A boolean.
    pub fn flag(&self, path: &str) -> Result<Option<bool>, Error> {
        self.read(path, "true or false", Value::as_bool)
    }

    /// A string.
    pub fn text(&self, path: &str) -> Result<Option<&str>, Error> {
        let Some(value) = self.get(path) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(path, "a string", value.to_string()))
    }

    /// A finite number.
    pub fn number(&self, path: &str) -> Result<Option<f64>, Error> {
        self.read(path, "a number", |v| v.as_f64().filter(|x| x.is_finite()))
    }

    /// One number for both sides, or [height, width].
    pub fn pair(&self, path: &str) -> Result<Option<[usize; 2]>, Error> {
        self.read(path, "a whole number or [height, width]", |v| match v.as_array() {
            None => count(v).map(|n| [n, n]),
            Some(list) => match list.as_slice() {
                [h, w] => Some([count(h)?, count(w)?]),
                _ => None,
            },
        })
    }

    /// timm's input size: [channels, height, width].
    pub fn input_size(&self) -> Result<Option<[usize; 3]>, Error> {
        self.read("pretrained_cfg.input_size", "[channels, height, width]", |v| {
            match v.as_array()?.as_slice() {
                [c, h, w] => Some([count(c)?, count(h)?, count(w)?]),
                _ => None,
            }
        })
    }

    /// A list of finite numbers.
    pub fn numbers(&self, path: &str) -> Result<Option<Vec<f32>>, Error> {
        self.read(path, "a list of numbers", |v| {
            let finite = |x: &Value| x.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
            v.as_array()?.iter().map(finite).collect()
        })
    }

    /// A list of strings. timm's other forms (names under WordNet ids) have no order.
    pub fn names(&self, path: &str) -> Result<Option<Vec<String>>, Error> {
        if self.get(path).is_some_and(Value::is_object) {
            return Ok(None);
        }
        self.read(path, "a list of strings", |v| {
            v.as_array()?.iter().map(|name| name.as_str().map(str::to_string)).collect()
        })
    }

    /// An error for a setting of a different model or preprocessing than planish computes.
    pub fn not_computed(
        &self,
        path: &str,
        means: impl Into<Box<str>>,
        computes: &'static str,
        remedy: &'static str,
    ) -> Error {
        Error::NotComputed {
            place: self.place.as_str().into(),
            key: path.into(),
            found: self.get(path).map_or("nothing".into(), |value| value.to_string().into()),
            means: means.into(),
            computes,
            remedy,
        }
    }

    /// An error for a setting that planish does not support.
    pub fn unsupported(&self, path: &str, expected: &str, remedy: &str) -> Error {
        Error::Setting {
            place: self.place.clone(),
            key: path.to_string(),
            expected: expected.to_string(),
            found: self.get(path).map_or("nothing".into(), Value::to_string),
            remedy: remedy.to_string(),
        }
    }
}

fn count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}
