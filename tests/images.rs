//! Compares image files with Pillow and torchvision, pixel by pixel; see
//! `tests/reference/make_images.py`.

mod settings;

use planish::data::{DataSet, DecodeError, Error, Preprocess, Resize, Split};
use safetensors::SafeTensors;
use settings::parse;
use std::collections::{BTreeMap, HashMap};
use std::fs;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/images.safetensors");

/// Allowed difference of levels from Pillow: none for JPEG, PNG and WebP, lossy or lossless.
fn worst(name: &str) -> u8 {
    // Tall images in one step: Pillow 13 resizes columns first, see resample.rs.
    if name.starts_with("squash") && name.ends_with("53x37") { 1 } else { 0 }
}

struct Reference {
    bytes: Vec<u8>,
    metadata: HashMap<String, String>,
}

impl Reference {
    fn read() -> Self {
        let bytes = fs::read(REFERENCE).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = metadata.metadata().clone().unwrap();
        Self { bytes, metadata }
    }

    /// Names of all images, and the bytes of their files.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let file = |(name, view): (String, safetensors::tensor::TensorView)| {
            Some((name.strip_suffix("/file")?.to_owned(), view.data().to_vec()))
        };
        tensors.tensors().into_iter().filter_map(file).collect()
    }

    /// Height, width and channels, and levels.
    fn levels(&self, name: &str) -> Option<([usize; 3], Vec<u8>)> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = tensors.tensor(name).ok()?;
        Some((view.shape().try_into().unwrap(), view.data().to_vec()))
    }
}

/// An ImageFolder of one class that contains only this file.
fn folder(bytes: &[u8]) -> (tempfile::TempDir, Split) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("class")).unwrap();
    // The format is detected from the content, not the name.
    fs::write(root.path().join("class/image.JPG"), bytes).unwrap();
    let data = DataSet::open(root.path().to_str().unwrap()).unwrap();
    let split = data.only().unwrap().clone();
    (root, split)
}

/// The levels that the model receives, `(H,W,C)`.
fn decoded_levels(split: &Split, preprocess: &Preprocess) -> Result<Vec<u8>, Error> {
    let values = split.pixels(&[0], Some(preprocess), None)?;
    let [h, w] = preprocess.image_size;
    let at = |i: usize| i % preprocess.channels * h * w + i / preprocess.channels;
    Ok((0..values.len()).map(|i| (values[at(i)] * 255.0).round() as u8).collect())
}

/// A preprocessing that does not change an image of this size.
fn identity([h, w, c]: [usize; 3]) -> Preprocess {
    Preprocess { resize: Resize::Squash, ..parse(&format!("squash bicubic {h} {w} {c}")) }
}

fn largest_difference(actual: &[u8], expected: &[u8]) -> (u8, usize) {
    assert_eq!(actual.len(), expected.len());
    let differences = || actual.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
    (differences().max().unwrap(), differences().filter(|d| *d > 0).count())
}

#[test]
fn decoded_pixels_match_pillow() {
    let reference = Reference::read();
    let (mut cases, mut wrong) = (0, Vec::new());
    for (name, bytes) in reference.files() {
        let (_root, split) = folder(&bytes);
        for (mode, kind) in [("rgb", "RGB"), ("l", "L")] {
            let Some((shape, expected)) = reference.levels(&format!("{name}/{mode}")) else {
                continue;
            };
            let actual = decoded_levels(&split, &identity(shape)).unwrap();
            assert_eq!(split.damaged(), [], "{name}");
            let (most, count) = largest_difference(&actual, &expected);
            println!("{name} {kind}: at most {most}, {count} of {} levels", actual.len());
            if most > worst(&name) {
                wrong.push(format!("{name} as {kind}: differs by {most} levels"));
            }
            cases += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(cases, 2 * 58);
}

#[test]
fn resized_and_cropped_images_match_torchvision() {
    let reference = Reference::read();
    let (mut cases, mut wrong) = (0, Vec::new());
    for (name, bytes) in reference.files() {
        let Some((shape, expected)) = reference.levels(&format!("{name}/out")) else { continue };
        let preprocess = parse(&reference.metadata[&name]);
        assert_eq!(preprocess.image_size, shape[..2]);
        let (_root, split) = folder(&bytes);
        let (most, count) =
            largest_difference(&decoded_levels(&split, &preprocess).unwrap(), &expected);
        println!("{name}: at most {most}, {count} of {} levels", expected.len());
        if most > worst(&name) {
            wrong.push(format!("{name}: differs by {most} levels"));
        }
        cases += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(cases, 36);
}

#[test]
fn truncated_files_are_rejected_as_in_pillow() {
    let reference = Reference::read();
    let mut cases = 0;
    for (name, bytes) in reference.files() {
        let Some(whole) = reference.metadata.get(&format!("{name}/whole")) else { continue };
        let whole: usize = whole.parse().unwrap();
        let (root, split) = folder(&bytes);
        let path = root.path().join("class/image.JPG");
        let preprocess = identity(reference.levels(&format!("{name}/rgb")).unwrap().0);
        // Every length near the end, and a sample of shorter lengths.
        for length in (0..bytes.len()).filter(|n| n % 7 == 0 || n + 32 > bytes.len()) {
            fs::write(&path, &bytes[..length]).unwrap();
            let found = decoded_levels(&split, &preprocess);
            match &found {
                Ok(_) => assert!(length >= whole, "{name}: {length} of {} bytes", bytes.len()),
                Err(Error::Image { path: named, cause }) => {
                    assert_eq!(*named, path);
                    assert_eq!(matches!(cause, DecodeError::Empty), length == 0, "{name}: {cause}");
                }
                Err(other) => panic!("{name}: {other}"),
            }
        }
        cases += 1;
    }
    assert_eq!(cases, 14);
}
