//! Class names in a timm or transformers configuration.

use super::Error;
use super::reader::{Dialect, Reader};
use super::settings::Settings;
use serde_json::{Map, Value, json};

impl Reader<'_> {
    /// Class names, one per class of the head.
    ///
    /// # Errors
    /// The number of names differs from `classes`; the keys of `id2label` do not count up from 0.
    pub fn class_names(&self, classes: usize) -> Result<Option<Vec<String>>, Error> {
        let Some(settings) = self.settings else { return Ok(None) };
        let (key, names) = match self.dialect {
            Dialect::Transformers => ("id2label", self.labels()?),
            Dialect::Timm => match settings.names("label_names")? {
                None => ("label_names", settings.names("pretrained_cfg.label_names")?),
                names => ("label_names", names),
            },
        };
        let Some(names) = names else { return Ok(None) };
        if names.len() != classes {
            let place = settings.place.as_str();
            let key =
                if key == "id2label" { "number of id2label" } else { "number of label_names" };
            return Err(self.contradiction(place, key, names.len(), classes, "the classifier"));
        }
        // These are the placeholder names that transformers writes when the classes have no names.
        let nameless = |(i, name): (usize, &String)| *name == format!("LABEL_{i}");
        if self.dialect == Dialect::Transformers && names.iter().enumerate().all(nameless) {
            return Ok(None);
        }
        Ok(Some(names))
    }

    /// transformers' `id2label`, an object whose keys are the indices as strings.
    fn labels(&self) -> Result<Option<Vec<String>>, Error> {
        let key = "id2label";
        let Some(settings) = self.settings else { return Ok(None) };
        let Some(value) = settings.get(key) else { return Ok(None) };
        let unfit = || {
            let expected = "names under the keys \"0\", \"1\", … without a gap";
            settings.unsupported(key, expected, "correct it")
        };
        let labels = value.as_object().ok_or_else(unfit)?;
        (0..labels.len())
            .map(|i| labels.get(&i.to_string()).and_then(|v| v.as_str()).map(str::to_string))
            .collect::<Option<Vec<String>>>()
            .map(Some)
            .ok_or_else(unfit)
    }
}

impl Settings {
    /// The number of classes, if it is stated.
    pub fn classes(&self, dialect: Dialect) -> Option<usize> {
        match dialect {
            Dialect::Timm => self.count("num_classes").ok().flatten(),
            Dialect::Transformers => self.get("id2label")?.as_object().map(Map::len),
        }
    }

    /// The configuration with other classes: sets their number and names, removes the old ones.
    pub fn with_classes(
        &self,
        dialect: Dialect,
        names: Option<&[String]>,
        classes: usize,
    ) -> Settings {
        self.edited(|map| match dialect {
            Dialect::Timm => name_timm(map, names, classes),
            Dialect::Transformers => name_transformers(map, names, classes),
        })
    }
}

/// timm: `label_names`, a list; `label_descriptions`, an object with these names as keys; `labels`,
/// which older versions wrote. `pretrained_cfg` may also have them.
fn name_timm(map: &mut Map<String, Value>, names: Option<&[String]>, classes: usize) {
    let known = |name: &String| names.is_some_and(|names| names.contains(name));
    let forget = |map: &mut Map<String, Value>, key: &str| {
        let keep = match map.get_mut(key) {
            // A class that is kept keeps its description.
            Some(Value::Object(described)) if key == "label_descriptions" => {
                described.retain(|name, _| known(name));
                !described.is_empty()
            }
            _ => false,
        };
        if !keep {
            map.shift_remove(key);
        }
    };
    for key in ["pretrained_cfg", "model_args"] {
        let Some(inner) = map.get_mut(key).and_then(Value::as_object_mut) else { continue };
        ["label_names", "labels", "label_descriptions"].iter().for_each(|key| forget(inner, key));
        if let Some(stated) = inner.get_mut("num_classes") {
            *stated = json!(classes);
        }
    }
    ["labels", "label_descriptions"].iter().for_each(|key| forget(map, key));
    match names {
        Some(names) => map.insert("label_names".into(), json!(names)),
        None => map.shift_remove("label_names"),
    };
    map.insert("num_classes".into(), json!(classes));
}

/// transformers: `id2label` and `label2id`, and `num_labels` if the configuration has it. The
/// number of classes is the length of `id2label`, so a model without names gets the placeholder
/// names of transformers.
fn name_transformers(map: &mut Map<String, Value>, names: Option<&[String]>, classes: usize) {
    let made_up = || (0..classes).map(|i| format!("LABEL_{i}")).collect();
    let names = names.map_or_else(made_up, <[_]>::to_vec);
    let by_number = names.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name)));
    let by_name = names.iter().enumerate().map(|(i, name)| (name.clone(), json!(i)));
    map.insert("id2label".into(), Value::Object(by_number.collect()));
    map.insert("label2id".into(), Value::Object(by_name.collect()));
    if let Some(stated) = map.get_mut("num_labels") {
        *stated = json!(classes);
    }
}
