//! Whether what came of post-training may be written: it is held against the model that went in, on
//! all of V.

use super::score::{Pair, predict};
use crate::checkpoint::Checkpoint;
use crate::data::Split;
use crate::error::{Error, Result};
use crate::evaluate::losses;
use crate::objective::{Error as ObjectiveError, Objective};
use crate::train::Keep;
use crate::train::result::Selection;
use crate::train::run::Outcome;

/// What the judgement rests on.
pub struct Case<'a> {
    /// The model that went in.
    pub model: &'a Objective,
    /// The same at the weights kept.
    pub tuned: &'a Objective,
    /// V.
    pub val: Option<&'a Split>,
    /// What training gave.
    pub outcome: &'a Outcome,
    /// How weights were kept.
    pub keep: Keep,
    /// Validation images that epochs were watched on.
    pub watched: Option<usize>,
    /// Why the weights kept cannot be stored, if they cannot.
    pub overflow: Option<String>,
    /// Whether a worse result is written all the same.
    pub force: bool,
}

/// The judgement.
pub struct Judged {
    /// Both models' logits on V, if there is one.
    pub on_v: Option<Pair>,
    /// The weights kept, and what was found of them.
    pub selection: Selection,
    /// Why nothing is written, if nothing is.
    pub refusal: Option<String>,
    /// What a reader should know besides.
    pub notes: Vec<String>,
}

/// Training loss, as a share of the loss on V, below which gradients on training images move little.
const FITTED: f64 = 0.2;

/// Judges the weights that training kept. A result no worse than the input may be written; a worse
/// one, or none at all, only if forced.
///
/// # Errors
/// Images of V that cannot be read; logits on V that are not finite.
pub fn judge(checkpoint: &Checkpoint, case: &Case) -> Result<Judged> {
    let Outcome { epoch, epochs, start, stopped, .. } = case.outcome;
    // A result whose logits are no numbers is a result, if a useless one: it is judged, too.
    let (on_v, useless) = match predict(checkpoint, [case.model, case.tuned], case.val) {
        Ok(on_v) => (on_v, None),
        Err(Error::Objective(ObjectiveError::Predictions(why))) => {
            (None, Some(format!("on V, {why}")))
        }
        Err(error) => return Err(error),
    };
    // Not even if forced: there is nothing to write.
    let impossible = case.overflow.clone().or(useless);
    let mean = |of: &Pair, i: usize| {
        let losses = losses(&of[i], 1.0);
        losses.iter().sum::<f64>() / losses.len() as f64
    };
    let figures = on_v.as_ref().map(|pair| (mean(pair, 0), mean(pair, 1), pair[0].images()));
    let worse = figures.map(|(before, after, _)| after > before);
    let problem = match (epoch, figures) {
        (0, _) => {
            Some("no epoch was finished soundly, and the weights are the input's own".to_owned())
        }
        (_, Some((before, after, n))) if after > before => {
            let [after, before] = apart(after, before);
            Some(format!(
                "epoch {epoch} is worse than the input on the {n} images of V: loss {after} after, \
                 {before} before"
            ))
        }
        _ => None,
    };
    // As the guard of training has it: a loss that no fitted model has on its own classes.
    let guessing = (case.model.config.classes as f64).ln();
    let problem = match figures {
        Some((before, ..)) if before > guessing + 1.0 => Some(format!(
            "the input's own loss on V is {before:.4}, worse than guessing ({guessing:.4}): labels \
             or preprocessing are probably not those it was trained with"
        )),
        _ => problem,
    };
    let mut notes: Vec<String> = stopped.iter().map(|s| s.to_string()).collect();
    match (case.keep, case.watched) {
        (_, None) => notes.push(
            "there are no validation images, so nothing guards the result but the training loss"
                .into(),
        ),
        (Keep::Best, Some(n)) if *epoch > 0 && epochs.len() > 1 => notes.push(format!(
            "epoch {epoch} of {} was selected by its loss on {n} images of V: V's figures after \
             training are of a chosen epoch, and test's are not",
            epochs.len()
        )),
        _ => {}
    }
    let force = case.force && impossible.is_none();
    let problem = impossible.or(problem);
    if let (Some(problem), true) = (&problem, force) {
        notes.push(format!("{problem}; written all the same, since `force` is set"));
    }
    let refusal = problem.filter(|_| !force).map(|problem| {
        let because = stopped.as_ref().map_or(String::new(), |s| format!("{s}; "));
        let best = if case.keep == Keep::Last { " use `keep` best," } else { "" };
        let training = epochs.first().map(|e| e.training_loss);
        let remedy = remedy(training, figures.map(|(before, ..)| before), *epoch);
        let force = match *epoch {
            0 => "",
            _ => " or set `force` to write it all the same",
        };
        let said = format!("{because}{problem}; nothing was written: {remedy}{best}{force}");
        said.trim_end_matches(',').to_owned()
    });
    let selection = Selection {
        keep: case.keep,
        selected_epoch: *epoch,
        watched_images: case.watched,
        loss_at_start: *start,
        stopped: stopped.clone(),
        guarded_by_images: figures.map(|f| f.2),
        worse_than_input: worse,
        forced: case.force,
        refusal: refusal.clone(),
    };
    Ok(Judged { on_v, selection, refusal, notes })
}

/// What to do about a result that is not written, by the loss on training images in the first epoch and
/// the input's on V.
fn remedy(training: Option<f64>, before: Option<f64>, epoch: usize) -> String {
    match (training, before) {
        (Some(loss), Some(before)) if epoch > 0 && loss < FITTED * before => format!(
            "training images are fitted already (loss {loss:.3}), so that their gradients move \
             little: add `weight_decay` 0.01 with `lr` 0.1, try `search` 5 in place of a method,"
        ),
        _ => "lower `lr`, add `warmup` or `clip`,".to_owned(),
    }
}

/// Two figures with four decimals, or as many more as tell them apart.
fn apart(a: f64, b: f64) -> [String; 2] {
    let with = |decimals: usize| [a, b].map(|x| format!("{x:.decimals$}"));
    (4..16).map(with).find(|[a, b]| a != b).unwrap_or_else(|| with(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_has_nothing_left_to_learn_is_not_told_to_go_slower() {
        let slower = |training, before, epoch| remedy(training, before, epoch).contains("`lr`,");
        assert!(!slower(Some(0.04), Some(1.06), 1));
        assert!(remedy(Some(0.04), Some(1.06), 1).contains("`weight_decay`"));
        // It still learns, it exploded, or nobody knows.
        assert!(slower(Some(0.5), Some(1.06), 1));
        assert!(slower(Some(0.04), Some(1.06), 0));
        assert!(slower(None, Some(1.06), 1) && slower(Some(0.04), None, 1));
    }
}
