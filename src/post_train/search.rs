//! Searches for a recipe: tries recipes within a time budget and compares them on V only.

use super::resolve::resolve;
use super::run::TrialSpec;
use super::score::Compared;
use super::trials::{Trial, Trials};
use super::{PostTrainOptions, check_adapters};
use crate::checkpoint::Checkpoint;
use crate::data::{DataOptions, Role, ValOrigin, require};
use crate::error::{Error, Result};
use crate::evaluate::Estimate;
use crate::format::{ABSENT, duration, epochs, estimate, optional};
use crate::lora::can_adapt;
use crate::models::Network;
use crate::options;
use crate::session::{Context, Data};
use crate::train::options::{MethodName, keep_or_default};
use crate::train::{LoraOptions, MethodArgs, MethodOptions, TrainArgs, TrainOptions};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::time::{Duration, Instant};

/// A recipe that a search tried, with its metrics on V. They are missing if the run failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// The name, as in [`MethodInfo`](super::result::MethodInfo).
    pub method: String,
    /// p, if anything is perturbed.
    pub perturb: Option<String>,
    /// u.
    pub update: String,
    /// The adapters that were trained, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraOptions>,
    /// The highest learning rate.
    #[serde(alias = "learning_rate")]
    pub lr: f64,
    /// The weight decay.
    pub weight_decay: f64,
    /// Maximum number of epochs. The weights of the epoch with the lowest loss on V were kept. 0 for moves,
    /// which need no training.
    pub epochs: usize,
    /// Mean NLL on V.
    pub nll: Option<f64>,
    /// Mean NLL with a temperature cross-fitted on halves of V.
    pub calibrated_nll: Option<f64>,
    /// Paired difference of NLL, before − after.
    pub nll_gain: Option<Estimate>,
    /// The same with temperature scaling on both sides.
    pub calibrated_nll_gain: Option<Estimate>,
    /// Run time in seconds. The first run of a group includes the frozen layers.
    pub seconds: f64,
}

/// The method of moves without training.
const MOVES: &str = "fix";

impl Tried {
    /// Moves of a fix, `name`, with a temperature folded into the head, against the input.
    pub fn of_moves(name: String, found: &Compared, seconds: f64) -> Self {
        Self {
            method: MOVES.into(),
            perturb: None,
            update: name,
            lora: None,
            lr: 0.0,
            weight_decay: 0.0,
            epochs: 0,
            nll: Some(found.after.nll),
            calibrated_nll: Some(found.after.calibrated_nll),
            nll_gain: Some(found.nll_gain),
            calibrated_nll_gain: Some(found.calibrated_nll_gain),
            seconds,
        }
    }

    /// Its name in tables.
    pub fn name(&self) -> String {
        match &self.perturb {
            None if self.epochs == 0 => format!("{}: {}", self.method, self.update),
            Some(p) => format!("{} {p} → {}", self.method, self.update),
            None => match self.lora.as_ref().and_then(LoraOptions::title) {
                Some(title) => format!("{} {title} → {}", self.method, self.update),
                None => format!("{} → {}", self.method, self.update),
            },
        }
    }

    fn is_moves(&self) -> bool {
        self.method == MOVES
    }

    fn is_control(&self) -> bool {
        self.method == MethodName::Sgd.name() && self.lora.is_none()
    }

    /// Whether it is plain SGD on `other`'s layer, with the same settings.
    pub fn is_control_of(&self, other: &Tried) -> bool {
        let settings =
            |t: &Tried| (t.update.clone(), t.lr.to_bits(), t.weight_decay.to_bits(), t.epochs);
        self.is_control() && !other.is_control() && settings(self) == settings(other)
    }
}

/// Headers of [`RecipeSearch::leading`].
pub const HEADERS: [&str; 8] = [
    "recipe",
    "lr",
    "weight decay",
    "epochs",
    "NLL on V",
    "gain",
    "calibrated gain",
    "calibrated gain of control",
];

/// What a search tried before it chose the report's recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipeSearch {
    /// The time budget.
    pub minutes: f64,
    /// The time used.
    pub seconds: f64,
    /// Number of recipes the search would have tried without a time limit.
    pub recipes: usize,
    /// Index of the chosen recipe in `tried`.
    pub chosen: Option<usize>,
    /// All tried recipes, in order.
    pub tried: Vec<Tried>,
}

impl RecipeSearch {
    /// One row for each of the `n` recipes with the largest calibrated gain, with the gain of its
    /// control if that was tried.
    pub fn leading(&self, n: usize) -> Vec<[String; 8]> {
        let gain = |t: &Tried| t.calibrated_nll_gain.map_or(f64::NEG_INFINITY, |g| g.mean);
        let mut order: Vec<&Tried> = self.tried.iter().collect();
        order.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
        let shown = |value: Option<Estimate>, loss: Option<f64>| {
            let value = value.map(|value| value.beyond_rounding(loss.unwrap_or(0.0)));
            value.map_or(ABSENT.into(), estimate)
        };
        let row = |tried: &Tried| {
            let trained = |text: String| if tried.epochs > 0 { text } else { ABSENT.into() };
            let control = self.tried.iter().find(|other| other.is_control_of(tried));
            [
                tried.name(),
                trained(tried.lr.to_string()),
                trained(tried.weight_decay.to_string()),
                trained(tried.epochs.to_string()),
                optional(tried.nll),
                shown(tried.nll_gain, tried.nll),
                shown(tried.calibrated_nll_gain, tried.calibrated_nll),
                shown(control.and_then(|c| c.calibrated_nll_gain), tried.calibrated_nll),
            ]
        };
        order.into_iter().take(n).map(row).collect()
    }

    /// Which recipe was chosen, and whether its gain is significant.
    pub fn taken(&self) -> Option<String> {
        let taken = self.tried.get(self.chosen?)?;
        let gain = taken.calibrated_nll_gain?;
        let beyond = match gain.mean > 1.96 * gain.stderr.unwrap_or(0.0) {
            true => "its gain on V after temperature scaling",
            false => "after temperature scaling, its gain on V is not significant",
        };
        let settings = match taken.epochs {
            0 => String::new(),
            n => format!(
                ", learning rate {}, weight decay {}, {}",
                taken.lr,
                taken.weight_decay,
                epochs(n)
            ),
        };
        Some(format!(
            "a search on V chose {}{settings}; {beyond}: {}",
            taken.name(),
            estimate(gain)
        ))
    }

    /// How to read the first `shown` rows.
    pub fn sentence(&self, shown: usize) -> String {
        let shown = match self.tried.len() {
            n if n > shown => format!(", the best {shown} by calibrated gain shown"),
            _ => String::new(),
        };
        format!(
            "{} of {} recipes tried{shown}; gains are paired differences on V, before − after; \
             temperatures are cross-fitted on halves of V; the best gain is optimistic, because it was selected",
            self.tried.len(),
            self.recipes
        )
    }
}

/// The result of a search.
pub struct SearchResult {
    /// The options of the best recipe, as if the user had set them; `None` if no recipe lowers the
    /// loss, or if the moves are chosen.
    pub best: Option<PostTrainOptions>,
    /// All tried recipes, for the report.
    pub search: RecipeSearch,
}

impl SearchResult {
    /// Whether the moves without training are chosen.
    pub fn chose_moves(&self) -> bool {
        self.best.is_none() && self.search.chosen.is_some()
    }

    /// The options of the best recipe.
    ///
    /// # Errors
    /// No recipe lowers the loss.
    pub fn options(&self) -> Result<PostTrainOptions> {
        self.best.clone().ok_or_else(|| {
            Error::Refused(format!(
                "none of {} recipes lowers the loss on V, before and after temperature scaling; \
                 no checkpoint was written: give `search` more minutes, or keep the model unchanged",
                self.search.tried.len()
            ))
        })
    }
}

/// Tries recipes for a number of minutes, cheapest first, and chooses one by its losses on V. Test
/// images are not read.
///
/// Candidates lower the loss after temperature scaling and do not raise the loss before it. The
/// candidate with the largest gain after temperature scaling, and all within one standard error of
/// it, are tied. Of these, moves are chosen, which need no training; otherwise the recipe with the lowest
/// loss.
///
/// `base` holds the options that all recipes share, such as batch size, precision and cache. Its method
/// options are used by the methods that read them. With adapters, SGD of a layer with linear layers is tried
/// with and without them. `moves` finds a candidate without training on the same V in the number of seconds
/// that it is given, half of the time; see [`FixCandidate`](crate::fix::FixCandidate).
///
/// # Errors
/// Options that a search chooses itself; no training images or no V; those of training.
pub fn search(
    base: &PostTrainOptions,
    minutes: f64,
    checkpoint: &Checkpoint,
    data: &DataOptions,
    moves: &mut dyn FnMut(f64) -> Result<Option<Tried>>,
    context: &Context,
) -> Result<SearchResult> {
    check_left_open(base)?;
    let given = &base.of_method;
    base.preset.train(&base.train).check()?;
    base.cache.check()?;
    given.lora.check()?;
    given.check_read_by(&[&[MethodName::Sgd, MethodName::Pol][..], &ASCENTS].concat())?;
    let mut roles = Data::open(data, checkpoint)?.roles_of_training(checkpoint, context.seed)?;
    base.check_dump(&roles)?;
    // Test images must not influence the choice.
    roles.test = None;
    require(Role::Val, roles.val.as_ref())
        .map_err(|e| Error::from(e).context("a search needs validation images"))?;
    let train = require(Role::Train, roles.train.as_ref())?;
    let (train, cut) = base.preset.train_on(&base.train, train.len());
    cut.iter().for_each(|note| context.note(note));
    let candidates = candidates(base, &train, checkpoint, context.seed)?;
    let runs: Vec<&TrialSpec> = candidates.iter().map(|(_, run)| run).collect();
    let budget = Duration::from_secs_f64(minutes * 60.0);
    context.info(&format!(
        "search: up to {} recipes in {}, compared on V only",
        runs.len(),
        duration(budget.as_secs_f64())
    ));
    let began = Instant::now();
    let mut tried: Vec<Tried> = moves(0.5 * budget.as_secs_f64())?.into_iter().collect();
    let without_training = tried.len();
    let mut places: Vec<usize> = Vec::new();
    {
        let task = context.task("search", runs.len() as u64, "recipes");
        let trials = Trials::new(checkpoint, &roles, None, context)?;
        let status = |what: &str| task.status(what);
        trials.train(&runs, &status, &mut |place, trial| {
            // Assume that the next run takes about as long as this one.
            let next = Duration::from_secs_f64(trial.seconds);
            tried.push(Tried::new(runs[place], &trial));
            places.push(place);
            task.advance(1);
            Ok(began.elapsed() + next < budget)
        })?;
    }
    let chosen = best(&tried);
    let search = RecipeSearch {
        minutes,
        seconds: began.elapsed().as_secs_f64(),
        recipes: without_training + runs.len(),
        chosen,
        tried,
    };
    let place = chosen.and_then(|chosen| places.get(chosen.checked_sub(without_training)?));
    Ok(SearchResult { best: place.map(|&place| candidates[place].0.clone()), search })
}

impl Tried {
    fn new(run: &TrialSpec, trial: &Trial) -> Self {
        let val = trial.val.as_ref();
        Self {
            method: run.recipe.method.name().into(),
            perturb: run.recipe.perturb.as_ref().map(|p| p.name.clone()),
            update: run.recipe.update.name.clone(),
            lora: Some(run.recipe.lora.clone()).filter(|lora| lora.lora.is_some()),
            lr: run.train.lr,
            weight_decay: run.train.weight_decay,
            epochs: run.train.epochs,
            nll: val.map(|v| v.after.nll),
            calibrated_nll: val.map(|v| v.after.calibrated_nll),
            nll_gain: val.map(|v| v.nll_gain),
            calibrated_nll_gain: val.map(|v| v.calibrated_nll_gain),
            seconds: trial.seconds,
        }
    }
}

/// Index of the recipe to choose; see [`search`].
fn best(tried: &[Tried]) -> Option<usize> {
    let sound: Vec<(usize, Estimate, Estimate)> = tried
        .iter()
        .enumerate()
        .filter_map(|(place, t)| {
            let calibrated = t.calibrated_nll_gain?.beyond_rounding(t.calibrated_nll?);
            Some((place, calibrated, t.nll_gain?))
        })
        .filter(|(_, calibrated, gain)| calibrated.mean > 0.0 && gain.mean >= 0.0)
        .collect();
    let (_, top, _) = sound.iter().max_by(|(_, a, _), (_, b, _)| a.mean.total_cmp(&b.mean))?;
    let least = top.mean - top.stderr.unwrap_or(0.0);
    let level: Vec<&(usize, Estimate, Estimate)> =
        sound.iter().filter(|(_, calibrated, _)| calibrated.mean >= least).collect();
    // The raw loss of moves has a temperature in it, and that of recipes has not.
    let moves = level.iter().find(|(place, ..)| tried[*place].is_moves());
    let recipe = level.iter().max_by(|(_, _, a), (_, _, b)| a.mean.total_cmp(&b.mean));
    moves.or(recipe).map(|(place, ..)| *place)
}

/// All candidates with their runs, cheapest first.
fn candidates(
    base: &PostTrainOptions,
    shared: &TrainOptions,
    checkpoint: &Checkpoint,
    seed: u64,
) -> Result<Vec<(PostTrainOptions, TrialSpec)>> {
    let none = || Ok(None);
    let mut all = Vec::new();
    for Candidate { method, lr, weight_decay, epochs } in
        with_adapters(grid(&checkpoint.network), base, checkpoint)?
    {
        let train = TrainOptions { lr, weight_decay, epochs, ..shared.clone() };
        // A recipe that cannot run would end the search after others took its time.
        train.check()?;
        let method = with_given(method, &base.of_method)?;
        let recipe = resolve(&method, None, None, checkpoint, &ValOrigin::None, &none)?.recipe;
        check_adapters(&recipe.lora, &recipe.update, checkpoint)?;
        let work = recipe.work(&checkpoint.network, train.batch_size) * epochs as f64;
        let options = PostTrainOptions {
            train: TrainArgs {
                batch_size: Some(train.batch_size),
                lr: Some(lr),
                weight_decay: Some(weight_decay),
                epochs: Some(epochs),
                ..base.train.clone()
            },
            ..base.with_method(&method)
        };
        let run = TrialSpec {
            recipe,
            train,
            cache: options.cache.clone(),
            keep: keep_or_default(options.keep, true)?,
            seed: options.train_seed.unwrap_or(seed),
        };
        // Group runs that freeze the same layers, starting at the head.
        all.push((Reverse(run.recipe.first_stage()), work, options, run));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    Ok(all.into_iter().map(|(_, _, options, run)| (options, run)).collect())
}

/// The grid with another candidate for each SGD of a layer that can get the given adapters.
fn with_adapters(
    grid: Vec<Candidate>,
    base: &PostTrainOptions,
    checkpoint: &Checkpoint,
) -> Result<Vec<Candidate>> {
    let lora = &base.of_method.lora;
    if lora.lora.is_none() {
        return Ok(grid);
    }
    let mut all = Vec::new();
    for candidate in grid {
        let adapted = match &candidate.method {
            MethodOptions::Sgd { update: Some(update), .. }
                if can_adapt(&checkpoint.network, update)? =>
            {
                let method =
                    MethodOptions::Sgd { update: Some(update.clone()), lora: lora.clone() };
                Some(Candidate { method, ..candidate.clone() })
            }
            _ => None,
        };
        all.push(candidate);
        all.extend(adapted);
    }
    Ok(all)
}

/// Refuses options that each recipe sets for itself.
fn check_left_open(base: &PostTrainOptions) -> Result<()> {
    let PostTrainOptions { method, preset, plan, of_method, train, .. } = base;
    let given = [
        ("method", method.is_some()),
        ("preset", preset.preset.is_some()),
        ("plan", plan.is_some()),
        ("perturb", of_method.perturb.is_some()),
        ("update", of_method.update.is_some()),
        ("epochs", train.epochs.is_some()),
        ("lr", train.lr.is_some()),
        ("weight_decay", train.weight_decay.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((option, _)) => {
            let text = format!("`search` chooses `{option}` itself: remove one of the two");
            Err(options::Error::Conflict(text).into())
        }
    }
}

/// The method with the given options that it reads; its layers and adapters do not change.
fn with_given(method: MethodOptions, given: &MethodArgs) -> Result<MethodOptions> {
    let name = method.name();
    let options = MethodArgs {
        perturb: method.perturb().map(str::to_owned),
        update: method.update().map(str::to_owned),
        lora: method.lora(),
        ..given.of(name)
    };
    Ok(options.method(name)?)
}

/// A recipe before it is resolved to a [`TrialSpec`].
#[derive(Clone)]
struct Candidate {
    method: MethodOptions,
    lr: f64,
    weight_decay: f64,
    epochs: usize,
}

/// The methods that are tried on all layers, besides SGD.
const ASCENTS: [MethodName; 3] = [MethodName::Sam, MethodName::FriendlySam, MethodName::SlSam];

/// The search grid. Near the head, where runs are cheap: all combinations of a few values. Below:
/// one block at a time. Last: all layers.
fn grid(network: &Network) -> Vec<Candidate> {
    let mut all = Vec::new();
    let mut add = |method: MethodOptions, [rates, decays]: [&[f64]; 2], epochs: &[usize]| {
        for &lr in rates {
            for &weight_decay in decays {
                for &epochs in epochs {
                    all.push(Candidate { method: method.clone(), lr, weight_decay, epochs });
                }
            }
        }
    };
    let blocks: Vec<String> = network.trunk().into_iter().rev().map(|layer| layer.name).collect();
    let (last, below) = match blocks.split_first() {
        Some((last, below)) => (Some(last.as_str()), below),
        None => (None, [].as_slice()),
    };
    let near: [&[f64]; 2] = [&[0.03, 0.1, 0.3], &[0.0, 0.01, 0.03]];
    // Some networks have no last norm.
    let has_norm = network.blocks().iter().any(|layer| layer.name == "norm");
    let norms = [("head", "norm"), ("norm", "head")].into_iter().filter(|_| has_norm);
    for (update, perturb) in norms.chain(last.map(|last| (last, "head"))) {
        add(MethodOptions::sgd(update), near, &[3, 10]);
        add(MethodOptions::pol(perturb, update), near, &[3, 10]);
    }
    for block in below {
        add(MethodOptions::sgd(block), [&[0.01, 0.03], &[0.0, 0.01]], &[3]);
    }
    add(MethodOptions::sgd("*"), [&[0.003, 0.01], &[0.0, 0.01]], &[3]);
    // Without a layer, the variants of SAM update all.
    for name in ASCENTS {
        add(MethodOptions::default_of(name), [&[0.001, 0.003], &[0.0]], &[3]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recipe with these gains: in loss, and in loss after temperature scaling with its standard
    /// error.
    fn tried(nll: f64, calibrated: f64, stderr: f64) -> Tried {
        let of = |mean, stderr| Some(Estimate { mean, stderr: Some(stderr) });
        Tried {
            method: "sgd".into(),
            perturb: None,
            update: "norm".into(),
            lora: None,
            lr: 0.1,
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
    fn chooses_the_lowest_loss_among_tied_recipes() {
        let top = tried(0.1, 0.03, 0.004);
        let level = tried(0.2, 0.027, 0.004);
        let behind = tried(0.5, 0.025, 0.004);
        assert_eq!(best(&[top.clone(), level, behind.clone()]), Some(1));
        assert_eq!(best(&[behind, top]), Some(1));
        // Skip recipes that raise the loss, or that gain nothing after temperature scaling.
        assert_eq!(best(&[tried(-0.1, 0.03, 0.1), tried(0.3, -0.01, 0.1)]), None);
        let nothing = Tried { nll_gain: None, ..tried(0.1, 0.1, 0.1) };
        assert_eq!(best(&[nothing]), None);
    }

    #[test]
    fn adapters_are_tried_beside_the_whole_layers() {
        let checkpoint = Checkpoint::open("assets/model".as_ref(), &Default::default()).unwrap();
        let lora = LoraOptions { lora: Some(2), ..LoraOptions::default() };
        let of_method = MethodArgs { lora, ..MethodArgs::default() };
        let base = PostTrainOptions { of_method, ..PostTrainOptions::default() };
        let shared = TrainOptions::default();
        let all = candidates(&base, &shared, &checkpoint, 0).unwrap();
        let plain = PostTrainOptions::default();
        assert_eq!(
            candidates(&plain, &shared, &checkpoint, 0).unwrap().len(),
            grid(&checkpoint.network).len()
        );
        let adapted =
            |(options, _): &&(PostTrainOptions, TrialSpec)| options.of_method.lora.lora.is_some();
        // All SGD recipes but those of head and norm, which have nothing to adapt: 18 of the last block, 4 of
        // each other block, and 4 of all layers.
        let blocks = checkpoint.network.trunk().len();
        let with: Vec<_> = all.iter().filter(adapted).collect();
        assert_eq!(with.len(), 18 + 4 * (blocks - 1) + 4);
        for (options, run) in with {
            let (control, train) = (run.recipe.control(), &run.train);
            let same = |(_, other): &(PostTrainOptions, TrialSpec)| {
                other.recipe.is_control()
                    && other.recipe.update.tensors == control.update.tensors
                    && other.train == *train
            };
            assert!(all.iter().any(same));
            assert_eq!(options.method().unwrap().lora(), run.recipe.lora);
            assert_eq!(options.preset.train(&options.train), run.train);
        }
    }

    #[test]
    fn what_a_search_chooses_is_refused() {
        let train = TrainArgs { lr: Some(0.1), ..TrainArgs::default() };
        let base = PostTrainOptions { train, ..PostTrainOptions::default() };
        let error = check_left_open(&base).unwrap_err().to_string();
        assert!(error.starts_with("`search` chooses `lr` itself"), "{error}");
        assert!(check_left_open(&PostTrainOptions::default()).is_ok());
    }

    #[test]
    fn moves_compete_with_recipes() {
        let moves = Tried { method: MOVES.into(), epochs: 0, ..tried(0.3, 0.04, 0.004) };
        let moves = Tried { update: "embed (toward) by 0.8".into(), ..moves };
        let recipe = tried(0.2, 0.03, 0.004);
        let search = RecipeSearch {
            minutes: 1.0,
            seconds: 1.0,
            recipes: 2,
            chosen: best(&[moves.clone(), recipe.clone()]),
            tried: vec![moves.clone(), recipe],
        };
        assert_eq!(search.chosen, Some(0));
        let row = &search.leading(1)[0];
        assert_eq!(
            (row[0].as_str(), row[1].as_str(), row[3].as_str()),
            ("fix: embed (toward) by 0.8", "–", "–")
        );
        let taken = search.taken().unwrap();
        assert!(
            taken.starts_with("a search on V chose fix: embed (toward) by 0.8; its gain"),
            "{taken}"
        );
        // In a tie, moves are chosen although their raw loss is higher; otherwise the best is.
        let of_moves =
            |calibrated| Tried { method: MOVES.into(), epochs: 0, ..tried(0.1, calibrated, 0.004) };
        assert_eq!(best(&[tried(0.2, 0.03, 0.004), of_moves(0.027)]), Some(1));
        assert_eq!(best(&[tried(0.2, 0.03, 0.004), of_moves(0.02)]), Some(0));
        // A gain that rounding explains is none.
        let rounding = Estimate { mean: 1e-9, stderr: Some(1e-9) };
        let temperature = Tried { calibrated_nll_gain: Some(rounding), ..moves };
        assert_eq!(best(&[temperature]), None);
    }

    #[test]
    fn names_the_chosen_recipe_and_its_gain() {
        let describe = |t: Tried| {
            let search = RecipeSearch {
                minutes: 1.0,
                seconds: 1.0,
                recipes: 2,
                chosen: Some(0),
                tried: vec![t],
            };
            search.taken().unwrap()
        };
        let established = describe(tried(0.1, 0.03, 0.004));
        let chosen = "a search on V chose sgd → norm, learning rate 0.1, weight decay 0, 3 epochs;";
        assert!(established.starts_with(chosen), "{established}");
        assert!(established.ends_with("0.0300 ± 0.0040"), "{established}");
        assert!(
            describe(tried(0.1, 0.003, 0.004)).ends_with("is not significant: 0.0030 ± 0.0040")
        );
    }
}
