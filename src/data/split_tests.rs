use super::super::{Augment, CropOffset, Interpolation, Preprocess, Resize};
use super::*;

/// Three grey images of 2×3, levels 0, 10, 20, …
fn raw() -> Split {
    let levels = (0..18).map(|i| i * 10).collect();
    Split::from_levels("test", levels, [1, 2, 3], vec![2, 0, 1]).unwrap()
}

/// Three prepared images of 1×1×3.
fn prepared(values: [f32; 9]) -> Split {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let images = ImageBuffer { bytes, start: 0, shape: [1, 1, 3], prepared: true };
    Split::new("memory", "all", images, vec![0, 1, 2], None)
}

fn preprocess(channels: usize) -> Preprocess {
    Preprocess {
        image_size: [2, 3],
        channels,
        resize: Resize::Squash,
        crop_offset: CropOffset::HalfToEven,
        interpolation: Interpolation::Bilinear,
        mean: vec![0.5, 0.25, 0.0][..channels].to_vec(),
        std: vec![0.5, 0.25, 0.125][..channels].to_vec(),
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn the_digest_covers_the_documented_bytes() {
    let split = raw().subset(&[2, 0], "part").unwrap();
    let mut bytes = b"u8".to_vec();
    [2u64, 1, 2, 3].iter().for_each(|n| bytes.extend(n.to_le_bytes()));
    bytes.extend((12..18).chain(0..6).map(|i| i * 10));
    [1u32, 2].iter().for_each(|label| bytes.extend(label.to_le_bytes()));
    assert_eq!(split.digest(), hex(&bytes));
    assert_ne!(split.digest(), raw().digest());
    assert_eq!(raw().range(0..3).digest(), raw().digest());
}

#[test]
fn subsets_and_ranges_index_their_split() {
    let split = raw().subset(&[2, 1], "part").unwrap();
    assert_eq!((split.name(), split.labels()), ("part", &[1, 0][..]));
    let nested = split.subset(&[1], "one").unwrap();
    assert_eq!(nested.labels(), [0]);
    let nested_pixels = nested.pixels(&[0], Some(&preprocess(1)), None).unwrap();
    assert_eq!(nested_pixels, raw().pixels(&[1], Some(&preprocess(1)), None).unwrap());
    assert_eq!(split.range(1..9).labels(), [0]);
    assert!(split.range(5..9).is_empty());
    assert!(matches!(split.subset(&[2], "").unwrap_err(), Error::Index { index: 2, len: 2, .. }));
}

#[test]
fn grey_is_repeated_and_normalised_per_channel() {
    let out = raw().pixels(&[1], Some(&preprocess(3)), None).unwrap();
    let expected = |mean: f32, std: f32| {
        (6..12).map(move |i| (i as f32 * 10.0 / 255.0 - mean) / std).collect::<Vec<_>>()
    };
    assert_eq!(out, [expected(0.5, 0.5), expected(0.25, 0.25), expected(0.0, 0.125)].concat());
}

#[test]
fn raw_images_need_preprocessing() {
    let error = raw().pixels(&[0], None, None).unwrap_err();
    for flag in ["`mean`", "`std`", "`interpolation`"] {
        assert!(error.to_string().contains(flag), "{error}");
    }
}

#[test]
fn an_image_outside_the_split_is_an_error() {
    let error = raw().pixels(&[0, 3], Some(&preprocess(1)), None).unwrap_err();
    assert!(matches!(error, Error::Index { index: 3, len: 3, .. }), "{error}");
    assert!(raw().pixels(&[], Some(&preprocess(1)), None).unwrap().is_empty());
}

#[test]
fn labels_and_shapes_are_checked() {
    assert!(raw().check_labels(3).is_ok());
    let error = raw().check_labels(2).unwrap_err();
    assert!(matches!(error, Error::Label { index: 0, label: 2, classes: 2, .. }), "{error}");
    assert!(raw().check_shape([3, 9, 9]).is_ok());
    assert!(prepared([0.0; 9]).check_shape([1, 1, 3]).is_ok());
    let error = prepared([0.0; 9]).check_shape([3, 1, 3]).unwrap_err();
    assert!(matches!(error, Error::Shape { want: [3, 1, 3], found: [1, 1, 3], .. }), "{error}");
}

#[test]
fn levels_must_fit_their_shape() {
    let error = Split::from_levels("x", vec![0; 5], [1, 2, 3], vec![0]).unwrap_err();
    assert!(matches!(error, Error::Setting { .. }), "{error}");
    let error = Split::from_levels("x", vec![], [1, 2, 3], vec![]).unwrap_err();
    assert!(matches!(error, Error::Empty { .. }), "{error}");
}

#[test]
fn augmentation_depends_only_on_seed_epoch_and_image() {
    let augment: Augment = "flip,shift=1,crop=0.3".parse().unwrap();
    let levels = (0..64 * 30).map(|i| (i * 7 % 251) as u8).collect();
    let split = Split::from_levels("t", levels, [1, 6, 5], vec![0; 64]).unwrap();
    let one = preprocess(1);
    let all: Vec<usize> = (0..64).collect();
    let run = |indices: &[usize], seed, epoch| {
        split.pixels(indices, Some(&one), Some((&augment, seed, epoch))).unwrap()
    };
    let base = run(&all, 1, 2);
    let reversed: Vec<usize> = all.iter().rev().copied().collect();
    let backward = run(&reversed, 1, 2);
    for i in 0..64 {
        assert_eq!(base[i * 6..][..6], backward[(63 - i) * 6..][..6]);
        assert_eq!(base[i * 6..][..6], run(&[i], 1, 2));
    }
    let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let many = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
    assert_eq!(single.install(|| run(&all, 1, 2)), many.install(|| run(&all, 1, 2)));
    assert_ne!(base, run(&all, 1, 3));
    assert_ne!(base, run(&all, 2, 2));
}

#[test]
fn a_shift_of_raw_images_leaves_black() {
    let split = Split::from_levels("t", vec![255; 9 * 40], [1, 3, 3], vec![0; 40]).unwrap();
    let one = Preprocess { image_size: [3, 3], ..preprocess(1) };
    let augment = Augment { shift: 1, ..Augment::default() };
    let all: Vec<usize> = (0..40).collect();
    let out = split.pixels(&all, Some(&one), Some((&augment, 0, 0))).unwrap();
    // Level 0 is (0 − 0.5)/0.5 = −1, level 255 is 1; a shift by (dy, dx) keeps (3−|dy|)(3−|dx|).
    assert!(out.iter().all(|v| *v == 1.0 || *v == -1.0));
    let kept: Vec<usize> =
        out.chunks(9).map(|image| image.iter().filter(|v| **v == 1.0).count()).collect();
    assert!(kept.iter().all(|k| [4, 6, 9].contains(k)) && kept.contains(&4), "{kept:?}");
}

#[test]
fn prepared_images_can_be_flipped_and_shifted_only() {
    let split = prepared([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    let flip = Augment { flip: true, ..Augment::default() };
    let seen: Vec<_> =
        (0..40).map(|epoch| split.pixels(&[0], None, Some((&flip, 0, epoch))).unwrap()).collect();
    assert!(seen.iter().all(|s| s == &[1.0, 2.0, 3.0] || s == &[3.0, 2.0, 1.0]));
    assert!(seen.contains(&vec![1.0, 2.0, 3.0]) && seen.contains(&vec![3.0, 2.0, 1.0]));
    let shift = Augment { shift: 1, ..Augment::default() };
    let options = [[2.0, 3.0, 0.0], [1.0, 2.0, 3.0], [0.0, 1.0, 2.0], [0.0; 3]];
    for epoch in 0..40 {
        let seen = split.pixels(&[0], None, Some((&shift, 0, epoch))).unwrap();
        assert!(options.iter().any(|o| o == seen.as_slice()), "{seen:?}");
    }
    let crop = Augment { crop: Some(0.5), ..Augment::default() };
    let error = split.pixels(&[0], None, Some((&crop, 0, 0))).unwrap_err();
    assert!(matches!(error, Error::Augment { .. }), "{error}");
}
