//! The report of `fix`.

use crate::checkpoint::CheckpointInfo;
use crate::data::DamagedFile;
use crate::evaluate::{Bound, Estimate, Verdict};
use crate::fix::{Baseline, FixSession, FixStep, Fixed, Stop};
use crate::forecast::Expected;
use crate::format::{estimate, images, number, percent, share};
use crate::post_train::result::{BeforeAfter, Output};
use crate::post_train::search::RecipeSearch;
use crate::remedies::{MoveForm, OnV, Remedy, RemedyFindings};
use crate::run::RunInfo;
use crate::session::checkpoint_info;
use serde::{Deserialize, Serialize};

/// Schema of [`Fixing`].
pub const FIXING: &str = "planish/fixing/1";

/// Time, memory and machine of a fix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimedFix {
    /// Command, seed, seconds, memory, host, date.
    #[serde(flatten)]
    pub run: RunInfo,
    /// Forecast made before the start, with one round of moves; absent in files of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Expected>,
}

/// A fixed checkpoint. Losses are in nats per image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fixing {
    /// [`FIXING`].
    pub schema: String,
    /// Time, memory and machine.
    pub run: TimedFix,
    /// The checkpoint as given.
    pub checkpoint: CheckpointInfo,
    /// The weights before fine-tuning, if they were given.
    #[serde(default)]
    pub pretrained: Option<String>,
    /// The file that was written.
    pub output: Option<Output>,
    /// The checkpoint as given, on V.
    pub start: OnV,
    /// The moves that were applied, in order.
    pub steps: Vec<FixStep>,
    /// Why it ended.
    pub stop: Stop,
    /// The temperature that was folded into the head after all moves.
    pub temperature: f64,
    /// Why it is not a minimum of the loss. Absent if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_bound: Option<Bound>,
    /// The search of `post-train` that chose these moves over recipes of training, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<RecipeSearch>,
    /// Images of V that moves were measured on.
    pub searched_on: usize,
    /// The rounds of measurements: one before each step, and the one that ended the search.
    pub looks: Vec<RemedyFindings>,
    /// On V, which chose everything: optimistic.
    pub validation: BeforeAfter,
    /// On test.
    pub test: Option<BeforeAfter>,
    /// Standard methods, fitted on the same V.
    pub baselines: Vec<Baseline>,
    /// Damaged image files that were used as decoded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// Notes.
    pub notes: Vec<String>,
}

/// Headers of [`Fixing::baseline_rows`].
pub const BASELINE_HEADERS: [&str; 6] =
    ["on test", "α kept", "NLL at T of V", "top-1", "T of V", "behind the fix"];

impl Fixing {
    /// The report of a fix.
    pub fn new(run: RunInfo, session: &FixSession, found: Fixed, forecast: Expected) -> Self {
        let pretrained = session.options.pretrained.as_ref();
        Self {
            schema: FIXING.into(),
            run: TimedFix { run, forecast: Some(forecast) },
            checkpoint: checkpoint_info(&session.checkpoint),
            pretrained: pretrained.map(|path| path.display().to_string()),
            output: found.output,
            start: found.start,
            steps: found.steps,
            stop: found.stop,
            temperature: found.temperature,
            temperature_bound: found.temperature_bound,
            search: None,
            searched_on: found.searched_on,
            looks: found.looks,
            validation: found.validation,
            test: found.test,
            baselines: found.baselines,
            damaged: found.damaged,
            notes: found.notes,
        }
    }

    /// The figures that judge the result, and the role of their images.
    pub fn judged(&self) -> (&'static str, &BeforeAfter) {
        self.test.as_ref().map_or(("V", &self.validation), |test| ("test", test))
    }

    /// What was done, what it gained, what was tried without success, and what to do next.
    pub fn conclusion(&self) -> String {
        let parts = [Some(self.done()), Some(self.gained()), self.tried(), self.next()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    fn done(&self) -> String {
        let folded =
            format!("a temperature of {} was folded into the head", number(self.temperature));
        if self.steps.is_empty() {
            return format!(
                "No move helps significantly, so the fix is calibration alone: {folded}."
            );
        }
        let steps: Vec<String> = self.steps.iter().map(step).collect();
        let (end, why) = (
            steps.join(", then "),
            match self.stop {
                Stop::NothingEligible => "no further move helps significantly",
                Stop::Budget => "there was no time for another round",
                Stop::Steps => "the maximum number of moves was applied",
            },
        );
        format!("{}, and {folded}; {why}.", capital(&end))
    }

    fn gained(&self) -> String {
        let (role, part) = self.judged();
        let optimistic = if role == "V" { ", which chose the result" } else { "" };
        let [nll_gain, calibrated] = part.shown_gains();
        let after = match calibrated.mean == 0.0 {
            true => "does not change".into(),
            false => format!(
                "changes by {}",
                estimate(Estimate { mean: -calibrated.mean, ..calibrated })
            ),
        };
        format!(
            "On {} of {role}{optimistic}, the NLL changes from {} to {} (gain {}) and top-1 from {} to \
             {}; the NLL after temperature scaling {after}.",
            images(part.data.images),
            number(part.before.nll),
            number(part.after.nll),
            estimate(nll_gain),
            percent(part.before.top1),
            percent(part.after.top1),
        )
    }

    fn tried(&self) -> Option<String> {
        let look = self.looks.last()?;
        let mut text = format!("{} moves were measured on V", look.looks);
        if self.stop != Stop::NothingEligible {
            return Some(text + ".");
        }
        let best = look.ranked().into_iter().find(|found| !found.eligible);
        if let Some(found) =
            best.filter(|found| found.shown_gain(look.start.calibrated_nll).mean > 0.0)
        {
            text += &format!(
                "; the best one not applied is {}: its gain of {} nats after temperature scaling is not \
                 eligible",
                found.label(),
                estimate(found.shown_gain(look.start.calibrated_nll))
            );
        } else {
            text += "; none of those not applied has a gain";
        }
        Some(text + ".")
    }

    fn next(&self) -> Option<String> {
        let ahead = self.baselines.iter().find(|baseline| {
            baseline.behind.is_some_and(|b| b.stderr.is_some_and(|stderr| b.mean < -1.96 * stderr))
        });
        if let Some(Baseline { name, alpha, .. }) = ahead {
            let command = if alpha.is_some() { "merge" } else { "calibrate" };
            return Some(format!(
                "On test, {name} is significantly better than this fix; `planish {command}` applies it."
            ));
        }
        if self.pretrained.is_none() {
            return Some(
                "Next: give the weights before fine-tuning (`pretrained`), or train layers with \
                 `planish post-train`."
                    .into(),
            );
        }
        let needed = self.looks.last().and_then(|look| look.images_needed);
        if let Some(n) = needed.filter(|_| self.stop == Stop::NothingEligible) {
            let all = self.validation.data.images;
            let more = match self.searched_on < all {
                true => format!(
                    " (this round had {}; allow more time with `budget`)",
                    images(self.searched_on)
                ),
                false => String::new(),
            };
            return Some(format!(
                "Next: about {} of V would show whether that gain is real{more}.",
                images(n)
            ));
        }
        let comparison = self.judged().1.comparison.as_ref();
        let worse =
            comparison.is_some_and(|c| c.differences.iter().any(|d| d.verdict == Verdict::Worse));
        worse.then(|| {
            "Next: compare the original and the fixed checkpoint on your own images before you replace the \
             model.".into()
        })
    }

    /// Each baseline, then the fix.
    pub fn baseline_rows(&self) -> Vec<[String; 6]> {
        let Some(test) = &self.test else { return Vec::new() };
        let row = |name: &str, alpha: Option<f64>, s: &crate::evaluate::Summary, t: f64, behind| {
            [
                name.into(),
                alpha.map_or(String::new(), number),
                estimate(Estimate { mean: s.calibrated_nll, stderr: s.calibrated_nll_stderr }),
                share(Estimate { mean: s.top1, stderr: s.top1_stderr }),
                number(t),
                behind,
            ]
        };
        let mut out: Vec<[String; 6]> = self
            .baselines
            .iter()
            .filter_map(|b| {
                let behind = b.behind.map_or(String::new(), |behind| {
                    estimate(behind.beyond_rounding(test.after.calibrated_nll))
                });
                Some(row(&b.name, b.alpha, b.test.as_ref()?, b.validation.temperature, behind))
            })
            .collect();
        let t = self.temperature;
        out.push(row("this fix", None, &test.after, t, String::new()));
        out
    }

    /// Each step: the move, α, the cross-fitted gain after a temperature, and the figures on V.
    pub fn step_rows(&self) -> Vec<[String; 6]> {
        let start = [
            "calibration".into(),
            String::new(),
            String::new(),
            number(self.start.calibrated_nll),
            percent(self.start.top1),
            number(self.start.temperature),
        ];
        let steps = self.steps.iter().map(|step| {
            [
                step.found.label(),
                number(step.alpha),
                estimate(step.found.shown_gain(step.after.calibrated_nll)),
                number(step.after.calibrated_nll),
                percent(step.after.top1),
                number(step.after.temperature),
            ]
        });
        std::iter::once(start).chain(steps).collect()
    }
}

/// Headers of [`Fixing::step_rows`].
pub const STEP_HEADERS: [&str; 6] =
    ["step", "α", "gain, cross-fitted", "NLL on V at T", "top-1 on V", "T of V"];

fn step(step: &FixStep) -> String {
    let (name, percent) = (&step.found.name, format!("{:.0}", 100.0 * step.alpha));
    match &step.found.remedy {
        Remedy::Toward(_) => match step.found.form {
            MoveForm::Lines => format!(
                "all layers moved towards the pretrained weights by LiNeS' schedule, {percent}% of the \
                     way at the first layer"
            ),
            _ => format!("{name} moved {percent}% of the way to the pretrained weights"),
        },
        Remedy::Decay => format!("the weights of {name} shrank by {percent}%"),
        Remedy::Train(_) => {
            let (times, remedy) = (number(step.alpha), &step.found.remedy);
            format!("{name} moved by {times} times the change of one epoch of training ({remedy})")
        }
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}
