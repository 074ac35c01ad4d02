//! The frozen layers of a run: the image views they run on, where their activations are kept, and
//! what a report says about them.

use crate::cache::{
    self, About, CacheInfo, CacheMode, CacheOptions, CachePolicy, Error, StorageChoice, StoragePlan,
};
use crate::data::Augment;
use crate::engine::Engine;
use crate::error::Result;
use crate::format::count;
use crate::objective::{Error as ObjectiveError, Result as ObjectiveResult};
use crate::observe::Event as Progress;
use crate::pixels::Pixels;
use crate::session::Context;
use crate::train::source::{Source, SourceEvent};
use crate::train::{Prefix, TrainOptions};
use bytesize::ByteSize;
use std::time::Instant;

/// The training images as epochs see them: unchanged, or as augmented views drawn with `seed`.
///
/// # Errors
/// An augmentation that does not fit the images.
pub fn views(train: &TrainOptions, images: &Pixels, seed: u64) -> ObjectiveResult<Vec<Pixels>> {
    if train.augment == Augment::default() {
        return Ok(vec![images.clone()]);
    }
    let views = super::run::views(train) as u64;
    (0..views).map(|number| images.view(train.augment, seed, number)).collect()
}

/// Chooses where activations are kept. At most `ram` bytes stay in memory.
///
/// # Errors
/// Those of [`cache::plan`].
pub fn plan(options: &CacheOptions, prefix: &Prefix, ram: u64) -> cache::Result<StoragePlan> {
    cache::plan(&StorageChoice {
        policy: options.cache,
        ram,
        there: prefix.fits_there(),
        folder: options.cache_dir.clone(),
        layout: prefix.layout(),
        views: prefix.views(),
        pixels: prefix.stage() == 0,
        keys: &|| prefix.keys(),
    })
}

/// Frozen layers with their activations: a source of batches for the layers above.
pub struct FrozenLayers<'a> {
    /// The source.
    pub source: Source<'a>,
    /// For the report.
    pub info: CacheInfo,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// What a report says about a plan.
pub fn info(plan: &StoragePlan, prefix: &Prefix) -> CacheInfo {
    CacheInfo {
        mode: plan.mode,
        dtype: prefix.layout().stored.name().to_lowercase(),
        views: prefix.views(),
        found: plan.there.iter().filter(|there| **there).count(),
        bytes: plan.bytes,
        seconds: 0.0,
        folder: (plan.mode == CacheMode::Disk).then(|| plan.folder.display().to_string()),
        keys: plan.keys.clone(),
    }
}

/// The plan in a few words.
pub fn describe(plan: &StoragePlan, engine: &Engine) -> String {
    let size = ByteSize(plan.bytes);
    match plan.mode {
        CacheMode::Off => "frozen layers are recomputed for every batch".into(),
        CacheMode::Ram if plan.device => {
            format!("{size} of frozen layers' activations in {}'s memory", engine.device_name())
        }
        CacheMode::Ram => format!("{size} of frozen layers' activations in memory"),
        CacheMode::Disk => {
            let there = plan.there.iter().filter(|there| **there).count();
            let found = match (there, plan.there.len()) {
                (0, _) => String::new(),
                (n, all) if n == all => ", already cached".into(),
                (n, all) => format!(", {n} of {all} views already cached"),
            };
            let other = match plan.other_format {
                0 => String::new(),
                n => format!(
                    " ({n} files there are from another version and are not used; `planish cache clear` \
                     removes them)"
                ),
            };
            let folder = plan.folder.display();
            format!("{size} of frozen layers' activations in {folder}{found}{other}")
        }
    }
}

impl<'a> FrozenLayers<'a> {
    /// Runs the frozen layers, or reads their activations from files. If files were not requested
    /// explicitly, a disk error is not fatal.
    ///
    /// # Errors
    /// Those of [`Source::open`].
    pub fn open(
        options: &CacheOptions,
        prefix: Prefix<'a>,
        plan: &StoragePlan,
        about: &dyn Fn(usize) -> About,
        context: &Context,
    ) -> Result<Self> {
        let clock = Instant::now();
        let (mut notes, mut found) = (Vec::new(), 0);
        let images = prefix.layout().rows.saturating_mul(plan.missing(prefix.views()));
        let task = context.task("frozen layers", images as u64, "images");
        let mut tell = |event: SourceEvent| {
            let note = match event {
                SourceEvent::Computed(images) => return task.advance(images as u64),
                SourceEvent::Found(path) => {
                    found += 1;
                    let text = format!("frozen layers read from {}", path.display());
                    return context.observer.observe(Progress::Info(&text));
                }
                SourceEvent::Damaged(Error::Damaged { path, place, expected, found }) => format!(
                    "{}, {place}: expected {expected}, found {found}; the frozen layers are recomputed",
                    path.display()
                ),
                SourceEvent::Damaged(error) => format!("{error}; the frozen layers are recomputed"),
                SourceEvent::Stale(path) => format!(
                    "{}: this build or machine rounds differently from the one that wrote it; the \
                     frozen layers are recomputed",
                    path.display()
                ),
            };
            context.note(&note);
            notes.push(note);
        };
        let mut told = info(plan, &prefix);
        let opened = Source::open(prefix.clone(), plan, about, &mut tell);
        let source = match opened {
            Err(ObjectiveError::Cache(error)) if options.cache == CachePolicy::Auto => {
                let off = StoragePlan::without_files(CacheMode::Off, 0);
                told = info(&off, &prefix);
                let note = format!("frozen layers are recomputed for every batch: {error}");
                context.note(&note);
                notes.push(note);
                Source::open(prefix, &off, about, &mut |_| {})?
            }
            opened => opened?,
        };
        drop(task);
        let seconds = if told.mode == CacheMode::Off { 0.0 } else { clock.elapsed().as_secs_f64() };
        let info = CacheInfo { found, seconds, ..told };
        Ok(FrozenLayers { source, info, notes })
    }
}

/// How messages name the augmentation of a view.
pub fn view_name(augment: &Augment, seed: u64, view: usize) -> String {
    match *augment == Augment::default() {
        true => "plain".into(),
        false => format!("{augment}, seed {seed}, view {}", count(view as u64)),
    }
}
