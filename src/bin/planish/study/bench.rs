//! The combinations that a `[[bench]]` asks for.

use super::file::Bench;
use super::options::{plain, read, word};
use super::problem::Problem;
use super::setup::{Pair, Setup};
use crate::recipe::{LayerArgs, Name, check_heeded, recipe};
use crate::training::{Kept, LineArgs, RecipeArgs, SamArgs, check};
use anyhow::Context;
use clap::{Parser, ValueEnum};
use planish::checkpoint::Checkpoint;
use planish::train::recipe::{Kind, Recipe};
use planish::vit::Granularity;
use planish::vit::layers::layers;
use toml::{Spanned, Value};

/// Runs of one `[[bench]]` on one model at most: more would be a slip of the pen.
const MOST: usize = 1_000_000;

/// The options of a run.
#[derive(Clone, Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
pub struct RunWords {
    /// Of the training.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Which weights to keep.
    #[arg(long, value_enum)]
    pub keep: Option<Kept>,
}

/// One run: a method on layers with settings and a seed.
#[derive(Clone, Debug)]
pub struct Run {
    /// What is done to which layers.
    pub recipe: Recipe,
    /// How it is trained.
    pub words: RunWords,
    /// Seed of B, B′ and γ.
    pub seed: u64,
}

impl Run {
    /// Its method and layers in a few words: `pol head → norm`.
    pub fn called(&self) -> String {
        let Recipe { kind, perturb, update, .. } = &self.recipe;
        let perturbed = perturb.as_ref().map_or(String::new(), |p| format!("{} → ", p.name));
        format!("{} {perturbed}{}", kind.name(), update.name)
    }

    /// Plain SGD on the same layers, batches and settings.
    pub fn control(&self) -> Run {
        let mut control = self.clone();
        control.recipe = Recipe { kind: Kind::Sgd, perturb: None, rho: 0.0, ..self.recipe.clone() };
        (control.words.recipe.line, control.words.recipe.sam) = Default::default();
        control
    }
}

/// Whether a `[[bench]]` asks for this pair.
///
/// # Errors
/// A name that is none of the file's.
pub fn wants(setup: &Setup, bench: &Bench, pair: Pair) -> Result<bool, Problem> {
    let models: Vec<&str> = setup.file.model.iter().map(|m| m.name.as_ref().as_str()).collect();
    let data: Vec<&str> = setup.file.data.iter().map(|d| d.name.as_ref().as_str()).collect();
    let among = |what: &str, asked: &Option<Vec<Spanned<String>>>, known: &[&str], at: usize| {
        let Some(asked) = asked else { return Ok(true) };
        let stranger = asked.iter().find(|name| !known.contains(&name.as_ref().as_str()));
        match stranger {
            Some(name) => Err(setup.text.problem(
                name.span(),
                what,
                format!("names among {}", known.join(", ")),
                format!("`{}`", name.as_ref()),
                "correct it, or leave the list out to take all",
            )),
            None => Ok(asked.iter().any(|name| name.as_ref() == known[at])),
        }
    };
    let model = among("models", &bench.models, &models, pair.model)?;
    Ok(among("data", &bench.data, &data, pair.data)? && model)
}

/// Every run that a `[[bench]]` asks for on one checkpoint, controls left out: seed by seed, setting
/// by setting, method by method, layers by layers.
///
/// # Errors
/// [`Problem`]: options that make no sense, or layers that the model lacks.
pub fn runs(setup: &Setup, bench: &Bench, checkpoint: &Checkpoint) -> anyhow::Result<Vec<Run>> {
    let methods = methods(setup, bench)?;
    let settings = settings(setup, bench, &methods)?;
    let mut all = Vec::new();
    for &seed in &bench.seeds {
        for words in &settings {
            for &method in &methods {
                let own = heeded(method, words);
                for layers in places(setup, bench, method, checkpoint)? {
                    let none = || Ok(None);
                    let made = recipe(method, &layers, &own.recipe, checkpoint, "", &none);
                    let (recipe, _) = made.with_context(|| {
                        let file = setup.text.path.display();
                        format!("{file}, [[bench]] `{}`", bench.name.as_ref())
                    })?;
                    all.push(Run { recipe, words: own.clone(), seed });
                }
            }
        }
        too_many(setup, bench, all.len())?;
    }
    Ok(all)
}

fn too_many(setup: &Setup, bench: &Bench, found: usize) -> Result<(), Problem> {
    if found <= MOST {
        return Ok(());
    }
    let (at, found) = (bench.name.span(), format!("{found} or more"));
    let expected = format!("at most {MOST} runs of a model");
    Err(setup.text.problem(at, "[[bench]]", expected, found, "ask for fewer combinations"))
}

fn methods(setup: &Setup, bench: &Bench) -> Result<Vec<Name>, Problem> {
    let method = |name: &Spanned<String>| {
        Name::from_str(name.as_ref(), false).map_err(|_| {
            let all = Name::value_variants().iter().filter_map(|n| n.to_possible_value());
            let all: Vec<String> = all.map(|n| n.get_name().to_owned()).collect();
            let (at, found) = (name.span(), format!("`{}`", name.as_ref()));
            setup.text.problem(at, "methods", all.join(", "), found, "choose among these")
        })
    };
    bench.methods.iter().map(method).collect()
}

/// Every combination of the grid's values.
fn settings(setup: &Setup, bench: &Bench, methods: &[Name]) -> Result<Vec<RunWords>, Problem> {
    let grid = &bench.grid;
    for (key, instead) in [("train-seed", "seeds = [0, 1]"), ("remeasure", "diagnose = true")] {
        if grid.as_ref().keys().any(|k| k.replace('_', "-") == key) {
            let (at, found) = (grid.span(), format!("`{key}`"));
            let remedy = format!("write {instead} beside the grid");
            return Err(setup.text.problem(at, "grid", "options of every run", found, remedy));
        }
    }
    let mut combinations: Vec<Vec<String>> = vec![Vec::new()];
    for (key, value) in grid.as_ref() {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        too_many(setup, bench, combinations.len().saturating_mul(values.len()))?;
        let with = |chosen: &Vec<String>| -> Vec<Vec<String>> {
            let more = |value| chosen.iter().cloned().chain(word(key, value)).collect();
            values.iter().map(more).collect()
        };
        combinations = combinations.iter().flat_map(with).collect();
    }
    let names: Vec<String> = methods.iter().map(|&m| called(m)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let one = |words: &Vec<String>| -> Result<RunWords, Problem> {
        let found: RunWords = read(&setup.text, "grid", grid, words)?;
        let own = &found.recipe;
        let sound = check(own).and_then(|()| check_heeded(&names, &own.line, &own.sam));
        sound.map_err(|said| {
            let expected = "options that go together and with the methods";
            let remedy = "correct the grid";
            setup.text.problem(grid.span(), "grid", expected, said.to_string(), remedy)
        })?;
        Ok(found)
    };
    combinations.iter().map(one).collect()
}

fn called(method: Name) -> String {
    method.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The options without those that the method would not heed.
pub fn heeded(method: Name, words: &RunWords) -> RunWords {
    let mut own = words.clone();
    let SamArgs { rho, asam_eta, look_every, look_alpha } = own.recipe.sam.clone();
    if !matches!(method, Name::Pol | Name::Pof) {
        own.recipe.line = LineArgs::default();
    }
    own.recipe.sam = match method {
        Name::Pol | Name::Pof | Name::Sgd => SamArgs::default(),
        Name::Sam | Name::SamNorm => SamArgs { rho, ..SamArgs::default() },
        Name::Asam => SamArgs { rho, asam_eta, ..SamArgs::default() },
        Name::Looksam => SamArgs { rho, look_every, look_alpha, asam_eta: None },
    };
    own
}

/// The layers that a method is tried on.
fn places(
    setup: &Setup,
    bench: &Bench,
    method: Name,
    checkpoint: &Checkpoint,
) -> Result<Vec<LayerArgs>, Problem> {
    let on = |perturb: Option<&str>, update: &str| LayerArgs {
        perturb: perturb.map(str::to_owned),
        update: Some(update.to_owned()),
        plan: None,
    };
    match method {
        Name::Pof => Ok(vec![LayerArgs::default()]),
        Name::Pol => {
            let pairs = pairs(setup, bench, checkpoint)?;
            Ok(pairs.iter().map(|(p, u)| on(Some(p), u)).collect())
        }
        _ => Ok(match &bench.update {
            None => vec![on(None, "*")],
            Some(layers) => layers.iter().map(|u| on(None, u.as_ref())).collect(),
        }),
    }
}

/// p and u of PoL: the pairs that are listed, or all, p = u among them.
fn pairs(
    setup: &Setup,
    bench: &Bench,
    checkpoint: &Checkpoint,
) -> Result<Vec<(String, String)>, Problem> {
    let expected = "\"all\", or pairs such as [[\"head\", \"norm\"]], p first";
    let wrong = |at, found| {
        setup.text.problem(at, "pairs of pol", expected, found, "say which layers PoL is tried on")
    };
    let Some(given) = &bench.pairs else { return Err(wrong(bench.name.span(), "none".to_owned())) };
    let found = || plain(given.as_ref());
    match given.as_ref() {
        Value::String(all) if all == "all" => {
            let all = layers(&checkpoint.config, Granularity::Block);
            let with = |p: &planish::vit::Layer| -> Vec<(String, String)> {
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
        _ => Err(wrong(given.span(), found())),
    }
}
