//! The training runs of a `[[bench]]`.

use super::file::Bench;
use super::problem::{Problem, Text, plain, refused, table};
use super::setup::{ModelOnData, Setup};
use crate::cache::CacheOptions;
use crate::checkpoint::Checkpoint;
use crate::data::ValOrigin;
use crate::error::{Error, Result};
use crate::models::layers::layers;
use crate::models::{Granularity, Layer};
use crate::options::{Error as OptionError, names, take};
use crate::post_train::resolve::resolve;
use crate::post_train::{TrialSpec, check_adapters};
use crate::train::options::{MethodName, keep_or_default};
use crate::train::{Keep, MethodArgs, PresetOptions, TrainArgs};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use toml::{Spanned, Value};

/// Maximum number of runs of one `[[bench]]` on one model. More are probably a mistake in the file.
const MOST: usize = 1_000_000;

/// One combination of the grid's values.
struct Combination {
    train: TrainArgs,
    cache: CacheOptions,
    keep: Option<Keep>,
    of_methods: MethodArgs,
    preset: PresetOptions,
}

/// The option of post-training that is in a grid besides those of training, cache and methods.
#[derive(Default, Serialize, Deserialize)]
struct KeepOption {
    keep: Option<Keep>,
}

/// Whether a `[[bench]]` includes this pair.
///
/// # Errors
/// A name that the file does not define.
pub fn wants(setup: &Setup, bench: &Bench, pair: ModelOnData) -> Result<bool, Problem> {
    let models: Vec<&str> = setup.file.model.iter().map(|m| m.name.as_ref().as_str()).collect();
    let data: Vec<&str> = setup.file.data.iter().map(|d| d.name.as_ref().as_str()).collect();
    let among = |what: &str, asked: &Option<Vec<Spanned<String>>>, known: &[&str], at: usize| {
        let Some(asked) = asked else { return Ok(true) };
        let stranger = asked.iter().find(|name| !known.contains(&name.as_ref().as_str()));
        match stranger {
            Some(name) => Err(setup.text.problem(
                name.span(),
                what,
                format!("names from {}", known.join(", ")),
                format!("\"{}\"", name.as_ref()),
                "correct it, or omit the list to use all",
            )),
            None => Ok(asked.iter().any(|name| name.as_ref() == known[at])),
        }
    };
    let model = among("models", &bench.models, &models, pair.model)?;
    Ok(among("data", &bench.data, &data, pair.data)? && model)
}

/// All runs of a `[[bench]]` on one checkpoint and so many training images, without controls. Nested by
/// seed, setting, method and layers. `note` gets notes for the user.
///
/// # Errors
/// [`Problem`]: invalid options, or layers that the model does not have.
pub fn runs(
    setup: &Setup,
    bench: &Bench,
    checkpoint: &Checkpoint,
    images: usize,
    note: &mut dyn FnMut(String),
) -> Result<Vec<TrialSpec>> {
    let methods = methods(setup, bench)?;
    unused_layers(setup, bench, &methods)?;
    let combinations = combinations(setup, bench, &methods)?;
    let mut all = Vec::new();
    for &seed in &bench.seeds {
        for Combination { train, cache, keep, of_methods, preset } in &combinations {
            let (train, cut) = preset.train_on(train, images);
            cut.into_iter().chain(preset.note(&methods)).for_each(&mut *note);
            for &name in &methods {
                for layers in places(setup, bench, name, checkpoint)? {
                    let none = || Ok(None);
                    let method = layers.of(&preset.fill(of_methods, name), name).method(name);
                    let made = method.map_err(Error::from).and_then(|method| {
                        let found =
                            resolve(&method, None, None, checkpoint, &ValOrigin::None, &none)?;
                        check_adapters(&found.recipe.lora, &found.recipe.update, checkpoint)?;
                        Ok(found.recipe)
                    });
                    let recipe = made.map_err(|error| match error {
                        Error::Options(error) => {
                            refused(&setup.text, "grid", bench.grid.span(), error).into()
                        }
                        error => {
                            let file = setup.text.path.display();
                            error.context(format!("{file}, [[bench]] \"{}\"", bench.name.as_ref()))
                        }
                    })?;
                    all.push(TrialSpec {
                        recipe,
                        train: train.clone(),
                        cache: cache.clone(),
                        keep: keep_or_default(*keep, true)?,
                        seed,
                    });
                }
            }
        }
        too_many(setup, bench, all.len())?;
    }
    Ok(all)
}

/// Refuses `pairs` and `update` if no method reads them.
fn unused_layers(setup: &Setup, bench: &Bench, methods: &[MethodName]) -> Result<(), Problem> {
    let refused = |at, what: &str, methods: &str| {
        let (expected, found) = (format!("methods with {methods}"), "none of them");
        Err(setup.text.problem(at, what, expected, found, "add one, or remove the setting"))
    };
    if let Some(pairs) = bench.pairs.as_ref().filter(|_| !methods.contains(&MethodName::Pol)) {
        return refused(pairs.span(), "pairs", "pol");
    }
    let reads = |method: &MethodName| !matches!(method, MethodName::Pol | MethodName::Pof);
    let update = bench.update.as_ref().filter(|_| !methods.iter().any(reads));
    match update.and_then(|update| update.first()) {
        Some(layer) => refused(layer.span(), "update", "sgd, sam or a variant of sam"),
        None => Ok(()),
    }
}

fn too_many(setup: &Setup, bench: &Bench, found: usize) -> Result<(), Problem> {
    if found <= MOST {
        return Ok(());
    }
    let (at, found) = (bench.name.span(), format!("{found} or more"));
    let expected = format!("at most {MOST} runs of a model");
    Err(setup.text.problem(at, "[[bench]]", expected, found, "reduce the combinations"))
}

fn methods(setup: &Setup, bench: &Bench) -> Result<Vec<MethodName>, Problem> {
    let method = |name: &Spanned<String>| {
        MethodName::named(name.as_ref()).ok_or_else(|| {
            let all: Vec<&str> = MethodName::ALL.iter().map(|m| m.name()).collect();
            let (at, found) = (name.span(), format!("\"{}\"", name.as_ref()));
            setup.text.problem(at, "methods", all.join(", "), found, "choose from these")
        })
    };
    bench.methods.iter().map(method).collect()
}

/// Every combination of the grid's values.
fn combinations(
    setup: &Setup,
    bench: &Bench,
    methods: &[MethodName],
) -> Result<Vec<Combination>, Problem> {
    let grid = table(&setup.text, "grid", &bench.grid)?;
    for (key, instead) in [
        ("train_seed", "seeds = [0, 1]"),
        ("remeasure", "diagnose = true"),
        ("perturb", "pairs = [[\"head\", \"norm\"]]"),
        ("update", "update = [\"norm\"]"),
    ] {
        if grid.contains_key(key) {
            let (at, found) = (bench.grid.span(), format!("\"{key}\""));
            let remedy = format!("write {instead} outside the grid");
            return Err(setup.text.problem(
                at,
                "grid",
                "training or method options",
                found,
                remedy,
            ));
        }
    }
    let mut all: Vec<Map<String, Json>> = vec![Map::new()];
    for (key, value) in grid {
        let values = match value {
            Json::Array(values) => values,
            one => vec![one],
        };
        too_many(setup, bench, all.len().saturating_mul(values.len()))?;
        let with = |chosen: Map<String, Json>| -> Vec<Map<String, Json>> {
            let more = |value: &Json| {
                let mut chosen = chosen.clone();
                chosen.insert(key.clone(), value.clone());
                chosen
            };
            values.iter().map(more).collect()
        };
        all = all.into_iter().flat_map(with).collect();
    }
    let read = |given| combination(given, methods);
    let refused = |error| refused(&setup.text, "grid", bench.grid.span(), error);
    all.into_iter().map(|given| read(given).map_err(refused)).collect()
}

/// Parses the options of a combination. Each must apply to all runs or to at least one of the
/// methods.
fn combination(
    mut given: Map<String, Json>,
    methods: &[MethodName],
) -> Result<Combination, OptionError> {
    let KeepOption { keep } = take(&mut given)?;
    let cache = take::<CacheOptions>(&mut given)?;
    cache.check()?;
    let preset = take::<PresetOptions>(&mut given)?;
    let train = take::<TrainArgs>(&mut given)?;
    preset.train(&train).check()?;
    let of_methods = take::<MethodArgs>(&mut given)?;
    if let Some(option) = given.keys().next() {
        let mut known = names::<TrainArgs>();
        known.extend(names::<CacheOptions>());
        known.extend(names::<MethodArgs>());
        known.extend(names::<KeepOption>());
        known.extend(names::<PresetOptions>());
        known.sort();
        return Err(OptionError::Unknown { option: option.clone(), known: known.join(", ") });
    }
    of_methods.check_read_by(methods)?;
    Ok(Combination { train, cache, keep, of_methods, preset })
}

/// The layers to use a method on.
struct Layers {
    perturb: Option<String>,
    update: Option<String>,
}

impl Layers {
    /// The options that a method reads, on these layers.
    fn of(&self, given: &MethodArgs, name: MethodName) -> MethodArgs {
        MethodArgs { perturb: self.perturb.clone(), update: self.update.clone(), ..given.of(name) }
    }
}

fn places(
    setup: &Setup,
    bench: &Bench,
    method: MethodName,
    checkpoint: &Checkpoint,
) -> Result<Vec<Layers>, Problem> {
    let on = |perturb: Option<&str>, update: &str| Layers {
        perturb: perturb.map(str::to_owned),
        update: Some(update.to_owned()),
    };
    match method {
        MethodName::Pof => Ok(vec![Layers { perturb: None, update: None }]),
        MethodName::Pol => {
            let pairs = pairs(setup, bench, checkpoint)?;
            Ok(pairs.iter().map(|(p, u)| on(Some(p), u)).collect())
        }
        _ => Ok(match &bench.update {
            None => vec![on(None, "*")],
            Some(layers) => layers.iter().map(|u| on(None, u.as_ref())).collect(),
        }),
    }
}

/// p and u of PoL: the listed pairs, or all pairs, including p = u.
fn pairs(
    setup: &Setup,
    bench: &Bench,
    checkpoint: &Checkpoint,
) -> Result<Vec<(String, String)>, Problem> {
    let expected = "\"all\", or pairs such as [[\"head\", \"norm\"]], p first";
    let text: &Text = &setup.text;
    let wrong =
        |at, found| text.problem(at, "pairs of pol", expected, found, "list the layers for PoL");
    let Some(given) = &bench.pairs else { return Err(wrong(bench.name.span(), "none".to_owned())) };
    match given.as_ref() {
        Value::String(all) if all == "all" => {
            let all = layers(&checkpoint.network, Granularity::Block);
            let with = |p: &Layer| -> Vec<(String, String)> {
                all.iter().map(|u| (p.name.clone(), u.name.clone())).collect()
            };
            Ok(all.iter().flat_map(with).collect())
        }
        Value::Array(list) => {
            let one = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
                Some([Value::String(p), Value::String(u)]) => Ok((p.clone(), u.clone())),
                _ => Err(wrong(given.span(), plain(pair))),
            };
            list.iter().map(one).collect()
        }
        other => Err(wrong(given.span(), plain(other))),
    }
}
