//! Compares resize, crop, grey and normalisation with Pillow and torchvision; see
//! `tests/reference/make_pillow.py`.

mod settings;

use planish::data::{CropOffset, Error, Interpolation, Preprocess, Resize, Split};
use safetensors::SafeTensors;
use settings::parse;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/pillow.safetensors");

/// A split of one image of shape (H, W, C).
fn split(shape: &[usize], levels: &[u8]) -> Split {
    let &[h, w, c] = shape else { panic!("{shape:?}") };
    Split::from_levels("reference", levels.to_vec(), [c, h, w], vec![0]).unwrap()
}

#[test]
fn every_case_matches_pillow() {
    let bytes = std::fs::read(REFERENCE).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut cases = 0;
    for (name, settings) in metadata.metadata().as_ref().unwrap() {
        let Ok(input) = tensors.tensor(&format!("{name}/in")) else { continue };
        let expected = tensors.tensor(&format!("{name}/out")).unwrap();
        let preprocess = parse(settings);
        let out = split(input.shape(), input.data()).pixels(&[0], Some(&preprocess), None).unwrap();
        assert_eq!(out.len(), expected.data().len(), "{name}");
        let plane = expected.shape()[0] * expected.shape()[1];
        let channels = expected.shape()[2];
        // Exact, except for the tall image whose columns Pillow 13 resizes first.
        let columns_first = name.starts_with("rgb-to-grey") && !settings.contains("nearest");
        let allowed = if columns_first { 1.0 } else { 0.0 };
        for (at, level) in expected.data().iter().enumerate() {
            let actual = (out[at % channels * plane + at / channels] * 255.0).round();
            let difference = (actual - f32::from(*level)).abs();
            assert!(difference <= allowed, "{name} at {at}: {actual}, Pillow {level}");
        }
        cases += 1;
    }
    assert_eq!(cases, 29);
}

#[test]
fn normalisation_matches_torchvision() {
    let bytes = std::fs::read(REFERENCE).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let input = tensors.tensor("norm/in").unwrap();
    let expected = tensors.tensor("norm/out").unwrap();
    let preprocess = Preprocess {
        image_size: [1, 256],
        channels: 3,
        resize: Resize::Squash,
        crop_offset: CropOffset::HalfToEven,
        interpolation: Interpolation::Bicubic,
        mean: vec![0.485, 0.456, 0.406],
        std: vec![0.229, 0.224, 0.225],
    };
    let out = split(input.shape(), input.data()).pixels(&[0], Some(&preprocess), None).unwrap();
    let (expected, _) = expected.data().as_chunks::<4>();
    assert_eq!(out.len(), expected.len());
    for (actual, reference) in out.iter().zip(expected) {
        // Values reach 2.7, where one f32 rounding is 2.4e-7.
        assert!((actual - f32::from_le_bytes(*reference)).abs() < 5e-7);
    }
}

fn good() -> Preprocess {
    parse("short bicubic 8 8 9 3")
}

#[test]
fn a_preprocessing_prints_as_one_line() {
    assert_eq!(
        good().to_string(),
        "short side to 9 (bicubic), centre crop 8×8, RGB, mean [0.0, 0.0, 0.0], \
         std [1.0, 1.0, 1.0]"
    );
    let squash = parse("squash bilinear 28 24 1");
    assert_eq!(squash.to_string(), "resize to 28×24 (bilinear), grey, mean [0.0], std [1.0]");
}

#[test]
fn inconsistent_preprocessing_names_the_field() {
    assert!(good().check().is_ok());
    let bad = [
        ("image size", Preprocess { image_size: [0, 8], ..good() }),
        ("image size", Preprocess { image_size: [usize::MAX, 2], ..good() }),
        ("channels", Preprocess { channels: 2, ..good() }),
        ("mean", Preprocess { mean: vec![0.5], ..good() }),
        ("mean", Preprocess { mean: vec![f32::NAN; 3], ..good() }),
        ("mean", Preprocess { mean: vec![0.5, 0.5, 127.0], ..good() }),
        ("mean", Preprocess { mean: vec![-0.1; 3], ..good() }),
        ("standard deviation", Preprocess { std: vec![0.5, 58.0, 0.5], ..good() }),
        ("standard deviation", Preprocess { std: vec![0.5], ..good() }),
        ("standard deviation", Preprocess { std: vec![1.0, 0.0, 1.0], ..good() }),
        ("standard deviation", Preprocess { std: vec![1.0, f32::NAN, 1.0], ..good() }),
        ("resize", Preprocess { resize: Resize::ShortSide(7), ..good() }),
    ];
    for (field, preprocess) in bad {
        let error = preprocess.check().unwrap_err();
        assert!(matches!(&error, Error::Preprocess { place, .. } if *place == field), "{error}");
    }
}

#[test]
fn images_that_cannot_be_resized_are_rejected() {
    let ribbon = split(&[1, 60_000, 1], &[0; 60_000]);
    let preprocess = parse("short bilinear 224 224 256 3");
    let error = ribbon.pixels(&[0], Some(&preprocess), None).unwrap_err();
    assert!(matches!(error, Error::Preprocess { place: "stored images", .. }), "{error}");
    let two_channels = split(&[2, 2, 2], &[0; 8]);
    let error = two_channels.pixels(&[0], Some(&good()), None).unwrap_err();
    assert!(matches!(error, Error::Preprocess { place: "stored images", .. }), "{error}");
}
