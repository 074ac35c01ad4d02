use std::collections::HashMap;

use safetensors::tensor::{TensorView, serialize};

use super::super::DataSet;
use super::*;

const PIXELS: [f32; 12] = [0.5, -1.0, 2.0, 3.5, 0.0, 1.0, -2.5, 4.0, 0.25, -0.125, 7.0, 9.0];

fn bytes<T, const N: usize>(values: &[T], le: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(le).collect()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    bytes(values, |v| v.to_le_bytes())
}

fn i64s(values: &[i64]) -> Vec<u8> {
    bytes(values, |v| v.to_le_bytes())
}

type Entry<'a> = (&'a str, Dtype, &'a [usize], Vec<u8>);

fn file(entries: &[Entry], metadata: Option<HashMap<String, String>>) -> Vec<u8> {
    let views = entries.iter().map(|(name, dtype, shape, data)| {
        (*name, TensorView::new(*dtype, shape.to_vec(), data).unwrap())
    });
    serialize(views, metadata).unwrap()
}

fn open_bytes(bytes: &[u8]) -> Result<DataSet, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    fs::write(&path, bytes).unwrap();
    DataSet::open(&format!("tensors:{}", path.display()))
}

fn pixels<'a>(shape: &'a [usize], values: &[f32]) -> Entry<'a> {
    ("pixel_values", Dtype::F32, shape, f32s(values))
}

fn labels<'a>(shape: &'a [usize], values: &[i64]) -> Entry<'a> {
    ("labels", Dtype::I64, shape, i64s(values))
}

fn good() -> Vec<u8> {
    file(&[pixels(&[3, 2, 1, 2], &PIXELS), labels(&[3], &[4, 0, 1])], None)
}

fn format_at(result: Result<DataSet, Error>, at: &str) {
    let error = result.unwrap_err();
    assert!(matches!(&error, Error::Format { place, .. } if place == at), "{error}");
}

#[test]
fn a_file_is_read_unchanged() {
    let data = open_bytes(&good()).unwrap();
    let all = data.only().unwrap();
    assert_eq!((data.kind, all.name(), all.prepared()), ("tensors", "all", true));
    assert_eq!(all.labels(), [4, 0, 1]);
    assert_eq!(all.image_shape(), Some([2, 1, 2]));
    assert_eq!(all.pixels(&[0, 1, 2], None, None).unwrap(), PIXELS);
    assert_eq!(all.pixels(&[2, 0], None, None).unwrap(), [&PIXELS[8..], &PIXELS[..4]].concat());
}

#[test]
fn splits_are_read_from_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let spec = format!("tensors:{}", folder.path().display());
    assert!(matches!(DataSet::open(&spec).unwrap_err(), Error::Missing { .. }));
    fs::write(folder.path().join("train.safetensors"), good()).unwrap();
    fs::write(folder.path().join("validation.safetensors"), good()).unwrap();
    let data = DataSet::open(&spec).unwrap();
    assert_eq!(data.train().unwrap().len(), 3);
    assert_eq!(data.val().unwrap().name(), "val");
    assert!(data.test().is_none() && data.only().is_none());
}

#[test]
fn class_names_come_from_the_metadata() {
    let with = |names: &str| {
        let metadata = HashMap::from([("class_names".to_owned(), names.to_owned())]);
        let entries = [pixels(&[1, 1, 1, 1], &[0.5]), labels(&[1], &[0])];
        open_bytes(&file(&entries, Some(metadata)))
    };
    let data = with(r#"["cat", "dog"]"#).unwrap();
    assert_eq!(data.only().unwrap().class_names().unwrap(), ["cat", "dog"]);
    format_at(with("cat"), "metadata, class_names");
    // Every label has a name.
    format_at(with("[]"), "metadata, class_names");
}

#[test]
fn missing_tensors_are_reported() {
    format_at(open_bytes(&file(&[labels(&[1], &[0])], None)), "pixel_values");
    format_at(open_bytes(&file(&[pixels(&[1, 1, 1, 1], &[0.0])], None)), "labels");
}

#[test]
fn wrong_types_and_shapes_are_reported() {
    let good_labels = || labels(&[3], &[0, 1, 2]);
    let good_pixels = || pixels(&[3, 2, 1, 2], &PIXELS);
    let half: Entry = ("pixel_values", Dtype::F16, &[3, 2, 1, 2], vec![0; 24]);
    format_at(open_bytes(&file(&[half, good_labels()], None)), "pixel_values");
    let flat = pixels(&[3, 4], &PIXELS);
    format_at(open_bytes(&file(&[flat, good_labels()], None)), "pixel_values");
    let narrow: Entry = ("labels", Dtype::I32, &[3], vec![0; 12]);
    format_at(open_bytes(&file(&[good_pixels(), narrow], None)), "labels");
    let column = labels(&[3, 1], &[0, 1, 2]);
    format_at(open_bytes(&file(&[good_pixels(), column], None)), "labels");
}

#[test]
fn counts_must_agree() {
    let entries = [pixels(&[3, 2, 1, 2], &PIXELS), labels(&[2], &[0, 1])];
    let error = open_bytes(&file(&entries, None)).unwrap_err();
    assert!(matches!(error, Error::Counts { images: 3, found: 2, .. }), "{error}");
}

#[test]
fn no_images_is_an_error() {
    let entries = [pixels(&[0, 2, 1, 2], &[]), labels(&[0], &[])];
    let error = open_bytes(&file(&entries, None)).unwrap_err();
    assert!(matches!(error, Error::Empty { .. }), "{error}");
}

#[test]
fn labels_out_of_range_are_reported() {
    for bad in [-1, 1 << 32, i64::MIN] {
        let entries = [pixels(&[3, 2, 1, 2], &PIXELS), labels(&[3], &[0, 5, bad])];
        format_at(open_bytes(&file(&entries, None)), "labels, image 2");
    }
}

#[test]
fn non_finite_values_are_reported() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = PIXELS;
        values[5] = bad;
        let entries = [pixels(&[3, 2, 1, 2], &values), labels(&[3], &[0, 1, 2])];
        let error = open_bytes(&file(&entries, None)).unwrap_err();
        assert!(matches!(error, Error::NotFinite { index: 1, .. }), "{error}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let whole = good();
    for end in 0..whole.len() {
        let error = open_bytes(&whole[..end]).unwrap_err();
        assert!(matches!(error, Error::SafeTensors { .. }), "{end}: {error}");
    }
    let error = open_bytes(&[&whole[..], &[0]].concat()).unwrap_err();
    assert!(matches!(error, Error::SafeTensors { .. }), "{error}");
}

#[test]
fn a_hostile_header_allocates_no_memory() {
    let json = r#"{"pixel_values":{"dtype":"F32","shape":[4294967296,4294967296,4,4],
        "data_offsets":[0,4]}}"#;
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.as_bytes());
    bytes.extend([0; 4]);
    assert!(matches!(open_bytes(&bytes).unwrap_err(), Error::SafeTensors { .. }));
    let huge = u64::MAX.to_le_bytes();
    assert!(matches!(open_bytes(&huge).unwrap_err(), Error::SafeTensors { .. }));
}

#[test]
fn damaged_bytes_never_panic() {
    let whole = good();
    for at in 0..whole.len() {
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            if let Ok(data) = open_bytes(&damaged) {
                let all = data.only().unwrap();
                let indices: Vec<usize> = (0..all.len()).collect();
                let pixels = all.pixels(&indices, None, None).unwrap();
                assert!(pixels.iter().all(|v| v.is_finite()), "byte {at}");
            }
        }
    }
}

#[test]
fn a_missing_file_is_reported() {
    let error = DataSet::open("tensors:/absent/data.safetensors").unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}
