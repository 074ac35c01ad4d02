//! Images of a split as model input.

use rayon::prelude::*;

use super::augment::{Augment, Draw};
use super::decode::Frame;
use super::store::Store;
use super::transform::Transform;
use super::{DecodeError, Error, Preprocess, Split};

/// An augmentation with seed and epoch.
pub type Augmented<'a> = (&'a Augment, u64, u64);

impl Split {
    /// Values of one image as model input.
    ///
    /// # Errors
    /// [`Error::NoPreprocess`] for raw images without preprocessing; [`Error::Augment`] for a
    /// crop of prepared images.
    fn values(
        &self,
        preprocess: Option<&Preprocess>,
        augment: Option<Augmented>,
    ) -> Result<usize, Error> {
        match (self.image_shape(), preprocess, augment) {
            (Some(_), _, Some((Augment { crop: Some(crop), .. }, ..))) if self.prepared() => {
                Err(Error::Augment {
                    item: format!("crop={crop}"),
                    expected: "flip or shift only, because the images are prepared tensors".into(),
                })
            }
            (Some(shape), ..) if self.prepared() => Ok(shape.iter().product()),
            (_, Some(preprocess), _) => {
                preprocess.check()?;
                Ok(preprocess.channels * preprocess.image_size.iter().product::<usize>())
            }
            (_, None, _) => Err(Error::NoPreprocess { place: self.place() }),
        }
    }

    /// The images at `indices` as model input: `(B,C,H,W)`, contiguous.
    ///
    /// Prepared images are copied, and `preprocess` is ignored; raw ones are preprocessed, and
    /// image files are decoded first, in parallel. `augment` is the augmentation with seed and
    /// epoch. Its effect on an image depends only on these and on the image's position in this
    /// split, not on the batch or the number of threads.
    ///
    /// # Errors
    /// [`Error::NoPreprocess`] for raw images without preprocessing; [`Error::Preprocess`] if it
    /// does not fit the images; [`Error::Augment`] for a crop of prepared images; [`Error::Index`]
    /// for a position outside the split; [`Error::Image`] for a file that cannot be decoded. Of
    /// several errors, the first in order of `indices` is returned.
    pub fn pixels(
        &self,
        indices: &[usize],
        preprocess: Option<&Preprocess>,
        augment: Option<Augmented>,
    ) -> Result<Vec<f32>, Error> {
        self.pixels_with(indices, preprocess, augment, |index| {
            self.image(index, preprocess, augment)
        })
    }

    /// Like [`Split::pixels`], with each image computed by `image`.
    pub(crate) fn pixels_with(
        &self,
        indices: &[usize],
        preprocess: Option<&Preprocess>,
        augment: Option<Augmented>,
        image: impl Fn(usize) -> Result<Vec<f32>, Error> + Sync,
    ) -> Result<Vec<f32>, Error> {
        let stride = self.values(preprocess, augment)?;
        let total = stride.checked_mul(indices.len()).ok_or_else(|| Error::Setting {
            name: "batch size",
            expected: "a batch that fits in memory".into(),
            found: indices.len().to_string(),
            remedy: "choose a smaller batch",
        })?;
        let mut out = vec![0f32; total];
        let work = out.par_chunks_mut(stride).zip(indices).map(|(out, &index)| {
            let values = image(index)?;
            out.copy_from_slice(&values);
            Ok(())
        });
        // Compute all, so that the error returned does not depend on the threads.
        let done: Vec<Result<(), Error>> = work.collect();
        done.into_iter().collect::<Result<(), Error>>()?;
        Ok(out)
    }

    /// One image as model input, `(C,H,W)`, computed on the calling thread.
    ///
    /// # Errors
    /// Those of [`Split::pixels`].
    pub(crate) fn image(
        &self,
        index: usize,
        preprocess: Option<&Preprocess>,
        augment: Option<Augmented>,
    ) -> Result<Vec<f32>, Error> {
        let mut out = vec![0f32; self.values(preprocess, augment)?];
        let row = self.row(index)?;
        let outside = || Error::Index { place: self.place(), index, len: self.len() };
        let draw = |[_, h, w]: [usize; 3]| match augment {
            Some((augment, seed, epoch)) => augment.draw([h, w], seed, epoch, index),
            None => Draw::default(),
        };
        let raw = |levels: &[u8], shape, out: &mut [f32]| {
            let missing = || Error::NoPreprocess { place: self.place() };
            let transform = self.transform(row, preprocess.ok_or_else(missing)?, shape)?;
            transform.run(levels, &draw(shape), out);
            Ok(())
        };
        match &*self.store {
            Store::Memory(images) => {
                let bytes = images.get(row).ok_or_else(outside)?;
                let shape @ [_, h, w] = images.shape;
                match images.prepared {
                    true => copy_prepared(bytes, [h, w], &draw(shape), &mut out),
                    false => raw(bytes, shape, &mut out)?,
                }
            }
            Store::Files(files) => {
                let frame = files.frame(row).ok_or_else(outside)??;
                raw(&frame.levels, frame.shape, &mut out)?;
            }
        }
        Ok(out)
    }

    /// The preprocessing for images of this shape; an error has the image's file.
    fn transform(
        &self,
        row: usize,
        preprocess: &Preprocess,
        shape: [usize; 3],
    ) -> Result<Transform, Error> {
        Transform::new(preprocess, shape).map_err(|error| match &*self.store {
            Store::Files(files) => match files.path(row) {
                Some(path) => Error::Image { path, cause: DecodeError::Unfit(Box::new(error)) },
                None => error,
            },
            Store::Memory(_) => error,
        })
    }

    /// Leaves out image files that are damaged or cannot be decoded. Returns the remaining split
    /// and the error of each file left out, in stored order. Every file is decoded once; splits in
    /// memory are returned unchanged.
    ///
    /// Only full decoding detects a truncated file. Finding all of them before anything is drawn
    /// makes every pass, sample and split use the same images. `preprocess`, if given, must be able
    /// to bring each image to its size.
    ///
    /// # Errors
    /// [`Error::AllBad`] if no images remain.
    pub fn sound(&self, preprocess: Option<&Preprocess>) -> Result<(Split, Vec<Error>), Error> {
        let Store::Files(files) = &*self.store else { return Ok((self.clone(), Vec::new())) };
        let check = |&row: &usize| {
            let frame = files.frame(row)?;
            let whole = |frame: Frame| match (frame.damage, files.path(row)) {
                (Some(damage), Some(path)) => {
                    Err(Error::Image { path, cause: DecodeError::Damaged(damage) })
                }
                _ => Ok(frame.shape),
            };
            let fits = |shape| match preprocess {
                Some(preprocess) => self.transform(row, preprocess, shape).map(drop),
                None => Ok(()),
            };
            frame.and_then(whole).and_then(fits).err()
        };
        let found: Vec<Option<Error>> = self.rows.par_iter().map(check).collect();
        let kept: Vec<usize> = (0..self.len()).filter(|&i| found[i].is_none()).collect();
        let mut bad: Vec<Error> = found.into_iter().flatten().collect();
        if kept.is_empty() && !bad.is_empty() {
            let (place, images) = (self.place(), bad.len());
            return Err(Error::AllBad { place, images, first: Box::new(bad.swap_remove(0)) });
        }
        let mut sound = self.subset(&kept, self.name())?;
        sound.skipped = bad.len();
        Ok((sound, bad))
    }
}

/// Copies prepared pixels, flipped and shifted; vacated pixels are 0, the mean of normalised
/// images.
fn copy_prepared(bytes: &[u8], [h, w]: [usize; 2], draw: &Draw, out: &mut [f32]) {
    let (values, _) = bytes.as_chunks::<4>();
    for (plane, values) in out.chunks_mut(h * w).zip(values.chunks(h * w)) {
        for (at, out) in plane.iter_mut().enumerate() {
            *out = draw
                .source([at / w, at % w], [h, w])
                .and_then(|[y, x]| values.get(y * w + x))
                .map_or(0.0, |&value| f32::from_le_bytes(value));
        }
    }
}
