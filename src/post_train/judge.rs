//! Decides whether a result may be written, by comparing it with the input model on all of V.

use super::result::Selection;
use super::score::{Pair, Unusable, predict, usable};
use crate::checkpoint::Checkpoint;
use crate::data::Split;
use crate::error::Result;
use crate::evaluate::{Bound, fit, losses};
use crate::objective::Objective;
use crate::train::Keep;
use crate::train::run::Outcome;

/// Input to the decision.
pub struct Case<'a> {
    /// The input model.
    pub model: &'a Objective,
    /// The model with the selected weights.
    pub tuned: &'a Objective,
    /// V.
    pub val: Option<&'a Split>,
    /// The training outcome.
    pub outcome: &'a Outcome,
    /// How the weights were selected.
    pub keep: Keep,
    /// Number of validation images that epochs were watched on.
    pub watched: Option<usize>,
    /// Why the selected weights cannot be stored, if so.
    pub overflow: Option<Unusable>,
    /// Whether to write a worse result anyway.
    pub write_worse: bool,
}

/// The decision.
pub struct Judged {
    /// Both models' logits on V, if there is one.
    pub on_v: Option<Pair>,
    /// The selected weights and how they were judged.
    pub selection: Selection,
    /// Why nothing is written, if so.
    pub refusal: Option<String>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// If training loss is below this fraction of the loss on V, gradients on training images are too
/// small to matter.
const FITTED: f64 = 0.2;

/// A relative change of the loss on V that small steps may cause. After a larger one, steps are not too
/// small.
const BARELY: f64 = 0.02;

/// Judges the selected weights. A result no worse than the input may be written. A worse one, or
/// one without a finished epoch, is written only with `write_worse`.
///
/// # Errors
/// Unreadable images of V; non-finite logits of the input model on V.
pub fn judge(checkpoint: &Checkpoint, case: &Case) -> Result<Judged> {
    let Outcome { epoch, epochs, start, stopped, .. } = case.outcome;
    // A result with non-finite logits is judged too.
    let (on_v, useless) = match usable(predict(checkpoint, [case.model, case.tuned], case.val))? {
        Ok(on_v) => (on_v, None),
        Err(why) => (None, Some(format!("on V, {why}"))),
    };
    // `write_worse` does not help here: there is nothing to write.
    let impossible = case.overflow.as_ref().map(Unusable::to_string).or(useless);
    let mean = |of: &Pair, i: usize| {
        let losses = losses(&of[i], 1.0);
        losses.iter().sum::<f64>() / losses.len() as f64
    };
    let figures = on_v.as_ref().map(|pair| (mean(pair, 0), mean(pair, 1), pair[0].images()));
    let worse = figures.map(|(before, after, _)| after > before);
    let problem = match (epoch, figures) {
        (0, _) => {
            Some("no epoch finished without an error, so the weights are unchanged".to_owned())
        }
        (_, Some((before, after, n))) if after > before => {
            let [after, before] = apart(after, before);
            Some(format!(
                "epoch {epoch} is worse than the input on the {n} images of V: the loss is {after} after, \
                 {before} before"
            ))
        }
        _ => None,
    };
    // A high loss alone may be overconfidence, which a temperature removes.
    let guessing = (case.model.network.classes() as f64).ln();
    let no_temperature_helps =
        || on_v.as_ref().is_some_and(|pair| fit(&pair[0]).bound == Some(Bound::Guessing));
    let problem = match figures {
        Some((before, ..)) if before > guessing + 1.0 && no_temperature_helps() => Some(format!(
            "the input's loss on V is {before:.4}, and at any temperature it is no better than guessing \
             ({guessing:.4}): its labels or preprocessing probably differ from its training"
        )),
        _ => problem,
    };
    let mut notes: Vec<String> = stopped.iter().map(|s| s.to_string()).collect();
    match (case.keep, case.watched) {
        (_, None) => notes.push(
            "there are no validation images, so only the training loss guards the result".into(),
        ),
        (Keep::Best, Some(n)) if *epoch > 0 && epochs.len() > 1 => notes.push(format!(
            "epoch {epoch} of {} was selected by its loss on {n} images of V: metrics on V after \
             training are therefore optimistic; metrics on test are not",
            epochs.len()
        )),
        _ => {}
    }
    let force = case.write_worse && impossible.is_none();
    let problem = impossible.or(problem);
    if let (Some(problem), true) = (&problem, force) {
        notes.push(format!("{problem}; written anyway, because `write_worse` is set"));
    }
    let refusal = problem.filter(|_| !force).map(|problem| {
        let because = stopped.as_ref().map_or(String::new(), |s| format!("{s}; "));
        let best = if case.keep == Keep::Last { " use `keep` best," } else { "" };
        let training = epochs.first().map(|e| e.training_loss);
        let remedy = remedy(training, figures.map(|(before, after, _)| (before, after)), *epoch);
        let force = match *epoch {
            0 => "",
            _ => " or set `write_worse` to write it anyway",
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
        forced: case.write_worse,
        refusal: refusal.clone(),
    };
    Ok(Judged { on_v, selection, refusal, notes })
}

/// What to do about a refused result, given the training loss in the first epoch and the losses on V,
/// before and after.
fn remedy(training: Option<f64>, on_v: Option<(f64, f64)>, epoch: usize) -> String {
    match (training, on_v) {
        (Some(loss), Some((before, after)))
            if epoch > 0 && loss < FITTED * before && after < (1.0 + BARELY) * before =>
        {
            format!(
                "the model already fits the training images (loss {loss:.3}), so gradients are \
             small: set `weight_decay` to 0.01 and `lr` to 0.1, or let `search` choose a recipe,"
            )
        }
        _ => "lower `lr`, add `warmup` or `clip`,".to_owned(),
    }
}

/// Two numbers with four decimals, or as many as needed to differ.
fn apart(a: f64, b: f64) -> [String; 2] {
    let with = |decimals: usize| [a, b].map(|x| format!("{x:.decimals$}"));
    (4..16).map(with).find(|[a, b]| a != b).unwrap_or_else(|| with(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_lower_rate_is_suggested_if_the_training_loss_is_tiny() {
        let slower = |training, before: Option<f64>, epoch| {
            remedy(training, before.map(|before| (before, before + 1e-3)), epoch).contains("`lr`,")
        };
        assert!(!slower(Some(0.04), Some(1.06), 1));
        assert!(remedy(Some(0.04), Some((1.06, 1.061)), 1).contains("`weight_decay`"));
        // The steps were large enough to harm.
        assert!(remedy(Some(0.04), Some((1.06, 1.3)), 1).contains("`lr`,"));
        // Still learning, diverged, or unknown.
        assert!(slower(Some(0.5), Some(1.06), 1));
        assert!(slower(Some(0.04), Some(1.06), 0));
        assert!(slower(None, Some(1.06), 1) && slower(Some(0.04), None, 1));
    }
}
