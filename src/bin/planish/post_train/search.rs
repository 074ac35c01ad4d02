//! `post-train --search`: recipes tried within a time and judged on V alone; the best is then run as if
//! the user had named it, so that all that holds of a run holds of its result.

use super::Args;
use crate::recipe::{LayerArgs, Name, recipe};
use crate::study::bench::{Run, RunWords, heeded};
use crate::study::setup::Opened;
use crate::study::training::Ground;
use crate::table::{Align, Style, Table};
use crate::training::check;
use anyhow::{Context, bail};
use planish::checkpoint::Checkpoint;
use planish::data::{Role, require};
use planish::evaluate::Estimate;
use planish::format::duration;
use planish::train::search::{HEADERS, Search, Tried};
use planish::vit::Config;
use serde_json::{Map, Value};
use std::time::{Duration, Instant};

/// Rows that are printed: the best.
const SHOWN: usize = 8;

/// A recipe before it is a [`Run`].
#[derive(Clone, Debug)]
struct Candidate {
    method: Name,
    layers: LayerArgs,
    lr: f64,
    weight_decay: f64,
    epochs: usize,
}

/// The options of the best recipe, and what was tried.
pub struct Found {
    /// As if the user had named it.
    pub args: Args,
    /// For the report.
    pub search: Search,
}

/// Tries recipes for so many minutes, those first that take the fewest operations, and takes one by its
/// losses on V, see [`best`]. Test images are not read.
///
/// # Errors
/// No training images, no V; no recipe that is better than the input; those of training.
pub fn search(args: &Args, minutes: f64) -> anyhow::Result<Found> {
    check(&args.recipe)?;
    let checkpoint = args.model.open()?;
    let sources = args.data.open(&checkpoint)?;
    let mut roles = sources.roles(&checkpoint, args.common.seed)?;
    // Whatever is chosen here must not have seen them.
    roles.test = None;
    require(Role::Val, roles.val.as_ref()).context("--search chooses on validation images")?;
    let opened = Opened { checkpoint, sources, roles };
    let (candidates, runs) = candidates(args, &opened.checkpoint)?;
    let budget = Duration::from_secs_f64(minutes * 60.0);
    args.common.say(&format!(
        "search: up to {} recipes in {}, judged on V alone",
        runs.len(),
        duration(budget.as_secs_f64())
    ));
    let began = Instant::now();
    let mut tried: Vec<Tried> = Vec::new();
    let mut places: Vec<usize> = Vec::new();
    let progress = args.common.progress("search", runs.len() as u64, "recipes");
    let ground = Ground::new(&opened, &args.common, None)?;
    let begin = |what: &str| progress.note(what);
    ground.train(&runs.iter().collect::<Vec<_>>(), &begin, &mut |place, figures, seconds| {
        tried.push(outcome(&runs[place], &figures, seconds));
        places.push(place);
        progress.add(1);
        // The next is about as long as this one.
        Ok(began.elapsed() + Duration::from_secs_f64(seconds) < budget)
    })?;
    let best = best(&tried);
    let search = Search {
        minutes,
        seconds: began.elapsed().as_secs_f64(),
        recipes: runs.len(),
        chosen: best,
        tried,
    };
    args.common.say(&table(&search));
    let Some(best) = best else {
        bail!(
            "none of {} recipes tried lowers the loss on V, before and after a temperature: nothing \
             was written; give --search more minutes, or leave the model as it is",
            search.tried.len()
        )
    };
    Ok(Found { args: named(args, &candidates[places[best]]), search })
}

/// The place of the recipe to take. Of those that lower the loss after a temperature and do not raise the
/// loss itself, the one that gains most after a temperature, and those within a standard error of its
/// gain, are level: of these it is the one of the least loss.
fn best(tried: &[Tried]) -> Option<usize> {
    let sound: Vec<(usize, Estimate, Estimate)> = tried
        .iter()
        .enumerate()
        .filter_map(|(place, t)| Some((place, t.calibrated_nll_gain?, t.nll_gain?)))
        .filter(|(_, calibrated, gain)| calibrated.mean > 0.0 && gain.mean >= 0.0)
        .collect();
    let (_, top, _) = sound.iter().max_by(|(_, a, _), (_, b, _)| a.mean.total_cmp(&b.mean))?;
    let least = top.mean - top.stderr.unwrap_or(0.0);
    let level = sound.iter().filter(|(_, calibrated, _)| calibrated.mean >= least);
    level.max_by(|(_, _, a), (_, _, b)| a.mean.total_cmp(&b.mean)).map(|(place, ..)| *place)
}

/// What the user would have said.
fn named(args: &Args, candidate: &Candidate) -> Args {
    let mut args = args.clone();
    args.method = candidate.method;
    args.layers = candidate.layers.clone();
    // Without the options that it would not heed.
    let words = RunWords { recipe: args.recipe, keep: args.keep };
    args.recipe = heeded(candidate.method, &words).recipe;
    args.recipe.lr = candidate.lr;
    args.recipe.weight_decay = candidate.weight_decay;
    args.recipe.epochs = candidate.epochs;
    args
}

/// Every candidate with its run, those with the fewest operations first.
fn candidates(args: &Args, checkpoint: &Checkpoint) -> anyhow::Result<(Vec<Candidate>, Vec<Run>)> {
    let none = || Ok(None);
    let mut all = Vec::new();
    for candidate in grid(&checkpoint.config) {
        let own = named(args, &candidate);
        let (recipe, _) = recipe(own.method, &own.layers, &own.recipe, checkpoint, "", &none)?;
        let seed = own.recipe.train_seed.unwrap_or(own.common.seed);
        let work = recipe.work(&checkpoint.config, own.recipe.batch_size);
        let run = Run { recipe, words: RunWords { recipe: own.recipe, keep: own.keep }, seed };
        // Runs that freeze the same layers follow one another, from the head down.
        let stage = std::cmp::Reverse(run.recipe.first_stage());
        all.push((stage, work * candidate.epochs as f64, candidate, run));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    Ok(all.into_iter().map(|(_, _, candidate, run)| (candidate, run)).unzip())
}

/// What is tried: near the head, where a run is cheap, every combination of a few levels; below, one
/// block at a time; at last all layers.
fn grid(config: &Config) -> Vec<Candidate> {
    let mut all = Vec::new();
    let mut add =
        |method, perturb: Option<&str>, update: &str, grid: [&[f64]; 2], epochs: &[usize]| {
            let [rates, decays] = grid;
            for &lr in rates {
                for &weight_decay in decays {
                    for &epochs in epochs {
                        let layers = LayerArgs {
                            perturb: perturb.map(str::to_owned),
                            update: Some(update.to_owned()),
                            plan: None,
                        };
                        all.push(Candidate { method, layers, lr, weight_decay, epochs });
                    }
                }
            }
        };
    let blocks: Vec<String> = (0..config.depth).rev().map(|i| format!("block.{i}")).collect();
    let (last, below) = match blocks.split_first() {
        Some((last, below)) => (Some(last.as_str()), below),
        None => (None, [].as_slice()),
    };
    let near: [&[f64]; 2] = [&[0.03, 0.1, 0.3], &[0.0, 0.01, 0.03]];
    for (update, perturb) in
        [("head", "norm"), ("norm", "head")].into_iter().chain(last.map(|last| (last, "head")))
    {
        add(Name::Sgd, None, update, near, &[3, 10]);
        add(Name::Pol, Some(perturb), update, near, &[3, 10]);
    }
    for block in below {
        add(Name::Sgd, None, block, [&[0.01, 0.03], &[0.0, 0.01]], &[3]);
    }
    add(Name::Sgd, None, "*", [&[0.003, 0.01], &[0.0, 0.01]], &[3]);
    add(Name::Sam, None, "*", [&[0.001, 0.003], &[0.0]], &[3]);
    all
}

fn outcome(run: &Run, figures: &Map<String, Value>, seconds: f64) -> Tried {
    let number = |name: &str| figures.get(name).and_then(Value::as_f64);
    let pair = |name: &str| {
        let stderr = number(&format!("{name}_stderr"));
        number(name).map(|mean| Estimate { mean, stderr })
    };
    Tried {
        method: run.recipe.kind.name().into(),
        perturb: run.recipe.perturb.as_ref().map(|p| p.name.clone()),
        update: run.recipe.update.name.clone(),
        learning_rate: run.words.recipe.lr,
        weight_decay: run.words.recipe.weight_decay,
        epochs: run.words.recipe.epochs,
        nll: number("val_after_nll"),
        calibrated_nll: number("val_after_calibrated_nll"),
        nll_gain: pair("val_nll_gain"),
        calibrated_nll_gain: pair("val_calibrated_nll_gain"),
        seconds,
    }
}

fn table(search: &Search) -> String {
    let columns: Vec<(&str, Align)> = HEADERS
        .iter()
        .enumerate()
        .map(|(i, name)| (*name, if i == 0 { Align::Left } else { Align::Right }))
        .collect();
    let mut table = Table::new(&columns);
    search.leading(SHOWN).into_iter().for_each(|row| table.row(row));
    format!("{}{}", table.render(Style::of_stdout()), search.sentence(SHOWN))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recipe of these gains: of the loss, and after a temperature with its standard error.
    fn tried(nll: f64, calibrated: f64, stderr: f64) -> Tried {
        let of = |mean, stderr| Some(Estimate { mean, stderr: Some(stderr) });
        Tried {
            method: "sgd".into(),
            perturb: None,
            update: "norm".into(),
            learning_rate: 0.1,
            weight_decay: 0.0,
            epochs: 3,
            nll: Some(1.0 - nll),
            calibrated_nll: Some(1.0 - calibrated),
            nll_gain: of(nll, 0.01),
            calibrated_nll_gain: of(calibrated, stderr),
            seconds: 1.0,
        }
    }

    #[test]
    fn of_recipes_that_are_level_after_a_temperature_the_least_loss_is_taken() {
        let top = tried(0.1, 0.03, 0.004);
        let level = tried(0.2, 0.027, 0.004);
        let behind = tried(0.5, 0.025, 0.004);
        assert_eq!(best(&[top.clone(), level, behind.clone()]), Some(1));
        assert_eq!(best(&[behind, top]), Some(1));
        // Neither a loss that rises nor one that a temperature would lower as well.
        assert_eq!(best(&[tried(-0.1, 0.03, 0.1), tried(0.3, -0.01, 0.1)]), None);
        let nothing = Tried { nll_gain: None, ..tried(0.1, 0.1, 0.1) };
        assert_eq!(best(&[nothing]), None);
    }

    #[test]
    fn what_was_taken_is_told_with_what_is_known_of_it() {
        let told = |t: Tried| {
            let search =
                Search { minutes: 1.0, seconds: 1.0, recipes: 2, chosen: Some(0), tried: vec![t] };
            search.taken().unwrap()
        };
        let established = told(tried(0.1, 0.03, 0.004));
        assert!(
            established.starts_with("a search on V took sgd → norm, rate 0.1, decay 0, 3 epochs;")
        );
        assert!(established.ends_with("0.0300 ± 0.0040"), "{established}");
        assert!(told(tried(0.1, 0.003, 0.004)).ends_with("from 0: 0.0030 ± 0.0040"));
    }
}
