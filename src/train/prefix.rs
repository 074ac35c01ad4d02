//! The frozen layers: computes their activations on the training images.
//!
//! An image's activations must be bit-identical wherever they are computed: in the pass that fills
//! memory or a file, or for a single batch. Otherwise the result would depend on where they are
//! kept. The rounding of a matrix product depends on its number of rows, so images always pass
//! through the model in micro-batches of one size. A last, smaller micro-batch is filled up with
//! copies of its last image. The options `micro_batch` and `memory` do not change this size;
//! without a tape it needs little memory.

use crate::cache::{self, ActivationDtype, ActivationLayout, Frozen};
use crate::engine::Engine;
use crate::objective::{AT_ONCE_ON_GPU, Examples, Objective, Result};
use candle_core::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// The layers below a stage, over views of the training images.
#[derive(Clone)]
pub struct Prefix<'a> {
    model: Objective,
    views: Vec<&'a dyn Examples>,
    stage: usize,
    layout: ActivationLayout,
}

/// View and image index.
pub type Pick = (usize, usize);

impl<'a> Prefix<'a> {
    /// The layers of `model` below `stage`. All views must have the same images and labels in the
    /// same order. Activations are rounded to bf16 if `half`.
    pub fn new(model: &Objective, views: Vec<&'a dyn Examples>, stage: usize, half: bool) -> Self {
        let own = Objective::new(model.network.clone(), model.weights.clone(), &model.engine);
        let micro_batch = own.micro_batch;
        let layout = ActivationLayout {
            rows: views.first().map_or(0, |view| view.len()),
            row: model.network.activation(stage).to_vec(),
            stored: ActivationDtype::of(model.dtype(), half),
        };
        Self { model: Objective { micro_batch, ..model.clone() }, views, stage, layout }
    }

    /// What computes the activations.
    pub fn engine(&self) -> &Engine {
        &self.model.engine
    }

    /// Layout of one view's activations.
    pub fn layout(&self) -> &ActivationLayout {
        &self.layout
    }

    /// Number of views.
    pub fn views(&self) -> usize {
        self.views.len()
    }

    /// The stage whose input the activations are.
    pub fn stage(&self) -> usize {
        self.stage
    }

    /// One label per image.
    pub fn labels(&self) -> Arc<[u32]> {
        self.views.first().map_or_else(|| Arc::from([]), |view| view.labels().into())
    }

    /// The cache key of each view's activations.
    ///
    /// # Errors
    /// [`cache::Error::Unidentified`] for images without a digest.
    pub fn keys(&self) -> cache::Result<Vec<String>> {
        let key = |view: &&dyn Examples| {
            let images = view.fingerprint()?.ok_or(cache::Error::Unidentified)?;
            cache::key(&Frozen {
                network: &self.model.network,
                weights: &self.model.weights,
                stage: self.stage,
                images: &images,
                micro_batch: self.model.micro_batch,
                precision: self.model.precision,
                engine: &self.model.engine,
                stored: self.layout.stored,
            })
        };
        self.views.iter().map(key).collect()
    }

    /// Whether there is nothing to compute, because the views already are at that stage.
    pub fn is_read(&self) -> bool {
        self.views.iter().all(|view| view.stage() == self.stage)
    }

    /// Images processed at once: one micro-batch per thread, or a few in sequence on a GPU.
    pub fn wave(&self) -> usize {
        let beside = match self.model.engine.gpu() {
            Some(_) => AT_ONCE_ON_GPU,
            None => rayon::current_num_threads(),
        };
        self.model.micro_batch.max(1) * beside
    }

    /// Whether all views' activations fit in GPU memory and may be stored there unconverted.
    pub fn fits_there(&self) -> bool {
        let bytes = self.layout.bytes().saturating_mul(self.views.len() as u64);
        self.layout.stored != ActivationDtype::Bf16
            && self.model.engine.gpu().is_some_and(|gpu| gpu.has_room_for_activations(bytes))
    }

    /// Uploads rows from [`Prefix::rows`] to the model's device.
    ///
    /// # Errors
    /// Invalid rows; too little memory.
    pub fn put(&self, rows: &[u8]) -> Result<Tensor> {
        let row = self.layout.row_bytes().max(1);
        let values = self.layout.stored.collect(rows.len() / row, &self.layout.row, |i, out| {
            out.copy_from_slice(&rows[i * row..(i + 1) * row]);
            Ok(())
        })?;
        Ok(self.model.to_device(&values)?)
    }

    /// Prefetch hint: these images of a view come next.
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

    /// The activations in storage format: bytes, row after row.
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

/// Images picked from several views, padded with copies of the last one.
struct Drawn<'a> {
    views: &'a [&'a dyn Examples],
    picks: &'a [Pick],
    labels: Vec<u32>,
}

impl Drawn<'_> {
    /// Positions of the picks, if all are of one view.
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
        // A micro-batch that did not fit on the GPU is halved, and one half may contain only
        // copies.
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
        // Prefetch hints for several views at once would evict each other.
        if let Some((view, images)) = self.one_view(&picks) {
            self.views[view].prefetch(&images);
        }
    }
    fn labels(&self) -> &[u32] {
        &self.labels
    }
}
