//! Images at the door of the model: a split seen through its preprocessing.

use crate::data::{Ahead, Augment, Augmented, Error as DataError, Preprocess, Split};
use crate::objective::{Activations, Examples, Result};
use crate::vit::Config;
use candle_core::{Device, Tensor};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Most bytes of prepared images that are made ahead of their use.
const AHEAD: usize = 64 << 20;

/// An image, with the augmentation, seed and epoch it is wanted in.
type Wanted = (usize, Option<(Augment, u64, u64)>);
type Decoder = Ahead<Wanted, std::result::Result<Vec<f32>, DataError>>;

/// A split's images as the model takes them, made anew each time they are asked for, so that only
/// a micro-batch a thread is in memory, and of image files what is decoded ahead: 64 MiB at most,
/// but always one image, and on each decoding thread the file it is at.
#[derive(Clone, Debug)]
pub struct Pixels {
    split: Split,
    preprocess: Option<Preprocess>,
    shape: [usize; 3],
    decoder: Arc<OnceLock<Decoder>>,
}

impl Pixels {
    /// All of `split` for a model of that configuration; `preprocess` may be absent if the images
    /// are prepared.
    ///
    /// # Errors
    /// A label without a class, prepared images of another shape, raw images without
    /// preprocessing or with one that contradicts itself.
    pub fn new(
        split: &Split,
        preprocess: Option<&Preprocess>,
        config: &Config,
    ) -> std::result::Result<Self, DataError> {
        let [h, w] = config.image_size;
        let shape = [config.channels, h, w];
        split.check_labels(config.classes)?;
        split.check_shape(shape)?;
        if !split.prepared() {
            let missing = || DataError::NoPreprocess { place: split.place() };
            preprocess.ok_or_else(missing)?.check()?;
        }
        Ok(Self {
            split: split.clone(),
            preprocess: preprocess.cloned(),
            shape,
            decoder: Arc::default(),
        })
    }

    /// The split they come from.
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// Bytes that [`Pixels::load`] would take, if a machine can count them.
    pub fn bytes(&self) -> Option<usize> {
        let per_image = self.shape.iter().try_fold(4usize, |n, &d| n.checked_mul(d));
        per_image?.checked_mul(self.split.len())
    }

    /// The images at these positions, in that order, each read again when asked for.
    ///
    /// # Errors
    /// A position outside the split.
    pub fn select(&self, indices: &[usize]) -> Result<Pixels> {
        let split = self.split.subset(indices, self.split.name())?;
        Ok(Self { split, decoder: Arc::default(), ..self.clone() })
    }

    /// The images at these positions, held in memory, augmented if asked (with seed and epoch).
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

    /// All images, held in memory: for sets that are read many times.
    ///
    /// # Errors
    /// As [`Pixels::batch`].
    pub fn load(&self) -> Result<Activations> {
        self.batch(&(0..self.split.len()).collect::<Vec<_>>(), None)
    }

    /// Begins to decode the images that will be asked for next, on threads of their own; nothing
    /// where they are in memory. How many are made ahead changes the time alone.
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
                move |wanted: &Wanted| {
                    let augment =
                        wanted.1.as_ref().map(|(augment, seed, epoch)| (augment, *seed, *epoch));
                    split.image(wanted.0, preprocess.as_ref(), augment)
                },
            )
        });
        decoder.want(indices.iter().map(|&index| (index, owned(augment))));
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

fn owned(augment: Option<Augmented>) -> Option<(Augment, u64, u64)> {
    augment.map(|(augment, seed, epoch)| (*augment, seed, epoch))
}

impl Examples for Pixels {
    fn len(&self) -> usize {
        self.split.len()
    }
    fn stage(&self) -> usize {
        0
    }
    fn inputs(&self, range: Range<usize>) -> Result<Tensor> {
        self.tensor(&range.collect::<Vec<_>>(), None)
    }
    fn inputs_at(&self, indices: &[usize]) -> Result<Tensor> {
        self.tensor(indices, None)
    }
    fn ahead_at(&self, indices: &[usize]) {
        self.decode_ahead(indices, None);
    }
    fn labels(&self) -> &[u32] {
        self.split.labels()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Interpolation, Resize};
    use crate::vit::arch;

    fn pixels(labels: Vec<u32>) -> std::result::Result<Pixels, DataError> {
        let config = arch::named("vit_nano_patch7_28", 3, 1).unwrap();
        let levels = (0..labels.len() * 28 * 28).map(|i| (i % 251) as u8).collect();
        let split = Split::from_levels("train", levels, [1, 28, 28], labels).unwrap();
        let preprocess = Preprocess {
            image_size: [28, 28],
            channels: 1,
            resize: Resize::Squash,
            interpolation: Interpolation::Bilinear,
            mean: vec![0.5],
            std: vec![0.25],
        };
        Pixels::new(&split, Some(&preprocess), &config)
    }

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn images_are_normalised_and_keep_their_order() {
        let pixels = pixels(vec![2, 0, 1]).unwrap();
        let middle = pixels.inputs(1..2).unwrap();
        assert_eq!(middle.dims(), [1, 1, 28, 28]);
        let expected = |i: usize| (((28 * 28 + i) % 251) as f32 / 255.0 - 0.5) / 0.25;
        let found = values(&middle);
        assert!((0..784).all(|i| (found[i] - expected(i)).abs() < 1e-6));
        let some = pixels.select(&[1, 2]).unwrap();
        assert_eq!((some.labels(), values(&some.inputs(0..1).unwrap())), (&[0, 1][..], found));
        let batch = pixels.batch(&[2, 0], None).unwrap();
        assert_eq!(&batch.labels[..], [1, 2]);
        assert_eq!(values(&batch.inputs(0..1).unwrap()), values(&pixels.inputs(2..3).unwrap()));
        assert_eq!(values(&pixels.load().unwrap().values), values(&pixels.inputs(0..3).unwrap()));
    }

    #[test]
    fn what_does_not_fit_the_model_is_refused() {
        assert!(matches!(pixels(vec![0, 3]), Err(DataError::Label { index: 1, label: 3, .. })));
        let sound = pixels(vec![0]).unwrap();
        let config = arch::named("vit_nano_patch7_28", 3, 1).unwrap();
        let bare = Pixels::new(sound.split(), None, &config);
        assert!(matches!(bare, Err(DataError::NoPreprocess { .. })));
    }

    /// Twenty-three PNGs of different sizes and levels in two class folders.
    fn folder() -> (tempfile::TempDir, Pixels) {
        let root = tempfile::tempdir().unwrap();
        for i in 0..23u32 {
            let class = root.path().join(if i % 3 == 0 { "a" } else { "b" });
            std::fs::create_dir_all(&class).unwrap();
            let (w, h) = (20 + i, 40 - i);
            let levels: Vec<u8> = (0..w * h).map(|at| ((at * (i + 3)) % 251) as u8).collect();
            let path = class.join(format!("{i}.png"));
            image::save_buffer(path, &levels, w, h, image::ColorType::L8).unwrap();
        }
        let data = crate::data::DataSet::open(root.path().to_str().unwrap()).unwrap();
        let config = arch::named("vit_nano_patch7_28", 3, 1).unwrap();
        let preprocess = pixels(vec![0]).unwrap().preprocess;
        let pixels = Pixels::new(data.only().unwrap(), preprocess.as_ref(), &config).unwrap();
        (root, pixels)
    }

    #[test]
    fn decoding_ahead_changes_no_pixel_and_no_order() {
        let (_root, images) = folder();
        let all: Vec<usize> = (0..23).collect();
        let each = |i: &usize| images.split().image(*i, images.preprocess.as_ref(), None).unwrap();
        let expected: Vec<Vec<f32>> = all.iter().map(each).collect();
        for threads in [1, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let seen = pool.install(|| {
                let images = images.select(&all).unwrap();
                let mut seen = Vec::new();
                for from in (0..23).step_by(5) {
                    let to = (from + 5).min(23);
                    images.ahead_at(&(to..(to + 5).min(23)).collect::<Vec<_>>());
                    seen.extend(values(&images.inputs(from..to).unwrap()));
                }
                // Backwards, and told of images that are then not asked for.
                images.ahead_at(&[1, 2, 3]);
                let back: Vec<usize> = all.iter().rev().copied().collect();
                assert_eq!(
                    values(&images.inputs_at(&back).unwrap()),
                    expected.iter().rev().flatten().copied().collect::<Vec<_>>()
                );
                seen
            });
            assert_eq!(seen, expected.concat());
        }
    }

    #[test]
    fn an_augmented_image_is_not_taken_for_a_plain_one() {
        let (_root, images) = folder();
        let flip = Augment { shift: 3, ..Augment::default() };
        let shifted = Some((&flip, 5, 2));
        images.decode_ahead(&[4], shifted);
        let plain = values(&images.inputs(4..5).unwrap());
        let moved = values(&images.batch(&[4], shifted).unwrap().values);
        assert_ne!(plain, moved);
        let split = images.split();
        assert_eq!(plain, split.image(4, images.preprocess.as_ref(), None).unwrap());
        assert_eq!(moved, split.image(4, images.preprocess.as_ref(), shifted).unwrap());
    }

    #[test]
    fn of_several_bad_files_the_first_is_named_whatever_the_threads() {
        let (root, images) = folder();
        for name in ["a/18.png", "b/5.png", "b/7.png"] {
            std::fs::write(root.path().join(name), b"GIF89a").unwrap();
        }
        for threads in [1, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let error = pool.install(|| images.inputs(0..23)).unwrap_err().to_string();
            assert!(error.contains("a/18.png"), "{error}");
        }
    }
}
