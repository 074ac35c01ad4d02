//! Images as model input: order, prefetching, augmentation.

use super::*;
use crate::data::{CropOffset, Interpolation, Resize};
use crate::models::arch;

fn pixels(labels: Vec<u32>) -> std::result::Result<Pixels, DataError> {
    let network = arch::named("vit_nano_patch7_28", 3, 1).unwrap().network().unwrap();
    let levels = (0..labels.len() * 28 * 28).map(|i| (i % 251) as u8).collect();
    let split = Split::from_levels("train", levels, [1, 28, 28], labels).unwrap();
    let preprocess = Preprocess {
        image_size: [28, 28],
        channels: 1,
        resize: Resize::Squash,
        crop_offset: CropOffset::HalfToEven,
        interpolation: Interpolation::Bilinear,
        mean: vec![0.5],
        std: vec![0.25],
    };
    Pixels::new(&split, Some(&preprocess), &network)
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
fn images_that_do_not_fit_the_model_are_refused() {
    assert!(matches!(pixels(vec![0, 3]), Err(DataError::Label { index: 1, label: 3, .. })));
    let valid = pixels(vec![0]).unwrap();
    let network = arch::named("vit_nano_patch7_28", 3, 1).unwrap().network().unwrap();
    let without_preprocess = Pixels::new(valid.split(), None, &network);
    assert!(matches!(without_preprocess, Err(DataError::NoPreprocess { .. })));
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
    let network = arch::named("vit_nano_patch7_28", 3, 1).unwrap().network().unwrap();
    let preprocess = pixels(vec![0]).unwrap().preprocess;
    let pixels = Pixels::new(data.only().unwrap(), preprocess.as_ref(), &network).unwrap();
    (root, pixels)
}

#[test]
fn prefetching_does_not_change_pixels_or_order() {
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
                images.prefetch(&(to..(to + 5).min(23)).collect::<Vec<_>>());
                seen.extend(values(&images.inputs(from..to).unwrap()));
            }
            // In reverse order, with hints for images that are then not requested.
            images.prefetch(&[1, 2, 3]);
            let backward: Vec<usize> = all.iter().rev().copied().collect();
            assert_eq!(
                values(&images.inputs_at(&backward).unwrap()),
                expected.iter().rev().flatten().copied().collect::<Vec<_>>()
            );
            seen
        });
        assert_eq!(seen, expected.concat());
    }
}

#[test]
fn an_augmented_image_is_not_reused_as_a_plain_one() {
    let (_root, images) = folder();
    let flip = Augment { shift: 3, ..Augment::default() };
    let shifted = Some((&flip, 5, 2));
    images.decode_ahead(&[4], shifted);
    let plain = values(&images.inputs(4..5).unwrap());
    let augmented = values(&images.batch(&[4], shifted).unwrap().values);
    assert_ne!(plain, augmented);
    let split = images.split();
    assert_eq!(plain, split.image(4, images.preprocess.as_ref(), None).unwrap());
    assert_eq!(augmented, split.image(4, images.preprocess.as_ref(), shifted).unwrap());
}

#[test]
fn the_first_bad_file_is_reported_for_any_number_of_threads() {
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
