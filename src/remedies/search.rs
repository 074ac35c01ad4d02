//! Evaluates every move of some directions. Forward passes share what lies below the moved layers.

use super::Remedy;
use super::direction::Direction;
use super::figures::{AtAlpha, Gains, Start};
use super::findings::{MoveForm, MoveFound, OnV, RemedyFindings};
use super::grid::third;
use crate::error::Result;
use crate::evaluate::{Estimate, FEW, LEVEL, holm_above_zero, p_above_zero};
use crate::models::layers::join;
use crate::models::{Layer, Weights};
use crate::objective::{Activations, Error as ObjectiveError, Examples, Objective};
use crate::predictions::Predictions;
use crate::pretrained::{interpolate, lines};
use std::sync::Arc;

/// Smallest gain worth changing weights for, in nats. On many images, smaller ones can be significant.
pub const SMALLEST: f64 = 1e-3;

/// What is moved together.
pub struct Move {
    pub direction: Arc<Direction>,
    pub form: MoveForm,
    pub name: String,
    /// The parts of layers that move.
    pub parts: Vec<Layer>,
}

impl Move {
    /// The weights at α.
    pub fn at(&self, model: &Objective, alpha: f64) -> Result<Weights> {
        let (w, target, kept) = (&model.weights, &self.direction.target, 1.0 - alpha);
        let tensors = join(&self.parts).tensors;
        Ok(match self.form {
            MoveForm::Lines => lines(&model.network, w, target, &tensors, kept)?,
            _ => interpolate(w, target, &tensors, kept)?,
        })
    }
}

/// A search, and what it needs.
pub(super) struct Search<'a> {
    pub model: &'a Objective,
    pub directions: &'a [Arc<Direction>],
    /// The layers to move alone.
    pub layers: &'a [Layer],
    /// The layers to move together, from input to output; empty for no joint moves.
    pub joint: &'a [Layer],
    /// Moves looked at before on the same images.
    pub looked: usize,
    pub seed: u64,
    /// Called with the name of each move after it was evaluated.
    pub done: &'a dyn Fn(&str),
}

/// Every move with its figures.
pub struct Searched {
    pub found: RemedyFindings,
    /// The move of each entry of `found.moves`.
    pub moves: Vec<Move>,
}

impl Search<'_> {
    /// Evaluates all moves on V.
    pub fn run(&self, validation: &dyn Examples) -> Result<Searched> {
        let lowest = |layers: &[Layer]| layers.iter().map(|layer| layer.first_stage).min();
        let stages = [lowest(self.layers), lowest(self.joint)];
        let stage = stages.into_iter().flatten().min().unwrap_or(0);
        let mut at = self.model.activations_on_device(validation, stage)?;
        let start = Start::new(self.model.predict(&at)?, self.seed)?;
        let mut out: Vec<(Move, Gains)> = Vec::new();
        let mut notes = Vec::new();
        for direction in self.directions {
            let parts = direction.parts(&self.model.weights, self.joint)?;
            if direction.remedy.moves_together() && parts.len() > 1 {
                self.prefixes(direction, &parts, &at, &start, &mut out)?;
            }
        }
        let mut waiting = self.waiting(&mut notes)?;
        waiting.sort_by_key(|one| join(&one.parts).first_stage);
        for one in waiting {
            let first = join(&one.parts).first_stage;
            if first > at.stage {
                // One forward pass per image serves all layers.
                at = self.model.activations_on_device(&at, first)?;
            }
            self.evaluate(one, &at, &start, Vec::new(), &mut out)?;
        }
        Ok(self.searched(out, &start, notes))
    }

    /// Suffixes and single layers, which start from activations of the model as it is.
    fn waiting(&self, notes: &mut Vec<String>) -> Result<Vec<Move>> {
        let mut out = Vec::new();
        for direction in self.directions {
            let joint = direction.parts(&self.model.weights, self.joint)?;
            if direction.remedy.moves_together() {
                for first in 1..joint.len().saturating_sub(1) {
                    let parts = joint[first..].to_vec();
                    let (form, name) = (MoveForm::Suffix, span(&parts));
                    out.push(Move { direction: direction.clone(), form, name, parts });
                }
            }
            let single = direction.parts(&self.model.weights, self.layers)?;
            let absent = self.layers.iter().filter(|l| !single.iter().any(|s| s.name == l.name));
            let absent: Vec<&str> = absent.map(|layer| layer.name.as_str()).collect();
            if single.is_empty() && direction.remedy.moves_together() {
                notes.push(format!(
                    "{}: it has the same weights as the checkpoint",
                    direction.remedy
                ));
            } else if !absent.is_empty() && !matches!(direction.remedy, Remedy::Train(_)) {
                let (what, names) = (&direction.remedy, absent.join(", "));
                notes.push(format!("{what} changes nothing in {names}, which is left out"));
            }
            for part in single {
                let (form, name) = (MoveForm::Layer, part.name.clone());
                out.push(Move { direction: direction.clone(), form, name, parts: vec![part] });
            }
        }
        Ok(out)
    }

    /// All layers by one α, by LiNeS, and every prefix. At the first two α, one pass of the moved
    /// network gives the inputs of what stays for all prefixes.
    fn prefixes(
        &self,
        direction: &Arc<Direction>,
        parts: &[Layer],
        at: &Activations,
        start: &Start,
        out: &mut Vec<(Move, Gains)>,
    ) -> Result<()> {
        let grid = direction.remedy.grid();
        let all = Move {
            direction: direction.clone(),
            form: MoveForm::All,
            name: "all layers".into(),
            parts: parts.to_vec(),
        };
        // By number of moved layers.
        let mut known: Vec<Vec<AtAlpha>> = (0..=parts.len()).map(|_| Vec::new()).collect();
        for alpha in direction.remedy.first().map(|i| grid[i]) {
            let moved = self.model.at(all.at(self.model, alpha)?);
            let mut inputs = at.clone();
            for (i, part) in parts.iter().enumerate() {
                let last = i + 1 == parts.len();
                let stage = if last { moved.network.stages() } else { part.last_stage + 1 };
                let logits = match last {
                    true => finite(moved.predict(&inputs))?,
                    false if i == 0 => None,
                    false => {
                        inputs = moved.activations_on_device(&inputs, stage)?;
                        finite(self.model.predict(&inputs))?
                    }
                };
                if let Some(logits) = logits {
                    known[i + 1].push((alpha, logits));
                }
            }
        }
        let mut known = known.into_iter().enumerate().skip(2);
        let whole = known.next_back().map(|(_, logits)| logits).unwrap_or_default();
        self.evaluate(all, at, start, whole, out)?;
        let scheduled = Move {
            direction: direction.clone(),
            form: MoveForm::Lines,
            name: "LiNeS".into(),
            parts: parts.to_vec(),
        };
        self.evaluate(scheduled, at, start, Vec::new(), out)?;
        for (n, logits) in known {
            let parts = parts[..n].to_vec();
            let (form, name) = (MoveForm::Prefix, span(&parts));
            let one = Move { direction: direction.clone(), form, name, parts };
            self.evaluate(one, at, start, logits, out)?;
        }
        Ok(())
    }

    /// Evaluates one move from inputs at or below its first stage. Logits at the first two α may be
    /// known.
    fn evaluate(
        &self,
        one: Move,
        at: &Activations,
        start: &Start,
        known: Vec<AtAlpha>,
        out: &mut Vec<(Move, Gains)>,
    ) -> Result<()> {
        let grid = one.direction.remedy.grid();
        let first = one.direction.remedy.first().map(|i| grid[i]);
        let mut path = known;
        let evaluated = !path.is_empty();
        let mut losses = first.map(|alpha| (alpha, f64::INFINITY));
        for (alpha, loss) in &mut losses {
            if !evaluated {
                path.extend(self.logits(&one, at, *alpha)?.map(|logits| (*alpha, logits)));
            }
            if let Some((_, logits)) = path.iter().find(|(known, _)| known == alpha) {
                *loss = OnV::of(logits).calibrated_nll;
            }
        }
        if let Some(alpha) = third(&grid, start.figures.calibrated_nll, losses) {
            path.extend(self.logits(&one, at, alpha)?.map(|logits| (alpha, logits)));
        }
        path.sort_by(|a, b| a.0.total_cmp(&b.0));
        let gains = start.gains(&path)?;
        (self.done)(&one.name);
        out.push((one, gains));
        Ok(())
    }

    /// Logits at α; `None` if they are not finite.
    fn logits(&self, one: &Move, at: &Activations, alpha: f64) -> Result<Option<Predictions>> {
        finite(self.model.at(one.at(self.model, alpha)?).predict(at))
    }

    /// All figures, with corrected p values.
    fn searched(&self, all: Vec<(Move, Gains)>, start: &Start, mut notes: Vec<String>) -> Searched {
        let images = start.predictions.images();
        let gains: Vec<_> = all.iter().map(|(_, gains)| gains.cross_fit.calibrated_nll).collect();
        let looks = self.looked + all.len();
        let corrected = holm_above_zero(&gains, looks);
        let few = images < FEW;
        if few {
            notes.push(format!(
                "V has {images} images; with fewer than {FEW} no move can be eligible: use more"
            ));
        }
        let (mut found, mut moves) = (Vec::new(), Vec::new());
        for ((one, gains), p_holm) in all.into_iter().zip(corrected) {
            let Estimate { mean: gain, stderr } = gains.cross_fit.calibrated_nll;
            let p = p_above_zero(gain, stderr);
            found.push(MoveFound {
                name: one.name.clone(),
                remedy: one.direction.remedy.clone(),
                form: one.form,
                layers: one.parts.iter().map(|part| part.name.clone()).collect(),
                alpha: gains.alpha,
                eligible: !few
                    && gains.best.is_some()
                    && gain >= SMALLEST
                    && p_holm.is_some_and(|p| p <= LEVEL),
                curve: gains.curve,
                in_sample: gains.in_sample,
                cross_fit: gains.cross_fit,
                p,
                p_holm,
            });
            moves.push(one);
        }
        let mut found = RemedyFindings {
            images,
            start: start.figures,
            moves: found,
            looks,
            images_needed: None,
            notes,
        };
        found.images_needed = images_needed(&found);
        Searched { found, moves }
    }
}

/// Logits, or `None` if they are not finite: such a move counts as an infinite loss.
fn finite(logits: crate::objective::Result<Predictions>) -> Result<Option<Predictions>> {
    match logits {
        Ok(logits) => Ok(Some(logits)),
        Err(ObjectiveError::Predictions(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// `embed … block.3`.
fn span(parts: &[Layer]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.name.clone(),
        [first, .., last] => format!("{} … {}", first.name, last.name),
    }
}

/// Images on which the best move would be eligible with its present gain and spread, rounded up to two
/// digits.
fn images_needed(found: &RemedyFindings) -> Option<usize> {
    if found.best().is_some() {
        return None;
    }
    let gain = found.ranked().first()?.cross_fit.calibrated_nll;
    let stderr = gain.stderr.filter(|_| gain.mean >= SMALLEST)?;
    // The first step of Holm is Bonferroni's.
    let z = quantile(LEVEL / found.looks.max(1) as f64);
    let times = (z * stderr / gain.mean).powi(2);
    let needed = (found.images as f64 * times).ceil().max(FEW as f64);
    // More than two digits would be false precision.
    let unit = 10f64.powf((needed.log10().floor() - 1.0).max(0.0));
    Some((unit * (needed / unit).ceil()) as usize)
}

/// z with 1 − Φ(z) = p, by bisection.
fn quantile(p: f64) -> f64 {
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        match p_above_zero(middle, Some(1.0)).is_some_and(|tail| tail > p) {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_quantile() {
        assert!((quantile(0.025) - 1.959_963_984_540_054).abs() < 1e-12);
    }
}
