//! The frozen layers: what they make of the training images, computed.
//!
//! An image's activations must have the same bits wherever they are computed, in the pass that
//! fills memory or a file or for the one batch that wants them, or the place would matter to the
//! result. Products of few rows round as their number of rows has it, so images always go through
//! the model in micro-batches of one size, the model's own, the last filled up with copies of its
//! last image. `--micro-batch` and `--memory` do not change it: without a tape it is small.

use crate::cache::{self, Frozen, Layout, Stored};
use crate::objective::{AT_ONCE_ON_GPU, Examples, Objective, Result};
use crate::vit::Config;
use candle_core::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// The layers below a stage, over views of the training images.
#[derive(Clone)]
pub struct Prefix<'a> {
    model: Objective,
    views: Vec<&'a dyn Examples>,
    stage: usize,
    layout: Layout,
}

/// Which view of which image.
pub type Pick = (usize, usize);

impl<'a> Prefix<'a> {
    /// The layers of `model` below `stage`, over views that show the same images with the same
    /// labels in the same order. Activations are rounded to bf16 if `half`.
    pub fn new(model: &Objective, views: Vec<&'a dyn Examples>, stage: usize, half: bool) -> Self {
        let own = Objective::new(model.config.clone(), model.weights.clone()).micro_batch;
        let layout = Layout {
            rows: views.first().map_or(0, |view| view.len()),
            row: row(&model.config, stage),
            stored: Stored::of(model.dtype(), half),
        };
        Self { model: Objective { micro_batch: own, ..model.clone() }, views, stage, layout }
    }

    /// What one view's activations are like.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of views.
    pub fn views(&self) -> usize {
        self.views.len()
    }

    /// The stage whose input they are.
    pub fn stage(&self) -> usize {
        self.stage
    }

    /// One label an image.
    pub fn labels(&self) -> Arc<[u32]> {
        self.views.first().map_or_else(|| Arc::from([]), |view| view.labels().into())
    }

    /// The key of each view's activations.
    ///
    /// # Errors
    /// [`cache::Error::Unidentified`] for images that have no digest.
    pub fn keys(&self) -> cache::Result<Vec<String>> {
        let key = |view: &&dyn Examples| {
            let images = view.fingerprint()?.ok_or(cache::Error::Unidentified)?;
            cache::key(&Frozen {
                config: &self.model.config,
                weights: &self.model.weights,
                stage: self.stage,
                images: &images,
                micro_batch: self.model.micro_batch,
                precision: self.model.precision,
                stored: self.layout.stored,
            })
        };
        self.views.iter().map(key).collect()
    }

    /// Whether there is nothing to compute: the views are at that stage.
    pub fn is_read(&self) -> bool {
        self.views.iter().all(|view| view.stage() == self.stage)
    }

    /// Images that are taken at once: a micro-batch for each thread, or a few for a GPU, one after the
    /// other.
    pub fn wave(&self) -> usize {
        let beside = match self.model.gpu {
            Some(_) => AT_ONCE_ON_GPU,
            None => rayon::current_num_threads(),
        };
        self.model.micro_batch.max(1) * beside
    }

    /// Whether all views' activations fit a GPU that is in use, and may lie there as they are.
    pub fn fits_there(&self) -> bool {
        let bytes = self.layout.bytes().saturating_mul(self.views.len() as u64);
        self.layout.stored != Stored::Bf16
            && self.model.gpu.as_ref().is_some_and(|gpu| gpu.has_room_for_activations(bytes))
    }

    /// Rows of [`Prefix::rows`] where the arithmetic runs.
    ///
    /// # Errors
    /// Bytes that are no rows; no room.
    pub fn put(&self, rows: &[u8]) -> Result<Tensor> {
        let row = self.layout.row_bytes().max(1);
        let values = self.layout.stored.collect(rows.len() / row, &self.layout.row, |i, out| {
            out.copy_from_slice(&rows[i * row..(i + 1) * row]);
            Ok(())
        })?;
        Ok(self.model.to_device(&values)?)
    }

    /// Tells a view that these images come next.
    pub fn ahead(&self, view: usize, images: Range<usize>) {
        if let Some(view) = self.views.get(view) {
            view.prefetch(&images.collect::<Vec<_>>());
        }
    }

    /// The activations of these images, as the model computes them, (n, …).
    ///
    /// # Errors
    /// Those of reading and evaluating the images.
    pub fn values(&self, picks: &[Pick]) -> Result<Tensor> {
        if self.is_read() {
            let drawn = Drawn { views: &self.views, picks, labels: Vec::new() };
            return Ok(drawn.inputs(0..picks.len())?.to_dtype(self.model.dtype())?);
        }
        let filled = picks.len().next_multiple_of(self.model.micro_batch.max(1));
        let drawn = Drawn { views: &self.views, picks, labels: vec![0; filled] };
        let found = self.model.activations_in_whole_micro_batches(&drawn, self.stage)?;
        Ok(found.values.narrow(0, 0, picks.len())?)
    }

    /// The same as they are kept: bytes, a row after the other.
    ///
    /// # Errors
    /// Those of [`Prefix::values`].
    pub fn rows(&self, picks: &[Pick]) -> Result<Vec<u8>> {
        let bytes = self.layout.stored.encode(&self.values(picks)?)?;
        let expected = picks.len().saturating_mul(self.layout.row_bytes());
        match bytes.len() == expected {
            true => Ok(bytes),
            false => Err(cache::Error::Shape { expected, found: bytes.len() }.into()),
        }
    }
}

/// Shape of one image's activations at a stage's input.
fn row(config: &Config, stage: usize) -> Vec<usize> {
    match stage {
        0 => vec![config.channels, config.image_size[0], config.image_size[1]],
        s if s == 2 * config.depth + 2 && !config.two_heads() => vec![config.dim],
        s => vec![config.activation_len(s) / config.dim.max(1), config.dim],
    }
}

/// Images drawn from several views; past the last, copies of it.
struct Drawn<'a> {
    views: &'a [&'a dyn Examples],
    picks: &'a [Pick],
    labels: Vec<u32>,
}

impl Drawn<'_> {
    /// Positions of picks that there are, if all are of one view.
    fn one_view(&self, picks: &[Pick]) -> Option<(usize, Vec<usize>)> {
        let &(view, _) = picks.first()?;
        picks.iter().all(|pick| pick.0 == view).then(|| (view, picks.iter().map(|p| p.1).collect()))
    }

    fn at(&self, picks: &[Pick]) -> Result<Tensor> {
        if let Some((view, images)) = self.one_view(picks) {
            return self.views[view].inputs_at(&images);
        }
        let each = picks.iter().map(|&(view, image)| self.views[view].inputs_at(&[image]));
        Ok(Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 0)?)
    }
}

impl Examples for Drawn<'_> {
    fn len(&self) -> usize {
        self.labels.len()
    }
    fn stage(&self) -> usize {
        self.views.first().map_or(0, |view| view.stage())
    }
    fn inputs(&self, range: Range<usize>) -> Result<Tensor> {
        // A micro-batch that a GPU had no room for is halved, and then one may be all copies.
        let start = range.start.min(self.picks.len().saturating_sub(1));
        let end = range.end.min(self.picks.len());
        let x = self.at(&self.picks[start..end])?;
        let missing = range.len() - (end - start);
        if missing == 0 {
            return Ok(x);
        }
        let last = x.narrow(0, x.dim(0)? - 1, 1)?;
        let copies = std::iter::once(x).chain(std::iter::repeat_n(last, missing));
        Ok(Tensor::cat(&copies.collect::<Vec<_>>(), 0)?)
    }
    fn prefetch(&self, indices: &[usize]) {
        let picks: Vec<Pick> = indices.iter().filter_map(|&i| self.picks.get(i).copied()).collect();
        // What is told to one view is forgotten as soon as two others are told something.
        if let Some((view, images)) = self.one_view(&picks) {
            self.views[view].prefetch(&images);
        }
    }
    fn labels(&self) -> &[u32] {
        &self.labels
    }
}
