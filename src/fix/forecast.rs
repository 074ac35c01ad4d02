//! Forecasts time and memory of a fix, and decides on how many images of V moves are measured.

use super::session::FixSession;
use crate::data::Split;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::evaluate::{FEW, fit};
use crate::forecast::{
    Calibration, Expected, Operations, Part, calibrate_passes, lower, start_within,
};
use crate::format::{duration, images};
use crate::memory;
use crate::models::cost;
use crate::objective::Examples;
use crate::post_train::score::before_after;
use crate::predictions::Predictions;
use crate::remedies::remedies_work;
use crate::session::{Context, data_info, pixels};
use std::time::Instant;

const MIB: f64 = (1 << 20) as f64;
/// Minimum number of images for a round.
pub(super) const LEAST: usize = 4 * FEW;
/// Fits of a temperature per move, each on as many images as a round has: at three α on all of V, and
/// on the halves of five halvings; losses and hits take about as long as two more.
const FITS: f64 = 20.0;
/// Share of the work of [`before_after`] that one baseline takes on one split: it has no bootstrap.
const BASELINE: f64 = 0.5;
/// Images that the time of a fit and of figures is measured on.
const MANY: usize = 500;

/// Least memory of a pass if memory is not limited, MiB: the program's allocator keeps what is freed.
const KEPT: f64 = 60.0;

/// What a fix will do, and its expected time and memory.
pub struct FixPlan {
    /// Expected time and memory, with one round of the search.
    pub expected: Expected,
    /// Images of V that moves are measured on.
    pub images: usize,
    /// Seconds of a round, at most.
    pub round: f64,
    /// Seconds of a pass over V.
    pass: f64,
    /// Seconds of what follows the search.
    last: f64,
    rates: Rates,
    started: Instant,
    began: f64,
    so_far: f64,
}

/// Time of each kind of work on this machine.
#[derive(Clone, Copy)]
struct Rates {
    passes: Calibration,
    /// Seconds to read one image.
    reading: f64,
    /// Seconds to fit a temperature, per image.
    fit: f64,
    /// Seconds of [`before_after`], per image.
    figures: f64,
}

impl FixPlan {
    /// Seconds since the command began.
    pub(super) fn elapsed(&self) -> f64 {
        self.began + self.started.elapsed().as_secs_f64()
    }

    /// Seconds of a pass over V, as forecast.
    pub(super) fn pass(&self) -> f64 {
        self.pass
    }

    /// Seconds of what follows the search.
    pub(super) fn last(&self) -> f64 {
        self.last
    }

    /// The forecast as one line.
    pub fn line(&self, engine: &Engine, budget: Option<f64>) -> String {
        let seconds = self.expected.seconds;
        let whole = match budget {
            Some(budget) if budget < seconds + self.round => {
                format!("at most about {}", duration(budget.max(seconds)))
            }
            _ => format!(
                "about {} with one round of moves on {}, and at most {} for each further round",
                duration(seconds),
                images(self.images),
                duration(self.round)
            ),
        };
        format!("fix: {whole}; {}", engine.memory_forecast(self.expected.peak_mib, 0))
    }
}

impl FixSession {
    /// Forecasts the fix from a few timed passes. `began` is the number of seconds already spent.
    ///
    /// A memory limit lowers the number of images per thread, then the number of images of V that
    /// moves are measured on. Without one, a round may use half of the free memory. A budget lowers the
    /// number of images, too.
    ///
    /// # Errors
    /// Those of evaluating the model; a limit or a budget that cannot be met.
    pub fn plan(&mut self, began: f64, context: &Context) -> Result<FixPlan> {
        let plan = self.plan_without_budget(began, context)?;
        let Some(budget) = self.options.budget else { return Ok(plan) };
        let (least, seconds) = self.shortest(&plan)?;
        self.plan_within(plan, budget)?.ok_or_else(|| {
            Error::Missing(format!(
                "`budget` is too short: measuring all moves on {} and the result takes about {}; set at least that",
                images(least),
                duration(seconds)
            ))
        })
    }

    /// See [`FixSession::plan`].
    pub(super) fn plan_without_budget(&mut self, began: f64, context: &Context) -> Result<FixPlan> {
        let started = Instant::now();
        // Read once, so that the measurements below do not count towards the peak.
        let so_far = memory::peak_mib().unwrap_or(0) as f64;
        let (images, rates) = self.images_in_memory(context)?;
        let (expected, round) = (Expected::of(Vec::new()), 0.0);
        let (pass, last) = (0.0, 0.0);
        let mut plan =
            FixPlan { expected, images, round, pass, last, rates, started, began, so_far };
        self.forecast(&mut plan)?;
        Ok(plan)
    }

    /// The same plan with at most as many images as fit into a budget; `None` if no round fits.
    pub(super) fn plan_within(&self, mut plan: FixPlan, budget: f64) -> Result<Option<FixPlan>> {
        let Some(images) = self.affordable(&plan, budget, None)? else { return Ok(None) };
        plan.images = images;
        self.forecast(&mut plan)?;
        Ok(Some(plan))
    }

    /// The number of images of V whose round fits into memory, and the rates at the number of images per
    /// thread that the model then has.
    fn images_in_memory(&mut self, context: &Context) -> Result<(usize, Rates)> {
        let all = self.val()?.len();
        let least = LEAST.min(all);
        let Some(limit) = self.options.limit.mib() else {
            return Ok((self.half_of_free(all, least, context)?, self.rates(context.seed)?));
        };
        let usual = self.model.micro_batch;
        start_within(&mut self.model, limit);
        let mut rates = self.rates(context.seed)?;
        while self.peak_mib(all, &rates.passes)? > limit && self.model.micro_batch > 1 {
            lower(&mut self.model);
            rates = self.rates(context.seed)?;
        }
        let needed = self.peak_mib(least, &rates.passes)?;
        if needed > limit {
            return Err(Error::Memory(format!(
                "`memory`: measuring all moves on {} needs about {needed:.0} MiB even with one image per \
                 thread; the limit is {limit:.0} MiB; lower `threads` or raise the limit",
                images(least)
            )));
        }
        let mib = |n: usize| self.search_mib(n, &rates.passes);
        let each = mib(1)? - mib(0)?;
        let fits = (((limit - mib(0)?) / each) as usize).clamp(least, all);
        if self.model.micro_batch < usual {
            context.note(&format!(
                "{} per thread at a time, to stay within `memory`",
                images(self.model.micro_batch)
            ));
        }
        if fits < all {
            context.note(&format!(
                "moves are measured on {} of V, to stay within `memory`",
                images(fits)
            ));
        }
        Ok((fits, rates))
    }

    /// The number of images of a round that fits into a budget; `None` if no round fits. `pass` is the
    /// measured time of the pass over V, if it has been made.
    pub(super) fn affordable(
        &self,
        plan: &FixPlan,
        budget: f64,
        pass: Option<f64>,
    ) -> Result<Option<usize>> {
        let least = LEAST.min(self.val()?.len());
        // Work takes as long as that pass, relative to its forecast.
        let (pass, slower) = match pass {
            None => (plan.pass(), 1.0),
            Some(pass) => (0.0, pass / plan.pass()),
        };
        let fixed = pass + slower * (plan.last() + self.fixed_of_round(&plan.rates)?);
        let each = slower * self.seconds_per_image(&plan.rates)?;
        let room = budget - plan.elapsed() - fixed;
        let n = ((room / each).max(0.0) as usize).min(plan.images);
        Ok((n >= least).then_some(n))
    }

    /// The smallest number of images of a round, and seconds of a fix with one such round.
    fn shortest(&self, plan: &FixPlan) -> Result<(usize, f64)> {
        let least = LEAST.min(self.val()?.len());
        let round = self.fixed_of_round(&plan.rates)?
            + least as f64 * self.seconds_per_image(&plan.rates)?;
        Ok((least, plan.elapsed() + plan.pass() + round + plan.last()))
    }

    /// Rates and memory, from the first images of V.
    fn rates(&self, seed: u64) -> Result<Rates> {
        let v = pixels(&self.checkpoint, self.val()?)?;
        let trained = self.remedies.training.as_ref().map(|_| {
            let layers = self.remedies.layers.iter();
            let lowest = layers.min_by_key(|layer| layer.first_stage);
            lowest
                .cloned()
                .unwrap_or_else(|| crate::models::layers::everything(&self.checkpoint.network))
        });
        let (passes, logits) = calibrate_passes(&self.model, &v, usize::MAX, trained.as_ref())?;
        let few = logits.images();
        // The work on a few images is mostly overhead.
        let many: Vec<usize> = (0..MANY).map(|i| i % few).collect();
        let logits = logits.subset(&many)?;
        let n = MANY;
        let each = |work: &mut dyn FnMut() -> Result<()>| -> Result<f64> {
            let clock = Instant::now();
            work()?;
            Ok(clock.elapsed().as_secs_f64() / n as f64)
        };
        let clock = Instant::now();
        v.inputs(0..few)?;
        let reading = clock.elapsed().as_secs_f64() / few as f64;
        let fit = each(&mut || {
            std::hint::black_box(fit(&logits));
            Ok(())
        })?;
        let figures = each(&mut || self.timed_figures(&logits, seed))?;
        // Images are read on all threads.
        let reading = reading / rayon::current_num_threads() as f64;
        Ok(Rates { passes, reading, fit, figures })
    }

    fn timed_figures(&self, logits: &Predictions, seed: u64) -> Result<()> {
        let val = self.val()?;
        let pair = [logits.clone(), logits.clone()];
        let info = data_info(self.data.of(val), val, &self.roles.val_origin);
        std::hint::black_box(before_after(&pair, None, info, seed)?);
        Ok(())
    }

    /// Seconds of a round per image that it uses.
    fn seconds_per_image(&self, rates: &Rates) -> Result<f64> {
        let work = remedies_work(&self.checkpoint.network, &self.remedies);
        // Each applied move is refined at a few more α, as are the standard methods.
        let refined = Operations { forward: 4.0 * self.whole(), ..Operations::default() };
        let moves = self.remedies.moves() as f64;
        Ok(rates.passes.seconds(work, 1)
            + rates.passes.seconds(refined, 1)
            + rates.reading
            + FITS * moves * rates.fit)
    }

    /// Seconds of a round that do not depend on its number of images: training, and the figures of the
    /// moved model on all of V.
    fn fixed_of_round(&self, rates: &Rates) -> Result<f64> {
        let trained = self.remedies.training.as_ref().map_or(0, Examples::len);
        let work = self.remedies.training_work(&self.checkpoint.network)?;
        Ok(rates.passes.seconds(work, trained) + self.pass(rates, self.val()?.len()))
    }

    fn whole(&self) -> f64 {
        let network = &self.checkpoint.network;
        cost::forward(network, 0..network.stages())
    }

    /// Seconds to evaluate a model.
    fn pass(&self, rates: &Rates, images: usize) -> f64 {
        let work = Operations { forward: self.whole(), ..Operations::default() };
        rates.passes.seconds(work, images) + images as f64 * (rates.reading + 2.0 * rates.fit)
    }

    /// Fills in the forecast for the number of images of the plan.
    fn forecast(&self, plan: &mut FixPlan) -> Result<()> {
        let val = self.val()?;
        let (rates, passes) = (&plan.rates, &plan.rates.passes);
        let test = self.roles.test.as_ref().map_or(0, Split::len);
        let standard = if self.options.pretrained.is_some() { 2.0 } else { 0.0 };
        let one = self.pass(rates, val.len() + test);
        let scored = rates.figures * (val.len() + test) as f64;
        let round =
            plan.images as f64 * self.seconds_per_image(rates)? + self.fixed_of_round(rates)?;
        // The result is measured on V before and after it is written.
        let figures = 2.0 * one + standard * one + scored * (1.0 + BASELINE * (1.0 + standard));
        let part = |name: &str, seconds, peak_mib| Part { name: name.into(), seconds, peak_mib };
        let expected = Expected::of(vec![
            part("so far", plan.elapsed(), plan.so_far),
            part("calibration", self.pass(rates, val.len()), self.passing_mib(passes)),
            part("one round of moves", round, self.search_mib(plan.images, passes)?),
            part("figures", figures, self.figures_mib(passes)?),
        ]);
        let device_peak_mib = self.model.engine.expected_mib(0);
        (plan.pass, plan.last) = (self.pass(&plan.rates, val.len()), figures);
        (plan.round, plan.expected) = (round, Expected { device_peak_mib, ..expected });
        Ok(())
    }

    /// Peak memory of the search, MiB.
    fn search_mib(&self, images: usize, passes: &Calibration) -> Result<f64> {
        let network = &self.checkpoint.network;
        // The weights of earlier moves, and the logits of the model as given.
        let moved = self.remedies.moved_len(network);
        let kept = 4 * moved + 8 * self.val()?.len() * network.classes();
        Ok(self.passing_mib(passes) + self.remedies.held_mib(network, images) + kept as f64 / MIB)
    }

    /// Peak memory of the last measurements, MiB.
    fn figures_mib(&self, passes: &Calibration) -> Result<f64> {
        let network = &self.checkpoint.network;
        let test = self.roles.test.as_ref().map_or(0, Split::len);
        // Before, after, of a baseline, and two more while they are computed.
        let logits = 5 * (self.val()?.len() + test) * network.classes();
        // Moved weights and how they are stored, or what was read back; a standard method.
        let moved = 2 * self.remedies.moved_len(network);
        let whole = [self.destination.writes(), self.options.pretrained.is_some()];
        let whole = whole.iter().filter(|held| **held).count() * network.parameters();
        let kept = 4 * (moved + whole) + 8 * logits;
        Ok(self.passing_mib(passes) + kept as f64 / MIB)
    }

    /// Peak memory of evaluating a model, MiB.
    fn passing_mib(&self, passes: &Calibration) -> f64 {
        let least = if self.options.limit.mib().is_some() { 0.0 } else { KEPT };
        passes.resident_mib + passes.wave_mib.max(least)
    }

    fn peak_mib(&self, images: usize, passes: &Calibration) -> Result<f64> {
        Ok(self.search_mib(images, passes)?.max(self.figures_mib(passes)?))
    }

    /// Most images of a round whose inputs take half of the free memory.
    fn half_of_free(&self, all: usize, least: usize, context: &Context) -> Result<usize> {
        let held = |n: usize| self.remedies.held_mib(&self.checkpoint.network, n);
        let free = memory::available_mib().unwrap_or(f64::INFINITY);
        let room = 0.5 * free - held(0);
        let fits = (room / (held(1) - held(0))).max(0.0) as usize;
        if fits < least {
            return Err(Error::Memory(format!(
                "measuring all moves on {} needs about {:.0} MiB, and {free:.0} MiB are free: free some \
                 memory",
                images(least),
                2.0 * held(least)
            )));
        }
        if fits < all {
            context.note(&format!(
                "moves are measured on only {} of V, to use at most half of the free memory ({free:.0} MiB)",
                images(fits)
            ));
        }
        Ok(fits.min(all))
    }
}
