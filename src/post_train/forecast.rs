//! Forecasts the time and memory of a run, part by part, from rates measured on this machine. The
//! step time is measured by running a few steps.

use super::frozen::describe;
use super::score::{measured_again, remeasure_options};
use super::{PostTrainSession, train};
use crate::cache::{About, CacheMode, CachePolicy, StoragePlan};
use crate::data::Split;
use crate::engine::{Engine, Precision};
use crate::error::{Error, Result};
use crate::forecast::{Calibration, Expected, Operations, Part, calibrate, lower, start_within};
use crate::format::duration;
use crate::memory;
use crate::models::cost;
use crate::objective::Examples;
use crate::session::{Context, pixels, sample};
use crate::train::recipe::Recipe;
use crate::train::run::TrainSettings;
use crate::train::{Keep, Prefix, Source};
use std::ops::Range;

const MIB: f64 = (1 << 20) as f64;
/// Fraction of the whole work that trial steps may take. The frozen layers under them may take as
/// much again.
const TRIAL: f64 = 0.02;

/// Where activations will be kept, and a forecast of all parts.
pub struct Outlook {
    /// Where activations will be kept.
    pub plan: StoragePlan,
    /// The parts, in order.
    pub expected: Expected,
}

/// See [`PostTrainSession::outlook`].
pub(super) fn outlook(
    session: &mut PostTrainSession,
    began: f64,
    context: &Context,
) -> Result<Outlook> {
    let mut plan = session.cache_plan(None)?;
    let limit = session.options.limit.mib();
    let clock = std::time::Instant::now();
    // Read once, so that the measurements below do not count towards the run's peak.
    let peak = memory::peak_mib().unwrap_or(0) as f64;
    if let Some(limit) = limit {
        start_within(&mut session.model, limit);
    }
    loop {
        let mut expected = parts(session, &plan, peak)?;
        if let Some(diagnosis) = &session.diagnosis_ahead {
            expected = expected.preceded(diagnosis.clone());
        }
        // Includes the time of the measurements.
        let seconds = began + clock.elapsed().as_secs_f64();
        let so_far = Part { name: "so far".into(), seconds, peak_mib: peak };
        let expected = expected.preceded(so_far);
        let Some(limit) = limit else { return Ok(Outlook { plan, expected }) };
        if expected.peak_mib <= limit {
            return Ok(Outlook { plan, expected });
        }
        // The limit is on host memory; GPU memory does not count.
        let mib = plan.memory()[0] as f64 / MIB;
        let movable = plan.mode == CacheMode::Ram
            && !plan.device
            && session.options.cache.cache == CachePolicy::Auto;
        if movable && mib > 0.1 * (expected.peak_mib - limit) {
            plan = session.cache_plan(Some(0))?;
            context.note(&format!("{}, to stay within `memory`", describe(&plan, context.engine)));
        } else if lower(&mut session.model) {
            let again = match session.model.checkpointing {
                true => ", with activation checkpointing",
                false => "",
            };
            context.note(&format!(
                "{} images per thread at a time{again}, to stay within `memory`",
                session.model.micro_batch
            ));
        } else {
            return Err(Error::Memory(format!(
                "`memory`: this needs about {:.0} MiB even with one image per thread and \
                 activation checkpointing; the limit is {limit:.0} MiB; lower `threads` or \
                 `batch_size`, set `cache` to disk or `remeasure` to 0, or raise the limit",
                expected.peak_mib
            )));
        }
    }
}

fn parts(session: &PostTrainSession, plan: &StoragePlan, peak: f64) -> Result<Expected> {
    let PostTrainSession { model, recipe, settings, roles, options, .. } = session;
    let network = &model.network;
    let again = measured_again(network, recipe);
    let found =
        Calibration { peak_mib: peak, ..calibrate(model, &session.images, usize::MAX, &again)? };
    // Judging and measuring always use f32.
    let exact = match model.precision {
        Precision::F32 => None,
        Precision::Bf16 => Some(calibrate(&model.exact(), &session.images, usize::MAX, &again)?),
    };
    let exact = exact.as_ref().unwrap_or(&found);
    let stage = recipe.first_stage();
    let steps = session.train.len() / settings.batch_size.max(1);
    let computed = session.train.len().saturating_mul(plan.missing(session.views.len()));
    let passes = |stages: Range<usize>| Operations {
        forward: cost::forward(network, stages),
        ..Operations::default()
    };
    let forward = |stages: Range<usize>, images: usize| found.seconds(passes(stages), images);
    let held_mib = plan.memory()[0] as f64 / MIB;
    let passing = found.resident_mib + found.wave_mib;
    let mut parts = vec![Part {
        name: "frozen layers".into(),
        seconds: forward(0..stage, computed),
        peak_mib: passing + held_mib,
    }];

    let tried = try_steps(session, plan, computed, steps)?;
    let trained_mib = held_mib + tried.mib.max(found.resident_mib);
    let all_steps = steps.saturating_mul(settings.epochs) as f64;
    let watched = session.watched().unwrap_or(0);
    parts.push(Part {
        name: "training".into(),
        seconds: all_steps * tried.seconds
            + forward(0..stage, watched)
            + (settings.epochs + 1) as f64 * forward(stage..network.stages(), watched),
        peak_mib: trained_mib,
    });

    let scored = [&roles.val, &roles.test].into_iter().flatten().map(Split::len).sum::<usize>();
    parts.push(Part {
        name: "figures".into(),
        seconds: 2.0 * exact.seconds(passes(0..network.stages()), scored),
        peak_mib: passing,
    });
    // The new tensors plus all weights read back from the file; batches and activations are freed
    // by then.
    let sizes = recipe.update.tensors.iter().map(|&i| model.weights.tensor(i).elem_count());
    let [new, file] = [sizes.sum(), model.weights.parameters()].map(|n: usize| 4 * n);
    parts.push(Part {
        name: "writing".into(),
        seconds: 0.0,
        peak_mib: trained_mib.max(found.resident_mib + (file + new) as f64 / MIB),
    });
    if let (Some(subject), false) = (&session.diagnosis, options.remeasure == Some(0)) {
        let v = roles.val.as_ref().map_or(0, Split::len);
        let images = options.remeasure.map_or(subject.validation.len(), |n| n.min(v));
        let how = remeasure_options();
        let need = subject.need_of(images, &again, &how, exact);
        // Freed pages may be kept by the allocator, and V's activations may fit into none of those
        // that training leaves.
        let kept = match options.limit.mib() {
            Some(_) => 0.0,
            None => trained_mib + subject.held_mib(images, &again, &how),
        };
        parts.push(Part {
            name: "layers measured again".into(),
            seconds: 2.0 * need.seconds,
            peak_mib: need.mib.max(kept),
        });
    }
    let device_peak_mib = session.model.engine.expected_mib(plan.memory()[1]);
    Ok(Expected { device_peak_mib, ..Expected::of(parts) })
}

/// The forecast as one line.
pub fn outlook_line(Outlook { plan, expected }: &Outlook, engine: &Engine) -> String {
    let parts: Vec<String> = expected
        .parts
        .iter()
        .filter(|part| part.seconds >= 0.01 * expected.seconds)
        .map(|part| format!("{} {}", part.name, duration(part.seconds)))
        .collect();
    format!(
        "about {} in all ({}) and {}",
        duration(expected.seconds),
        parts.join(", "),
        engine.memory_forecast(expected.peak_mib, plan.memory()[1])
    )
}

/// Result of the trial steps: seconds per step, and peak memory of the process, MiB.
struct TrialRate {
    seconds: f64,
    mib: f64,
}

/// Runs a few steps of the method on training images and discards them. The batch is B, or smaller
/// if B would take too much of the whole work. If activations will be kept, a few are computed and
/// repeated to fill the batch.
fn try_steps(
    session: &PostTrainSession,
    plan: &StoragePlan,
    computed: usize,
    steps: usize,
) -> Result<TrialRate> {
    let PostTrainSession { model, recipe, settings, .. } = session;
    let network = &model.network;
    let (cached, tries) = (plan.mode != CacheMode::Off, 2);
    let prefix = cost::forward(network, 0..recipe.first_stage());
    let ratio = match &recipe.perturb {
        Some(_) => recipe.perturb_batch as f64 / settings.batch_size as f64,
        None => 0.0,
    };
    let step = recipe.work(network, settings.batch_size);
    // Without kept activations, a step also runs the frozen layers.
    let fresh = if cached { 0.0 } else { (1.0 + ratio) * prefix };
    let whole =
        steps.saturating_mul(settings.epochs) as f64 * settings.batch_size as f64 * (step + fresh)
            + computed as f64 * prefix;
    let affordable = |each: f64| (TRIAL * whole / each.max(1.0)) as usize;
    // Use the micro-batch size of B, since memory depends on it.
    let stepping = session.stepping();
    let batch = affordable(tries as f64 * (step + fresh)).max(1);
    let batch = batch.next_multiple_of(stepping.even_examples()).min(settings.batch_size).max(1);

    let perturb_batch = ((batch as f64 * ratio) as usize).max(1);
    let n = batch.max(perturb_batch).min(session.train.len());
    let least = model.micro_batch.max(1) * rayon::current_num_threads();
    let images = if cached { affordable(prefix).max(least).min(n) } else { n };
    let few = pixels(&session.checkpoint, &sample(&session.train, Some(images), settings.seed)?)?;
    let few = session.seen_as(few)?;
    let trial = Recipe { perturb_batch, ..recipe.clone() };
    let settings_of_trial = TrainSettings {
        epochs: tries,
        batch_size: batch.min(n),
        keep: Keep::Last,
        ..settings.clone()
    };
    let mode = if cached { CacheMode::Ram } else { CacheMode::Off };
    let plan =
        StoragePlan { device: plan.device, ram: u64::MAX, ..StoragePlan::without_files(mode, 0) };
    let (outcome, peak) = memory::peak_during(|| -> Result<_> {
        let prefix = Prefix::new(model, vec![&few], recipe.first_stage(), session.half);
        let mut source = Source::open(prefix, &plan, &|_| About::default(), &mut |_| {})?;
        if images < n {
            let picks: Vec<_> = (0..n).map(|i| (0, i % images)).collect();
            source = Source::held(&source.batch(&picks)?);
        }
        let adapters = session.adapters.as_ref();
        let settings = &settings_of_trial;
        Ok(train(&stepping, &trial, adapters, &source, None, settings, &mut |_| {})?.outcome)
    });
    let outcome = outcome?;
    let per_epoch = (n / batch.min(n).max(1)).max(1) as f64;
    let times: Vec<f64> = outcome.epochs.iter().map(|e| e.seconds / per_epoch).collect();
    // The first step is slower because memory is cold. If steps differ (LookSAM), it is also the
    // one with the ascent step, at twice the cost of the others.
    let share = if recipe.period() > 1 { 1.0 / recipe.period() as f64 } else { 0.0 };
    let mean = (1.0 + share) * times.last().copied().unwrap_or(0.0);
    let scale = settings.batch_size as f64 / batch as f64;
    // Add activations of B and B′ that the trial did not have.
    let rest = (1.0 + ratio) * (settings.batch_size - batch) as f64;
    let row =
        network.activation_len(recipe.first_stage()) as f64 * model.dtype().size_in_bytes() as f64;
    Ok(TrialRate { seconds: mean * scale, mib: peak.unwrap_or(0.0) + rest * row / MIB })
}
