//! Figures of a result: the model that went in and the one that came out, side by side.

use super::Args;
use super::judge::Judged;
use super::work::Work;
use crate::images::data_info;
use crate::saved;
use crate::scoring::{Pair, before_after, predict, remeasure, temperatures};
use crate::subject::Subject;
use planish::data::Split;
use planish::evaluate::PredictionsInfo;
use planish::objective::Objective;
use planish::train::result::{BeforeAfter, LayerBeforeAfter};

/// The model before and after, on V and on test.
#[derive(Default)]
pub struct Figures {
    /// On V.
    pub validation: Option<BeforeAfter>,
    /// On test.
    pub test: Option<BeforeAfter>,
    /// The tuned model's logits, if they were saved.
    pub predictions: Option<PredictionsInfo>,
    /// p and u, measured again.
    pub layers: Vec<LayerBeforeAfter>,
}

/// Scores both models. What was not `written` is no result: then test stays unread, and no layer is
/// measured again.
///
/// # Errors
/// Images that cannot be read; logits that are not finite or cannot be saved.
pub fn figures(
    args: &Args,
    work: &Work,
    tuned: &Objective,
    judged: &Judged,
    written: bool,
) -> anyhow::Result<Figures> {
    let Work { checkpoint, sources, roles, recipe, .. } = work;
    let model = &work.model.exact();
    let scored = |split: &Option<Split>, own: Option<&Pair>, v: Option<&Pair>, origin: &str| {
        let both = split.as_ref().zip(own);
        let score = |(split, own): (&Split, &Pair)| {
            let info = data_info(sources.of(split), split, origin);
            before_after(own, v, info, args.common.seed)
        };
        both.map(score).transpose()
    };
    let on_v = judged.on_v.as_ref();
    let validation = scored(&roles.val, on_v, None, &roles.val_origin)?;
    if !written {
        return Ok(Figures { validation, ..Figures::default() });
    }
    let on_test = predict(checkpoint, [model, tuned], roles.test.as_ref())?;
    let test = scored(&roles.test, on_test.as_ref(), on_v, "test")?;
    let predictions = match (&args.dump, &on_test) {
        (Some(path), Some(own)) => {
            let [_, after] = temperatures(own, on_v, args.common.seed)?;
            Some(saved::write(path, &own[1], &after)?)
        }
        _ => None,
    };
    let layers = match (args.recipe.remeasure, &work.subject) {
        (Some(0), _) | (_, None) => Vec::new(),
        (None, Some(subject)) => remeasure(subject, tuned, recipe, &args.common)?,
        (n, Some(_)) => {
            let subject = Subject::new(checkpoint, roles, n, &args.common)?;
            remeasure(&subject, tuned, recipe, &args.common)?
        }
    };
    Ok(Figures { validation, test, predictions, layers })
}
