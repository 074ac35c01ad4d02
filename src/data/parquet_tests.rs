use super::*;
use crate::data::{CropOffset, DataSet, Interpolation, Preprocess, Resize};
use std::fs;

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/parquet");

/// The colour of one image of 4×5 pixels.
fn colour(split: &Split, index: usize) -> Result<Vec<u64>, Error> {
    let preprocess = Preprocess {
        image_size: [4, 5],
        channels: 3,
        resize: Resize::Squash,
        crop_offset: CropOffset::HalfToEven,
        interpolation: Interpolation::Bilinear,
        mean: vec![0.0; 3],
        std: vec![1.0; 3],
    };
    let values = split.pixels(&[index], Some(&preprocess), None)?;
    Ok((0..3).map(|c| (values[20 * c] * 255.0).round() as u64).collect())
}

/// Compares a split with what the library reads from `files`, one after the other.
fn same(split: &Split, files: &[&str]) {
    let text = fs::read_to_string(format!("{FILES}/expected.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let list = |key: &str| -> Vec<Value> {
        files.iter().flat_map(|file| all[file][key].as_array().unwrap().clone()).collect()
    };
    let (labels, levels) = (list("labels"), list("levels"));
    assert_eq!(labels.len(), split.len());
    // From the last to the first, so that pages are not read in order.
    for i in (0..split.len()).rev() {
        let label = match &labels[i] {
            Value::String(name) => {
                split.class_names().unwrap().iter().position(|own| own == name).unwrap() as u64
            }
            label => label.as_u64().unwrap(),
        };
        assert_eq!(u64::from(split.labels()[i]), label, "{files:?} {i}");
        assert_eq!(serde_json::json!(colour(split, i).unwrap()), levels[i], "{files:?} {i}");
    }
}

#[test]
fn a_folder_of_the_hub_is_read() {
    let train = ["hub/data/train-00000-of-00002.parquet", "hub/data/train-00001-of-00002.parquet"];
    for folder in ["hub", "hub/data"] {
        let data = DataSet::open(&format!("{FILES}/{folder}")).unwrap();
        assert_eq!((data.kind, data.by_name), ("parquet", false));
        same(data.train().unwrap(), &train);
        same(data.test().unwrap(), &["hub/data/test-00000-of-00001.parquet"]);
        assert_eq!(data.train().unwrap().class_names().unwrap(), ["ant", "bee", "cow"]);
        assert!(data.train().unwrap().file(6).unwrap().ends_with("row 1"));
    }
    let range = format!("{FILES}/hub/data/train-{{00000..00001}}-of-00002.parquet");
    same(DataSet::open(&range).unwrap().train().unwrap(), &train);
}

#[test]
fn encodings_and_pages_of_pyarrow_are_read() {
    for file in ["dictionary.parquet", "plain.parquet", "v2.parquet"] {
        let data = DataSet::open(&format!("{FILES}/{file}")).unwrap();
        same(data.only().unwrap(), &[file]);
        assert_eq!(data.only().unwrap().class_names(), None);
    }
    let data = DataSet::open(&format!("{FILES}/names.parquet")).unwrap();
    assert!(data.by_name);
    same(data.only().unwrap(), &["names.parquet"]);
    assert_eq!(data.only().unwrap().class_names().unwrap(), ["cat", "dog", "emu"]);
}

#[test]
fn folders_of_splits_are_read() {
    let root = tempfile::tempdir().unwrap();
    for (split, file) in [("train", "plain.parquet"), ("validation", "v2.parquet")] {
        fs::create_dir(root.path().join(split)).unwrap();
        fs::copy(format!("{FILES}/{file}"), root.path().join(split).join("0000.parquet")).unwrap();
    }
    let data = DataSet::open(root.path().to_str().unwrap()).unwrap();
    same(data.train().unwrap(), &["plain.parquet"]);
    same(data.val().unwrap(), &["v2.parquet"]);
}

/// Every cut and every changed byte is an error or gives other values; none panics.
#[test]
fn damaged_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let spec = path.display().to_string();
    for file in ["plain.parquet", "dictionary.parquet", "v2.parquet"] {
        let whole = fs::read(format!("{FILES}/{file}")).unwrap();
        for length in (0..whole.len()).step_by(97) {
            fs::write(&path, &whole[..length]).unwrap();
            let error = DataSet::open(&spec).unwrap_err().to_string();
            assert!(error.contains("a.parquet") && error.contains("download"), "{error}");
        }
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            fs::write(&path, &bytes).unwrap();
            if let Ok(data) = DataSet::open(&spec) {
                for split in data.splits() {
                    (0..split.len().min(50)).for_each(|i| drop(colour(split, i)));
                }
            }
        }
    }
}

#[test]
fn other_tables_and_missing_files_are_named() {
    let message = |spec: &str| DataSet::open(spec).unwrap_err().to_string();
    let absent = message(&format!("{FILES}/hub/data/train-{{00000..00002}}-of-00002.parquet"));
    assert!(
        absent.contains("train-00002-of-00002.parquet: expected a Parquet file, found nothing"),
        "{absent}"
    );
    let folder = tempfile::tempdir().unwrap();
    fs::copy(format!("{FILES}/plain.parquet"), folder.path().join("train.parquet")).unwrap();
    fs::copy(format!("{FILES}/plain.parquet"), folder.path().join("other.parquet")).unwrap();
    let mixed = message(folder.path().to_str().unwrap());
    assert!(mixed.contains("other.parquet") && mixed.contains("train, val or test"), "{mixed}");
    fs::copy(format!("{FILES}/names.parquet"), folder.path().join("train-2.parquet")).unwrap();
    fs::remove_file(folder.path().join("other.parquet")).unwrap();
    let classes = message(folder.path().to_str().unwrap());
    assert!(classes.contains("other classes") && classes.contains("same features"), "{classes}");
}
