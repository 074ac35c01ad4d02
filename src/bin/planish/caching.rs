//! What post-training sees of its images, and where the frozen layers' activations are kept.

use super::common::Common;
use super::numbers;
use anyhow::bail;
use indicatif::HumanBytes;
use planish::cache::CacheInfo;
use planish::cache::{self, About, Choice, Error, Mode, Plan, Wish, plan};
use planish::data::Augment;
use planish::device;
use planish::format::count;
use planish::objective::{Error as ObjectiveError, Result as ObjectiveResult};
use planish::pixels::Pixels;
use planish::train::Prefix;
use planish::train::source::{Event, Source};
use std::path::PathBuf;
use std::time::Instant;

/// Options of the cache and of augmentation.
#[derive(clap::Args, Clone, Debug)]
pub struct CacheArgs {
    /// Where the frozen layers' activations are kept: in memory for this run, in files that later
    /// runs find, nowhere, or wherever they fit
    #[arg(long, value_enum, value_name = "auto|ram|disk|off", default_value = "auto")]
    pub cache: CacheName,
    /// Memory of the CPU that they may take, in MiB; of a GPU's, half of what is free
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    pub cache_ram: u64,
    /// Type in which they are kept; bf16 takes half, rounds each to nearest, and is computed on in
    /// f32
    #[arg(long, value_enum, value_name = "f32|bf16", default_value = "f32")]
    pub cache_dtype: DtypeName,
    /// Folder of their files [default: planish in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Augmentation of training images: `flip`, `shift=PIXELS`, `crop=LEAST_AREA`, separated by
    /// commas
    #[arg(long, value_name = "LIST", default_value = "none")]
    pub augment: Augment,
    /// Augmented views of each image, shown in turn, one an epoch [default: as many as epochs]
    #[arg(long, value_name = "V", value_parser = numbers::count, allow_negative_numbers = true)]
    pub views: Option<usize>,
}

/// Values of `--cache`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheName {
    /// wherever they fit
    Auto,
    /// in memory
    Ram,
    /// in files
    Disk,
    /// nowhere: the frozen layers are run for each batch
    Off,
}

impl CacheName {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            CacheName::Auto => "auto",
            CacheName::Ram => "ram",
            CacheName::Disk => "disk",
            CacheName::Off => "off",
        }
    }

    fn wish(self) -> Wish {
        match self {
            CacheName::Auto => Wish::Auto,
            CacheName::Ram => Wish::Ram,
            CacheName::Disk => Wish::Disk,
            CacheName::Off => Wish::Off,
        }
    }
}

/// Values of `--cache-dtype`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtypeName {
    /// as computed
    F32,
    /// rounded to nearest, ties to even
    Bf16,
}

impl CacheArgs {
    /// Whether activations are rounded to bf16.
    pub fn half(&self) -> bool {
        self.cache_dtype == DtypeName::Bf16
    }

    /// Refuses options that would not be heeded.
    ///
    /// # Errors
    /// The first such option.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.views.is_some() && self.augment == Augment::default() {
            bail!("--views: without --augment all views are one: leave it out, or pass --augment")
        }
        if self.cache_dir.is_some() && matches!(self.cache, CacheName::Ram | CacheName::Off) {
            let name = self.cache.name();
            bail!("--cache-dir: --cache {name} writes no files: leave one of the two out")
        }
        Ok(())
    }

    /// The training images as epochs will show them: as they are, or in augmented views, drawn by
    /// `seed`.
    ///
    /// # Errors
    /// An augmentation that does not suit the images.
    pub fn views(&self, images: &Pixels, epochs: usize, seed: u64) -> ObjectiveResult<Vec<Pixels>> {
        if self.augment == Augment::default() {
            return Ok(vec![images.clone()]);
        }
        let views = self.views.unwrap_or(epochs).max(1) as u64;
        (0..views).map(|number| images.view(self.augment, seed, number)).collect()
    }

    /// Where activations are to be kept, at most `ram` bytes of them in memory.
    ///
    /// # Errors
    /// Those of [`plan`].
    pub fn plan(&self, prefix: &Prefix, ram: u64) -> cache::Result<Plan> {
        plan(&Choice {
            wish: self.cache.wish(),
            ram,
            there: prefix.fits_there(),
            folder: self.cache_dir.clone(),
            layout: prefix.layout(),
            views: prefix.views(),
            pixels: prefix.stage() == 0,
            keys: &|| prefix.keys(),
        })
    }
}

/// A source of batches, and what is to be told of it.
pub struct Kept<'a> {
    /// The source.
    pub source: Source<'a>,
    /// For the report.
    pub info: CacheInfo,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// What a report says of a plan.
pub fn info(plan: &Plan, prefix: &Prefix) -> CacheInfo {
    CacheInfo {
        mode: plan.mode,
        dtype: prefix.layout().stored.name().to_lowercase(),
        views: prefix.views(),
        found: plan.there.iter().filter(|there| **there).count(),
        bytes: plan.bytes,
        seconds: 0.0,
        folder: (plan.mode == Mode::Disk).then(|| plan.folder.display().to_string()),
        keys: plan.keys.clone(),
    }
}

/// The plan in a few words.
pub fn words(plan: &Plan) -> String {
    let size = HumanBytes(plan.bytes);
    match plan.mode {
        Mode::Off => "frozen layers run for every batch".into(),
        Mode::Ram if plan.device => {
            format!("{size} of frozen layers' activations in {}'s memory", device::name())
        }
        Mode::Ram => format!("{size} of frozen layers' activations in memory"),
        Mode::Disk => {
            let there = plan.there.iter().filter(|there| **there).count();
            let found = match (there, plan.there.len()) {
                (0, _) => String::new(),
                (n, all) if n == all => ", there already".into(),
                (n, all) => format!(", {n} of {all} views there already"),
            };
            let other = match plan.other_format {
                0 => String::new(),
                n => format!(
                    " ({n} files there are another version's and are not used; `planish cache clear` \
                     removes them)"
                ),
            };
            let folder = plan.folder.display();
            format!("{size} of frozen layers' activations in {folder}{found}{other}")
        }
    }
}

/// Runs the frozen layers, or finds what they gave. Where nobody asked for files by name, a disk that
/// gives out is no reason to stop.
///
/// # Errors
/// Those of [`Source::open`].
pub fn keep<'a>(
    args: &CacheArgs,
    prefix: Prefix<'a>,
    plan: &Plan,
    about: &dyn Fn(usize) -> About,
    common: &Common,
) -> anyhow::Result<Kept<'a>> {
    let clock = Instant::now();
    let (mut notes, mut found) = (Vec::new(), 0);
    let images = prefix.layout().rows.saturating_mul(plan.missing(prefix.views()));
    let progress = common.progress("frozen layers", images as u64, "images");
    let mut tell = |event: Event| {
        let note = match event {
            Event::Computed(images) => return progress.add(images as u64),
            Event::Found(path) => {
                found += 1;
                if !common.quiet {
                    progress.line(&format!("frozen layers read from {}", path.display()));
                }
                return;
            }
            Event::Damaged(Error::Damaged { path, place, expected, found }) => format!(
                "{}, {place}: expected {expected}, found {found}: the frozen layers are run again",
                path.display()
            ),
            Event::Damaged(error) => format!("{error}: the frozen layers are run again"),
            Event::Stale(path) => format!(
                "{}: this build or machine rounds otherwise than the one that wrote it: the frozen \
                 layers are run again",
                path.display()
            ),
        };
        if !common.quiet {
            progress.line(&format!("note: {note}"));
        }
        notes.push(note);
    };
    let mut told = info(plan, &prefix);
    let opened = Source::open(prefix.clone(), plan, about, &mut tell);
    let source = match opened {
        Err(ObjectiveError::Cache(error)) if args.cache == CacheName::Auto => {
            let off = Plan::without_files(Mode::Off, 0);
            told = info(&off, &prefix);
            let note = format!("frozen layers are run for every batch, for {error}");
            common.say(&format!("note: {note}"));
            notes.push(note);
            Source::open(prefix, &off, about, &mut |_| {})?
        }
        opened => opened?,
    };
    drop(progress);
    let seconds = if told.mode == Mode::Off { 0.0 } else { clock.elapsed().as_secs_f64() };
    let info = CacheInfo { found, seconds, ..told };
    Ok(Kept { source, info, notes })
}

/// How a message names an image set's augmentation in a view's file.
pub fn view_name(augment: &Augment, seed: u64, view: usize) -> String {
    match *augment == Augment::default() {
        true => "plain".into(),
        false => format!("{augment}, seed {seed}, view {}", count(view as u64)),
    }
}
