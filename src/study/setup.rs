//! A study file with its options parsed: models, images and shifts.

use super::file::{StudyFile, StudyModel};
use super::problem::{Problem, Text, plain, refused, table};
use super::settings::{Attribute, ModelSettings};
use crate::checkpoint::{Checkpoint, Load};
use crate::data::{DataOptions, Roles};
use crate::engine::Precision;
use crate::error::Result;
use crate::options::{Error as OptionError, names, take};
use crate::session::{Context, Data};
use crate::shift::Shift;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use toml::{Spanned, Table};

/// A parsed study.
#[derive(Debug)]
pub struct Setup {
    /// The file's text.
    pub text: Text,
    /// Its parsed contents.
    pub file: StudyFile,
    /// Its models.
    pub models: Vec<(PathBuf, Load)>,
    /// Attributes of the models.
    pub attributes: Vec<BTreeMap<String, Option<Attribute>>>,
    /// Its data sets.
    pub data: Vec<DataOptions>,
    /// Its shifts.
    pub shifts: Vec<Shift>,
    /// Precision of evaluations.
    pub precision: Precision,
}

/// A model and a data set, by index in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelOnData {
    /// Index of the model.
    pub model: usize,
    /// Index of the data set.
    pub data: usize,
}

/// An opened pair.
pub struct Opened {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The data sets.
    pub data: Data,
    /// Which images have which role.
    pub roles: Roles,
}

impl Setup {
    /// Parses the options in the file.
    ///
    /// # Errors
    /// [`Problem`].
    pub fn new(text: Text, file: StudyFile) -> Result<Self, Problem> {
        let model = |m: &StudyModel| -> Result<(PathBuf, Load), Problem> {
            let what = "model options";
            let load: Load = options(&text, what, &m.options)?;
            load.check().map_err(|error| refused(&text, what, m.options.span(), error))?;
            Ok((m.checkpoint.clone(), load))
        };
        let models = file.model.iter().map(model).collect::<Result<_, _>>()?;
        let mut data = Vec::new();
        for d in &file.data {
            let own: DataOptions = options(&text, "data options", &d.options)?;
            if !own.data.is_empty() {
                let at = d.options.span();
                let (found, remedy) = ("`data`", "`source` names the images; remove it");
                let expected = "options beside `data`";
                return Err(text.problem(at, "data options", expected, found, remedy));
            }
            data.push(DataOptions { data: vec![d.source.clone()], ..own });
        }
        let asked = |s: &Spanned<String>| {
            s.as_ref().parse().map_err(|said: String| {
                let remedy = "use the syntax of `shift` of `planish eval`";
                text.problem(s.span(), "shifts", said, format!("\"{}\"", s.as_ref()), remedy)
            })
        };
        let shifts = file.shifts.iter().map(asked).collect::<Result<_, _>>()?;
        let precision = match file.precision.as_ref().map(|p| (p.as_ref().as_str(), p.span())) {
            None | Some(("f32", _)) => Precision::F32,
            Some(("bf16", _)) => Precision::Bf16,
            Some((other, at)) => {
                let found = format!("\"{other}\"");
                return Err(text.problem(at, "precision", "f32 or bf16", found, "choose one"));
            }
        };
        let attributes = attributes(&file.model);
        Ok(Self { models, attributes, data, shifts, precision, text, file })
    }

    /// All pairs of model and data set.
    pub fn pairs(&self) -> impl Iterator<Item = ModelOnData> {
        let data = self.data.len();
        (0..self.models.len())
            .flat_map(move |model| (0..data).map(move |data| ModelOnData { model, data }))
    }

    /// Opens a pair.
    ///
    /// # Errors
    /// Anything wrong with the checkpoint or the images.
    pub fn open(&self, pair: ModelOnData, context: &Context) -> Result<Opened> {
        let (path, load) = &self.models[pair.model];
        let checkpoint = Checkpoint::open(path, load)?;
        let data = Data::open(&self.data[pair.data], &checkpoint)?;
        let roles = data.roles_of_training(&checkpoint, context.seed)?;
        Ok(Opened { checkpoint, data, roles })
    }

    /// The model and data set of a pair, as the tables name them.
    pub fn model_settings(&self, pair: ModelOnData, checkpoint: &Checkpoint) -> ModelSettings {
        let (model, data) = (&self.file.model[pair.model], &self.file.data[pair.data]);
        ModelSettings {
            model: model.name.as_ref().clone(),
            attributes: self.attributes[pair.model].clone(),
            checkpoint: model.checkpoint.display().to_string(),
            checkpoint_digest: checkpoint.digest.clone(),
            architecture: checkpoint.architecture.clone(),
            parameters: checkpoint.weights.parameters(),
            data: data.name.as_ref().clone(),
            source: data.source.clone(),
        }
    }
}

/// The attributes of each model. All models have the same names, and all values of a name have one
/// type: whole numbers if all are, texts if any is.
fn attributes(models: &[StudyModel]) -> Vec<BTreeMap<String, Option<Attribute>>> {
    let names: BTreeSet<&String> =
        models.iter().flat_map(|m| m.attributes.as_ref().keys()).collect();
    let mut rows = vec![BTreeMap::new(); models.len()];
    for name in names {
        let values: Vec<Option<&toml::Value>> =
            models.iter().map(|m| m.attributes.as_ref().get(name)).collect();
        let any = |is: fn(&toml::Value) -> bool| values.iter().flatten().any(|v| is(v));
        let (texts, floats) = (any(toml::Value::is_str), any(toml::Value::is_float));
        for (row, value) in rows.iter_mut().zip(values) {
            let value = value.and_then(|value| match value {
                _ if texts => Some(Attribute::Text(plain(value))),
                toml::Value::Integer(n) if floats => Some(Attribute::Number(*n as f64)),
                toml::Value::Integer(n) => Some(Attribute::Whole(*n)),
                toml::Value::Float(x) => Some(Attribute::Number(*x)),
                _ => None,
            });
            row.insert(name.clone(), value);
        }
    }
    rows
}

/// Parses a struct's options from a table of the file.
fn options<T>(text: &Text, what: &str, given: &Spanned<Table>) -> Result<T, Problem>
where
    T: Default + Serialize + DeserializeOwned,
{
    let mut left = table(text, what, given)?;
    let read = take::<T>(&mut left);
    let read = read.and_then(|read| match left.keys().next() {
        None => Ok(read),
        Some(option) => {
            Err(OptionError::Unknown { option: option.clone(), known: names::<T>().join(", ") })
        }
    });
    read.map_err(|error| refused(text, what, given.span(), error))
}
