//! Compares BMP, TIFF and GIF files with Pillow; see `tests/reference/make_image_formats.py`.

use planish::data::{
    CropOffset, DataSet, DecodeError, Error, Interpolation, Preprocess, Resize, Split,
};
use safetensors::SafeTensors;
use std::fs;

const REFERENCE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/image_formats.safetensors");

/// An ImageFolder of one class that contains only this file.
fn folder(bytes: &[u8], end: &str) -> (tempfile::TempDir, Split) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("class")).unwrap();
    fs::write(root.path().join(format!("class/image.{end}")), bytes).unwrap();
    let data = DataSet::open(root.path().to_str().unwrap()).unwrap();
    assert!(data.notes.is_empty(), "{:?}", data.notes);
    (root, data.only().unwrap().clone())
}

/// The levels that the model receives, `(H,W,3)`, without a change of size.
fn levels(split: &Split, [height, width]: [usize; 2]) -> Result<Vec<u8>, Error> {
    let preprocess = Preprocess {
        image_size: [height, width],
        channels: 3,
        resize: Resize::Squash,
        crop_offset: CropOffset::HalfToEven,
        interpolation: Interpolation::Bilinear,
        mean: vec![0.0; 3],
        std: vec![1.0; 3],
    };
    let values = split.pixels(&[0], Some(&preprocess), None)?;
    let at = |i: usize| i % 3 * height * width + i / 3;
    Ok((0..values.len()).map(|i| (values[at(i)] * 255.0).round() as u8).collect())
}

#[test]
fn pixels_are_those_of_pillow() {
    let bytes = fs::read(REFERENCE).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (mut same, mut refused, mut wrong) = (0, 0, Vec::new());
    for (file, view) in tensors.tensors() {
        let Some(name) = file.strip_suffix("/file") else { continue };
        let (_root, split) = folder(view.data(), name.split('-').next().unwrap());
        match tensors.tensor(&format!("{name}/rgb")) {
            Ok(pillow) => match levels(&split, [pillow.shape()[0], pillow.shape()[1]]) {
                Ok(found) if found == pillow.data() => same += 1,
                Ok(_) => wrong.push(format!("{name}: other levels")),
                Err(error) => wrong.push(format!("{name}: {error}")),
            },
            Err(_) => {
                let found = levels(&split, [8, 8]);
                let Err(Error::Image { cause, .. }) = found else { panic!("{name}: not refused") };
                println!("{name}: {cause}");
                // The strips of the planes are missing, too.
                let damaged = name.ends_with("cut") || name == "tiff-planes";
                if !damaged && !name.starts_with("gif") {
                    assert!(cause.to_string().contains("save the image"), "{name}: {cause}");
                }
                refused += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!((same, refused) == (38, 17), "{same} read, {refused} refused");
}

/// Every cut either decodes or is an error: none panics.
#[test]
fn truncated_files_are_errors() {
    let bytes = fs::read(REFERENCE).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for name in ["bmp-palette", "tiff-rgb-tiff_lzw", "tiff-cmyk", "gif-interlaced"] {
        let whole = tensors.tensor(&format!("{name}/file")).unwrap().data();
        for length in (0..whole.len() - 1).step_by(13) {
            let (_root, split) = folder(&whole[..length], "bmp");
            match levels(&split, [8, 8]) {
                Err(Error::Image { cause: DecodeError::Empty, .. }) => assert_eq!(length, 0),
                Err(Error::Image { .. }) => {}
                // Only the end mark of a GIF may be missing.
                Ok(_) => {
                    assert!(name.starts_with("gif") && length + 16 > whole.len(), "{name} {length}")
                }
                Err(other) => panic!("{name}: {other}"),
            }
        }
    }
}

#[test]
fn a_huge_size_in_a_header_is_refused() {
    let bytes = fs::read(REFERENCE).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut bmp = tensors.tensor("bmp-rgb/file").unwrap().data().to_vec();
    bmp[18..26].copy_from_slice(&[255, 255, 255, 0, 255, 255, 255, 0]);
    let (_root, split) = folder(&bmp, "bmp");
    let found = levels(&split, [8, 8]).unwrap_err().to_string();
    assert!(found.contains("too large"), "{found}");
}
