use super::*;
use crate::data::{CropOffset, DataSet, Interpolation, Preprocess, Resize};
use std::fs;

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/cifar-python");

/// The levels of one image, `(C,H,W)`.
fn levels(split: &Split, index: usize) -> Vec<u8> {
    let preprocess = Preprocess {
        image_size: [32, 32],
        channels: 3,
        resize: Resize::Squash,
        crop_offset: CropOffset::HalfToEven,
        interpolation: Interpolation::Bilinear,
        mean: vec![0.0; 3],
        std: vec![1.0; 3],
    };
    let values = split.pixels(&[index], Some(&preprocess), None).unwrap();
    values.iter().map(|v| (v * 255.0).round() as u8).collect()
}

/// As in `tests/reference/make_cifar_python.py`.
fn expected(image: usize, file: usize) -> Vec<u8> {
    (0..3072).map(|column| ((7 * image + 3 * column + 11 * file) % 251) as u8).collect()
}

#[test]
fn cifar_10_is_read_from_pickles_of_python_2_and_3() {
    for version in ["python2", "protocol4", "protocol5"] {
        let data = DataSet::open(&format!("{FILES}/{version}")).unwrap();
        assert_eq!(data.kind, "cifar");
        let (train, test) = (data.train().unwrap(), data.test().unwrap());
        assert_eq!((train.labels(), test.labels()), (&[1, 2, 3, 4, 5][..], &[9, 0][..]));
        assert_eq!(train.class_names().unwrap()[9], "name 9");
        for file in 1..=5 {
            assert_eq!(levels(train, file - 1), expected(0, file), "{version}");
        }
        assert_eq!(
            [levels(test, 0), levels(test, 1)],
            [expected(0, 6), expected(1, 6)],
            "{version}"
        );
    }
}

#[test]
fn cifar_100_has_fine_labels() {
    let data = DataSet::open(&format!("{FILES}/fine")).unwrap();
    let train = data.train().unwrap();
    assert_eq!((train.labels(), data.test().unwrap().labels()), (&[99, 4, 42][..], &[7][..]));
    assert_eq!(train.class_names().unwrap()[42], "fine 42");
    assert_eq!(levels(train, 2), expected(2, 1));
}

/// A folder whose file `test` is this pickle.
fn message(pickle: &[u8]) -> String {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("test"), pickle).unwrap();
    DataSet::open(root.path().to_str().unwrap()).unwrap_err().to_string()
}

#[test]
fn malformed_files_are_errors() {
    let whole = fs::read(format!("{FILES}/fine/test")).unwrap();
    for length in (0..whole.len()).step_by(101) {
        let error = message(&whole[..length]);
        assert!(error.contains("cut short") && error.contains("unpack"), "{length}: {error}");
    }
    for (pickle, part) in [
        (&b"cos\nsystem\n(U\x04truetR."[..], "the name os.system"),
        (b"\x80\x02c__builtin__\neval\n.", "the name __builtin__.eval"),
        (b"\x80\x02}.", "a dict with \"fine_labels\""),
        (b"\x80\x02].", "a dict with \"fine_labels\""),
        (b"\x80\x02}(U\x0bfine_labelsK\x01u.", "a list"),
        (b"\x80\x02}(U\x0bfine_labels](K\x64eu.", "a number below 100"),
        (b"\x80\x02}(U\x0bfine_labels](K\x01eU\x04data](K\x01eu.", "an array of bytes"),
        (b"not a pickle", "instructions of pickle"),
    ] {
        let error = message(pickle);
        assert!(error.contains(part) && error.contains("unpack"), "{part}: {error}");
    }
    // A text that states four gigabytes.
    let error = message(b"\x80\x02}(T\xff\xff\xff\xff");
    assert!(error.contains("cut short"), "{error}");
    // Other shapes and types, and fewer labels than images.
    let replace = |from: &[u8], to: &[u8]| {
        let at = whole.windows(from.len()).position(|part| part == from).unwrap();
        [&whole[..at], to, &whole[at + from.len()..]].concat()
    };
    for (from, to, part) in [
        (&b"M\x00\x0c"[..], &b"M\x01\x0c"[..], "[1, 3073]"),
        (b"U\x02u1", b"U\x02i2", "type \"i2\""),
        (b"](K\x07e", b"](K\x07K\x07e", "1 labels, one per image, found 2"),
        (b"](K\x07e", b"](K\xeee", "found 238"),
    ] {
        let error = message(&replace(from, to));
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_missing_training_file_is_named() {
    let root = tempfile::tempdir().unwrap();
    fs::copy(
        format!("{FILES}/python2/cifar-10-batches-py/data_batch_2"),
        root.path().join("data_batch_2"),
    )
    .unwrap();
    let error = DataSet::open(root.path().to_str().unwrap()).unwrap_err().to_string();
    assert!(
        error.contains("data_batch_1") && error.contains("unpack the whole archive"),
        "{error}"
    );
}
