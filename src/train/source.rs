//! Source of mini-batches: the training images' activations at the lowest layer that training
//! touches. They are kept in memory (GPU memory if they fit), kept in files, or computed for each
//! batch. All of these give bit-identical results. If training touches all layers, they are the
//! images themselves.

use super::keeping::{self, Keeping};
use super::prefix::{Pick, Prefix};
use crate::cache::{
    self, About, ActivationDtype, ActivationLayout, ActivationReader, CacheLookup, CacheMode,
    StoragePlan, Writer,
};
use crate::data::Augment;
use crate::data::order::Batches;
use crate::objective::{Activations, Error, Examples, Result};
use crate::pixels::Pixels;
use crate::random::{below, stream};
use crate::vector;
use candle_core::Tensor;
use std::path::PathBuf;
use std::sync::Arc;

/// Most bytes of prepared images that are kept in memory. Larger sets are prepared batch by batch.
const RESIDENT: usize = 1 << 30;

/// Training examples, accessed by position.
pub struct Source<'a> {
    stage: usize,
    labels: Arc<[u32]>,
    layout: ActivationLayout,
    /// Number of views of each image. `None`: each epoch has a view of its own.
    views: Option<usize>,
    kept: Storage<'a>,
}

/// Where activations are kept.
enum Storage<'a> {
    /// Given by the caller.
    Held(Activations),
    /// In CPU memory, view by view.
    Cpu(Vec<Vec<u8>>),
    /// In GPU memory: for each view, tensors of this many rows; the last one may be smaller.
    Gpu(usize, Vec<Vec<Tensor>>),
    /// In a file for each view.
    Files(Vec<ActivationReader>),
    /// Computed for each batch.
    Computed(Prefix<'a>),
    /// Images, prepared for each batch, with an augmentation and its seed.
    Images(Pixels, Option<(Augment, u64)>),
}

/// Events while a source is opened.
#[derive(Debug)]
pub enum SourceEvent {
    /// This many more images have passed the frozen layers.
    Computed(usize),
    /// A view's activations were found in this file.
    Found(PathBuf),
    /// A view's file was damaged and is rewritten.
    Damaged(cache::Error),
    /// This build or machine rounds differently from the one that wrote the file, which is
    /// rewritten.
    Stale(PathBuf),
}

impl<'a> Source<'a> {
    /// A source of the given examples.
    pub fn held(all: &Activations) -> Source<'static> {
        let layout = ActivationLayout {
            rows: all.labels.len(),
            row: all.values.dims().iter().skip(1).copied().collect(),
            stored: ActivationDtype::of(all.values.dtype(), false),
        };
        let (stage, labels) = (all.stage, all.labels.clone());
        Source { stage, labels, layout, views: Some(1), kept: Storage::Held(all.clone()) }
    }

    /// Images, to train all layers, augmented in this number of views each, or anew in each epoch.
    /// Without augmentation they are held in memory if they fit.
    ///
    /// # Errors
    /// Those of [`Pixels::load`].
    pub fn images(
        images: &Pixels,
        augment: Augment,
        views: Option<usize>,
        seed: u64,
    ) -> Result<Source<'static>> {
        let plain = augment == Augment::default();
        if plain && let Some(all) = resident(images)? {
            return Ok(Source::held(&all));
        }
        let layout = ActivationLayout {
            rows: images.len(),
            row: images.shape().to_vec(),
            stored: ActivationDtype::F32,
        };
        let kept = Storage::Images(images.clone(), (!plain).then_some((augment, seed)));
        Ok(Source { stage: 0, labels: images.labels().into(), layout, views, kept })
    }

    /// Runs the frozen layers over all views and keeps the activations where the plan says.
    /// Existing files that are valid and bit-identical to this build's results are reused. `about`
    /// is stored in each view's file.
    ///
    /// # Errors
    /// Those of reading and evaluating the images, and of writing the files.
    pub fn open(
        prefix: Prefix<'a>,
        plan: &StoragePlan,
        about: &dyn Fn(usize) -> About,
        tell: &mut dyn FnMut(SourceEvent),
    ) -> Result<Self> {
        let (stage, labels, layout, views) =
            (prefix.stage(), prefix.labels(), prefix.layout().clone(), prefix.views());
        let kept = match plan.mode {
            CacheMode::Off => Storage::Computed(prefix),
            CacheMode::Ram => {
                let mut keeping = Keeping::new(&prefix, plan);
                for view in 0..views {
                    keeping.view();
                    each_wave(&prefix, view, tell, |picks| keeping.add(picks))?;
                }
                match keeping.finish() {
                    keeping::InMemory::Cpu(all) => Storage::Cpu(all),
                    keeping::InMemory::Gpu(all) => Storage::Gpu(prefix.wave(), all),
                }
            }
            CacheMode::Disk => {
                let mut all = Vec::new();
                for (view, key) in plan.keys.iter().enumerate() {
                    let format = cache::FORMAT.to_owned();
                    let about = About { key: key.clone(), format, ..about(view) };
                    all.push(file(&prefix, view, plan, &about, tell)?);
                }
                Storage::Files(all)
            }
        };
        Ok(Source { stage, labels, layout, views: Some(views), kept })
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Where activations are kept.
    pub fn mode(&self) -> CacheMode {
        match self.kept {
            Storage::Held(_) | Storage::Cpu(_) | Storage::Gpu(..) => CacheMode::Ram,
            Storage::Files(_) => CacheMode::Disk,
            Storage::Computed(_) | Storage::Images(..) => CacheMode::Off,
        }
    }

    /// Whether a mini-batch is read from CPU memory or files, without computation.
    pub fn is_read(&self) -> bool {
        match &self.kept {
            Storage::Held(all) => !all.values.device().is_cuda(),
            Storage::Cpu(_) | Storage::Files(_) | Storage::Images(..) => true,
            Storage::Gpu(..) => false,
            Storage::Computed(prefix) => prefix.is_read(),
        }
    }

    /// The next mini-batch of an order. Of V views, image i shows number (sᵢ + epoch) mod V, with a
    /// start sᵢ drawn from the order's seed and name. So V consecutive epochs show each view once.
    /// Without a number of views, each epoch shows a new one.
    ///
    /// # Errors
    /// Those of [`Source::batch`].
    pub fn next(&self, batches: &mut Batches) -> Result<Activations> {
        let images = batches.next().ok_or(Error::NoExamples)?;
        let view = |&image: &usize| match self.views.map(|views| views.max(1) as u64) {
            None => batches.epoch() as usize,
            Some(1) => 0,
            Some(views) => {
                let name = format!("views of {}, image {image}", batches.name());
                let start = below(&mut stream(batches.seed(), &name), views);
                ((start + batches.epoch() % views) % views) as usize
            }
        };
        self.batch(&images.iter().map(|image| (view(image), *image)).collect::<Vec<_>>())
    }

    /// These views of these images, at the source's stage.
    ///
    /// # Errors
    /// Those of reading and evaluating the images, or of reading their files.
    pub fn batch(&self, picks: &[Pick]) -> Result<Activations> {
        let row = self.layout.row_bytes();
        let outside = || cache::Error::Shape { expected: row, found: 0 };
        let from = |all: &[u8], at: usize, out: &mut [u8]| -> cache::Result<()> {
            let bytes = at.checked_mul(row).and_then(|from| all.get(from..)?.get(..row));
            out.copy_from_slice(bytes.ok_or_else(outside)?);
            Ok(())
        };
        let collect = |read: &(dyn Fn(usize, &mut [u8]) -> cache::Result<()> + Sync)| {
            self.layout.stored.collect(picks.len(), &self.layout.row, read)
        };
        let values = match &self.kept {
            Storage::Held(all) => {
                return all.select(&picks.iter().map(|pick| pick.1).collect::<Vec<_>>());
            }
            Storage::Gpu(step, all) => {
                let row = |&(view, image): &Pick| -> Result<Tensor> {
                    let wave = all.get(view).and_then(|waves| waves.get(image / step));
                    Ok(wave.ok_or_else(outside)?.narrow(0, image % step, 1)?)
                };
                let rows = picks.iter().map(row).collect::<Result<Vec<_>>>()?;
                vector::concat(&rows)?
            }
            Storage::Cpu(all) => collect(&|i, out| {
                let (view, image) = picks[i];
                from(all.get(view).ok_or_else(outside)?, image, out)
            })?,
            Storage::Files(all) => collect(&|i, out| {
                let (view, image) = picks[i];
                all.get(view).ok_or_else(outside)?.row(image, out)
            })?,
            Storage::Computed(prefix) if self.layout.stored != ActivationDtype::Bf16 => {
                prefix.values(picks)?
            }
            Storage::Images(images, augment) => {
                let parts = picks.chunk_by(|a, b| a.0 == b.0).map(|part| {
                    let seen =
                        augment.as_ref().map(|(augment, seed)| (augment, *seed, part[0].0 as u64));
                    let indices: Vec<usize> = part.iter().map(|pick| pick.1).collect();
                    Ok(images.batch(&indices, seen)?.values)
                });
                vector::concat(&parts.collect::<Result<Vec<_>>>()?)?
            }
            // Round as a file would, so that results do not depend on the place.
            Storage::Computed(prefix) => {
                let rows = prefix.rows(picks)?;
                collect(&|i, out| from(&rows, i, out))?
            }
        };
        let labels = picks.iter().filter_map(|pick| self.labels.get(pick.1).copied()).collect();
        Ok(Activations { stage: self.stage, values, labels })
    }
}

/// The images in memory, if they fit.
///
/// # Errors
/// Those of [`Pixels::load`].
pub fn resident(images: &Pixels) -> Result<Option<Activations>> {
    let fits = images.bytes().is_some_and(|bytes| bytes <= RESIDENT);
    fits.then(|| images.load()).transpose()
}

/// Calls `take` with one view's images, one wave at a time.
fn each_wave(
    prefix: &Prefix,
    view: usize,
    tell: &mut dyn FnMut(SourceEvent),
    mut take: impl FnMut(&[Pick]) -> Result<()>,
) -> Result<()> {
    let (all, step) = (prefix.layout().rows, prefix.wave());
    for start in (0..all).step_by(step) {
        let end = all.min(start + step);
        prefix.ahead(view, end..all.min(end + step));
        let picks: Vec<Pick> = (start..end).map(|image| (view, image)).collect();
        take(&picks)?;
        tell(SourceEvent::Computed(end - start));
    }
    Ok(())
}

/// The file of one view: the existing one, or a new one.
fn file(
    prefix: &Prefix,
    view: usize,
    plan: &StoragePlan,
    about: &About,
    tell: &mut dyn FnMut(SourceEvent),
) -> Result<ActivationReader> {
    let open = || ActivationReader::open(&plan.folder, prefix.layout(), &about.key);
    match open()? {
        CacheLookup::Sound(reader) if agrees(prefix, view, &reader)? => {
            reader.mark_used();
            tell(SourceEvent::Found(reader.path().into()));
            return Ok(reader);
        }
        CacheLookup::Sound(reader) => tell(SourceEvent::Stale(reader.path().into())),
        CacheLookup::Damaged(error) => tell(SourceEvent::Damaged(error)),
        CacheLookup::Missing => {}
    }
    let mut writer = Writer::create(&plan.folder, prefix.layout(), about)?;
    each_wave(prefix, view, tell, |picks| Ok(writer.add(&prefix.rows(picks)?)?))?;
    writer.finish()?;
    match open()? {
        CacheLookup::Sound(reader) => Ok(reader),
        CacheLookup::Damaged(error) => Err(error.into()),
        CacheLookup::Missing => Err(cache::Error::gone(&plan.folder).into()),
    }
}

/// Whether recomputing the first, middle and last image gives the same bits as the file.
fn agrees(prefix: &Prefix, view: usize, reader: &ActivationReader) -> Result<bool> {
    let (rows, row) = (prefix.layout().rows, prefix.layout().row_bytes());
    let mut images = vec![0, rows / 2, rows.saturating_sub(1)];
    images.dedup();
    let picks: Vec<Pick> = images.iter().map(|&image| (view, image)).collect();
    let computed = prefix.rows(&picks)?;
    let mut kept = vec![0; row];
    for (&image, computed) in images.iter().zip(computed.chunks_exact(row.max(1))) {
        reader.row(image, &mut kept)?;
        if kept != computed {
            return Ok(false);
        }
    }
    Ok(true)
}
