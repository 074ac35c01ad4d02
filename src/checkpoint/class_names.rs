//! Names of the classes, from whichever configuration there is.

use super::Error;
use super::reader::{Dialect, Reader};

impl Reader<'_> {
    /// Names of the classes, as many as the head has.
    ///
    /// # Errors
    /// Another number of them, and keys of `id2label` that do not count up from 0.
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
        // What transformers writes where nobody named the classes says nothing.
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
