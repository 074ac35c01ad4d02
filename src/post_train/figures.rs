//! Metrics of a result: the model before and after, side by side.

use super::PostTrainSession;
use super::judge::Judged;
use super::result::{BeforeAfter, LayerBeforeAfter};
use super::score::{Pair, before_after, predict, remeasure, temperatures};
use crate::data::Split;
use crate::diagnose::Measurer;
use crate::error::Result;
use crate::evaluate::PredictionsInfo;
use crate::objective::Objective;
use crate::session::{Context, data_info, saved};
use std::path::Path;

/// The model before and after, on V and on test.
#[derive(Default)]
pub struct TunedFigures {
    /// On V.
    pub validation: Option<BeforeAfter>,
    /// On test.
    pub test: Option<BeforeAfter>,
    /// The tuned model's logits, if saved.
    pub predictions: Option<PredictionsInfo>,
    /// Diagnosis of p and u after training.
    pub layers: Vec<LayerBeforeAfter>,
}

impl TunedFigures {
    /// Notes about temperatures that are not a minimum of the loss. Equal notes become one.
    pub fn temperature_notes(&self) -> Vec<String> {
        let parts = [("validation", &self.validation), ("test", &self.test)];
        let parts = parts.into_iter().filter_map(|(name, part)| Some((name, part.as_ref()?)));
        let mut notes: Vec<(&str, Vec<String>)> = Vec::new();
        for (name, part) in parts {
            for (when, figures) in [("before", &part.before), ("after", &part.after)] {
                let Some(note) = figures.temperature_note() else { continue };
                let of = format!("{name} {when}");
                match notes.iter_mut().find(|(known, _)| *known == note) {
                    Some((_, all)) => all.push(of),
                    None => notes.push((note, vec![of])),
                }
            }
        }
        let note =
            |(note, of): (&str, Vec<String>)| format!("temperature of {}: {note}", of.join(", "));
        notes.into_iter().map(note).collect()
    }
}

/// Scores both models. If the result was not `written`, test is not read and no layer is measured
/// again.
///
/// # Errors
/// Unreadable images; logits that are not finite or cannot be saved.
pub fn figures(
    session: &PostTrainSession,
    tuned: &Objective,
    judged: &Judged,
    written: bool,
    dump: Option<&Path>,
    context: &Context,
) -> Result<TunedFigures> {
    let PostTrainSession { checkpoint, data, roles, recipe, options, seed, .. } = session;
    let model = &session.model.exact();
    let scored = |split: &Option<Split>, own: Option<&Pair>, v: Option<&Pair>, origin: &str| {
        let both = split.as_ref().zip(own);
        let score = |(split, own): (&Split, &Pair)| {
            let info = data_info(data.of(split), split, origin);
            before_after(own, v, info, *seed)
        };
        both.map(score).transpose()
    };
    let on_v = judged.on_v.as_ref();
    let validation = scored(&roles.val, on_v, None, &roles.val_origin.to_string())?;
    if !written {
        return Ok(TunedFigures { validation, ..TunedFigures::default() });
    }
    let on_test = predict(checkpoint, [model, tuned], roles.test.as_ref())?;
    let test = scored(&roles.test, on_test.as_ref(), on_v, "test")?;
    let save = |path: Option<&Path>, i: usize| -> Result<Option<PredictionsInfo>> {
        let Some((path, own)) = path.zip(on_test.as_ref()) else { return Ok(None) };
        let scored_at = temperatures(&own[i], on_v.map(|v| &v[i]), *seed)?;
        Ok(Some(saved::write(path, &own[i], &scored_at)?))
    };
    save(options.dump_untouched.as_deref(), 0)?;
    let predictions = save(dump, 1)?;
    let layers = match (options.remeasure, &session.diagnosis) {
        (Some(0), _) | (_, None) => Vec::new(),
        (None, Some(on)) => remeasure(on, tuned, recipe, context)?,
        (n, Some(_)) => {
            let on = Measurer::new(checkpoint, roles, n, context)?;
            remeasure(&on, tuned, recipe, context)?
        }
    };
    Ok(TunedFigures { validation, test, predictions, layers })
}
