//! Compares damaged JPEG files with Pillow; see `tests/reference/make_damaged.py`.

use planish::data::{
    CropOffset, DataSet, DecodeError, Error, Interpolation, Preprocess, Resize, Split,
};
use safetensors::SafeTensors;
use std::fs;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/damaged.safetensors");

/// An ImageFolder of one class that contains only this file.
fn folder(bytes: &[u8]) -> (tempfile::TempDir, Split) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("class")).unwrap();
    fs::write(root.path().join("class/image.jpg"), bytes).unwrap();
    let data = DataSet::open(root.path().to_str().unwrap()).unwrap();
    (root, data.only().unwrap().clone())
}

/// A preprocessing that does not change an image of this size.
fn identity(height: usize, width: usize) -> Preprocess {
    Preprocess {
        image_size: [height, width],
        channels: 3,
        resize: Resize::Squash,
        crop_offset: CropOffset::HalfToEven,
        interpolation: Interpolation::Bilinear,
        mean: vec![0.0; 3],
        std: vec![1.0; 3],
    }
}

/// The levels that the model receives, `(H,W,3)`.
fn decoded_levels(split: &Split, [height, width]: [usize; 2]) -> Result<Vec<u8>, Error> {
    let values = split.pixels(&[0], Some(&identity(height, width)), None)?;
    let at = |i: usize| i % 3 * height * width + i / 3;
    Ok((0..values.len()).map(|i| (values[at(i)] * 255.0).round() as u8).collect())
}

#[test]
fn damaged_scans_decode_as_in_pillow() {
    let bytes = fs::read(REFERENCE).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (mut same, mut noted, mut refused) = (0, 0, 0);
    for (file, view) in tensors.tensors() {
        let Some(name) = file.strip_suffix("/file") else { continue };
        let (root, split) = folder(view.data());
        let Ok(pillow) = tensors.tensor(&format!("{name}/rgb")) else {
            let found = decoded_levels(&split, [8, 8]);
            assert!(matches!(found, Err(Error::Image { .. })), "{name}: Pillow rejects it");
            refused += 1;
            continue;
        };
        let levels = decoded_levels(&split, [pillow.shape()[0], pillow.shape()[1]]).unwrap();
        let wrong = levels.iter().zip(pillow.data()).filter(|(a, b)| a != b).count();
        assert_eq!(wrong, 0, "{name}: {wrong} of {} levels", levels.len());
        same += 1;
        // Decoder warnings are attributed to the file, and `skip` leaves the file out.
        let damaged = split.damaged();
        let sound = split.sound(None);
        match damaged.first() {
            None => {
                assert_eq!(sound.unwrap().1.len(), 0);
                // libjpeg pads a truncated scan and warns.
                assert!(!name.ends_with("-end"), "{name}");
            }
            Some(known) => {
                assert_eq!(known.path, root.path().join("class/image.jpg"));
                assert!(!known.warning.is_empty());
                let Err(Error::AllBad { first, .. }) = sound else { panic!("{name}: {sound:?}") };
                let cause = DecodeError::Damaged(known.warning.clone()).to_string();
                assert!(first.to_string().contains(&cause), "{first}");
                noted += 1;
            }
        }
    }
    println!("{same} equal to Pillow, {noted} of them with a warning; {refused} rejected");
    assert!(same > 60 && noted > 40 && refused > 0, "{same} {noted} {refused}");
}
