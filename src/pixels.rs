//! Model input: a split with its preprocessing.

use crate::cache;
use crate::data::{Ahead, Augment, Augmented, Error as DataError, Preprocess, Split};
use crate::fingerprint::fingerprint;
use crate::models::Network;
use crate::objective::{Activations, Examples, Result};
use candle_core::{Device, Tensor};
use serde::Serialize;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Maximum size in bytes of prefetched prepared images.
const AHEAD: usize = 64 << 20;

/// Key of a prefetched image: its index, with augmentation, seed and epoch.
type PixelRequest = (usize, Option<View>);
/// An augmentation with seed and epoch: all images in one pass.
type View = (Augment, u64, u64);
type Decoder = Ahead<PixelRequest, std::result::Result<Vec<f32>, DataError>>;

/// A split's images as model input, computed on every access. Memory holds one micro-batch per
/// thread. For image files it also holds the prefetched images, at most 64 MiB but at least one
/// image, and one file on each decoding thread.
#[derive(Clone, Debug)]
pub struct Pixels {
    split: Split,
    preprocess: Option<Preprocess>,
    shape: [usize; 3],
    view: Option<View>,
    decoder: Arc<OnceLock<Decoder>>,
}

impl Pixels {
    /// All of `split` for this network. `preprocess` may be `None` if the images
    /// are prepared.
    ///
    /// # Errors
    /// A label without a class; prepared images of the wrong shape; raw images without
    /// preprocessing, or with an inconsistent one.
    pub fn new(
        split: &Split,
        preprocess: Option<&Preprocess>,
        network: &Network,
    ) -> std::result::Result<Self, DataError> {
        let shape = network.input();
        split.check_labels(network.classes())?;
        split.check_shape(shape)?;
        if !split.prepared() {
            let missing = || DataError::NoPreprocess { place: split.place() };
            preprocess.ok_or_else(missing)?.check()?;
        }
        Ok(Self {
            split: split.clone(),
            preprocess: preprocess.cloned(),
            shape,
            view: None,
            decoder: Arc::default(),
        })
    }

    /// The split.
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// Channels, height and width of an image as the model takes it.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The same images with an augmentation in epoch `number`, on every access.
    ///
    /// # Errors
    /// An augmentation that is not possible: a crop of prepared images.
    pub fn view(&self, augment: Augment, seed: u64, number: u64) -> Result<Pixels> {
        let preprocess = self.preprocess.as_ref();
        self.split.pixels(&[], preprocess, Some((&augment, seed, number)))?;
        Ok(Self { view: Some((augment, seed, number)), ..self.clone() })
    }

    /// Bytes that [`Pixels::load`] would use; `None` on overflow.
    pub fn bytes(&self) -> Option<usize> {
        let per_image = self.shape.iter().try_fold(4usize, |n, &d| n.checked_mul(d));
        per_image?.checked_mul(self.split.len())
    }

    /// The images at these positions, in this order, read on every access.
    ///
    /// # Errors
    /// A position outside the split.
    pub fn select(&self, indices: &[usize]) -> Result<Pixels> {
        let split = self.split.subset(indices, self.split.name())?;
        Ok(Self { split, decoder: Arc::default(), ..self.clone() })
    }

    /// The images at these positions, in memory, with an optional augmentation (with seed and
    /// epoch).
    ///
    /// # Errors
    /// A position outside the split; images that cannot be prepared.
    pub fn batch(&self, indices: &[usize], augment: Option<Augmented>) -> Result<Activations> {
        let labels = self.split.labels();
        Ok(Activations {
            stage: 0,
            values: self.tensor(indices, augment)?,
            labels: indices.iter().filter_map(|&i| labels.get(i).copied()).collect(),
        })
    }

    /// All images, in memory: for sets that are read many times.
    ///
    /// # Errors
    /// As [`Pixels::batch`].
    pub fn load(&self) -> Result<Activations> {
        self.batch(&(0..self.split.len()).collect::<Vec<_>>(), self.seen())
    }

    /// Starts to decode images that will be requested next, on background threads. Has no effect
    /// for images in memory. The amount of prefetching affects only the time.
    pub fn decode_ahead(&self, indices: &[usize], augment: Option<Augmented>) {
        if !self.split.decodes() {
            return;
        }
        let decoder = self.decoder.get_or_init(|| {
            let image = self.shape.iter().product::<usize>().saturating_mul(4).max(1);
            let (split, preprocess) = (self.split.clone(), self.preprocess.clone());
            Ahead::new(
                (AHEAD / image).max(1),
                rayon::current_num_threads(),
                move |request: &PixelRequest| {
                    let augment =
                        request.1.as_ref().map(|(augment, seed, epoch)| (augment, *seed, *epoch));
                    split.image(request.0, preprocess.as_ref(), augment)
                },
            )
        });
        decoder.want(indices.iter().map(|&index| (index, owned(augment))));
    }

    fn seen(&self) -> Option<Augmented<'_>> {
        self.view.as_ref().map(|(augment, seed, number)| (augment, *seed, *number))
    }

    fn tensor(&self, indices: &[usize], augment: Option<Augmented>) -> Result<Tensor> {
        let preprocess = self.preprocess.as_ref();
        let pixels = self.split.pixels_with(indices, preprocess, augment, |index| {
            let decoder = self.decoder.get();
            let made = decoder.and_then(|decoder| decoder.take(&(index, owned(augment))));
            made.unwrap_or_else(|| self.split.image(index, preprocess, augment))
        })?;
        let [c, h, w] = self.shape;
        Ok(Tensor::from_vec(pixels, (indices.len(), c, h, w), &Device::Cpu)?)
    }
}

fn owned(augment: Option<Augmented>) -> Option<View> {
    augment.map(|(augment, seed, epoch)| (*augment, seed, epoch))
}

/// Dependencies of the first stage's input.
#[derive(Serialize)]
struct Inputs<'a> {
    images: &'a str,
    shape: [usize; 3],
    preprocess: Option<&'a Preprocess>,
    view: Option<View>,
}

impl Examples for Pixels {
    fn len(&self) -> usize {
        self.split.len()
    }
    fn stage(&self) -> usize {
        0
    }
    fn inputs(&self, range: Range<usize>) -> Result<Tensor> {
        self.tensor(&range.collect::<Vec<_>>(), self.seen())
    }
    fn inputs_at(&self, indices: &[usize]) -> Result<Tensor> {
        self.tensor(indices, self.seen())
    }
    fn prefetch(&self, indices: &[usize]) {
        self.decode_ahead(indices, self.seen());
    }
    fn labels(&self) -> &[u32] {
        self.split.labels()
    }
    fn fingerprint(&self) -> cache::Result<Option<String>> {
        let inputs = Inputs {
            images: self.split.image_digest(),
            shape: self.shape,
            preprocess: self.preprocess.as_ref().filter(|_| !self.split.prepared()),
            view: self.view,
        };
        Ok(Some(fingerprint("planish/inputs/1", &inputs)?))
    }
}

#[cfg(test)]
#[path = "pixels_tests.rs"]
mod tests;
