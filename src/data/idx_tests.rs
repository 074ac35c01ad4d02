use std::fs;
use std::io::Write;

use super::super::DataSet;
use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;

fn idx(dimensions: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    dimensions.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
    bytes.extend(values);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn images() -> Vec<u8> {
    idx(&[3, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
}

fn labels() -> Vec<u8> {
    idx(&[3], &[7, 0, 2])
}

/// A folder with these files, and the result of opening it.
fn folder(files: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, Result<DataSet, Error>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let data = DataSet::open(folder.path().to_str().unwrap());
    (folder, data)
}

fn train(images: Vec<u8>, labels: Vec<u8>) -> Result<DataSet, Error> {
    folder(&[("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)]).1
}

#[test]
fn every_file_name_variant_is_read() {
    for dash in ["-", "."] {
        for gz in ["", ".gz"] {
            let pack = |bytes: Vec<u8>| if gz.is_empty() { bytes } else { gzip(&bytes) };
            let (_folder, data) = folder(&[
                (&format!("t10k-images{dash}idx3-ubyte{gz}"), pack(images())),
                (&format!("t10k-labels{dash}idx1-ubyte{gz}"), pack(labels())),
            ]);
            let data = data.unwrap();
            assert!(data.train().is_none() && data.val().is_none());
            let test = data.test().unwrap();
            assert_eq!((test.name(), test.len(), test.prepared()), ("test", 3, false));
            assert_eq!(test.labels(), [7, 0, 2]);
            assert_eq!(test.image_shape(), Some([1, 2, 2]));
        }
    }
}

#[test]
fn a_validation_split_is_read() {
    let (_folder, data) =
        folder(&[("val-images-idx3-ubyte", images()), ("val-labels-idx1-ubyte", labels())]);
    assert_eq!(data.unwrap().val().unwrap().len(), 3);
}

#[test]
fn a_wrong_magic_number_is_reported() {
    let error = train(labels(), images()).unwrap_err();
    assert!(matches!(&error, Error::Format { place, .. } if place.contains("magic")), "{error}");
}

#[test]
fn counts_must_agree() {
    let error = train(images(), idx(&[2], &[1, 2])).unwrap_err();
    assert!(matches!(error, Error::Counts { images: 3, found: 2, .. }), "{error}");
}

#[test]
fn an_oversized_file_is_refused() {
    let mut long = images();
    long.push(0);
    let error = train(long, labels()).unwrap_err();
    assert!(matches!(error, Error::Oversized { expected: 28, .. }), "{error}");
}

#[test]
fn no_images_is_an_error() {
    let error = train(idx(&[0, 2, 2], &[]), idx(&[0], &[])).unwrap_err();
    assert!(matches!(error, Error::Empty { .. }), "{error}");
    let error = train(idx(&[3, 0, 2], &[]), labels()).unwrap_err();
    assert!(matches!(error, Error::Empty { .. }), "{error}");
}

#[test]
fn a_hostile_header_allocates_no_memory() {
    let error = train(idx(&[u32::MAX; 3], &[1]), labels()).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error}");
    // 2^62 bytes: representable, and never allocated.
    let error = train(idx(&[1 << 31, 1 << 30, 2], &[1]), labels()).unwrap_err();
    assert!(matches!(error, Error::Truncated { found: 17, .. }), "{error}");
}

#[test]
fn every_truncation_is_an_error() {
    let whole = images();
    for end in 0..whole.len() {
        let error = train(whole[..end].to_vec(), labels()).unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{end}: {error}");
    }
}

#[test]
fn every_gzip_truncation_is_an_error() {
    let whole = gzip(&images());
    for end in 0..whole.len() {
        let (_folder, data) = folder(&[
            ("train-images-idx3-ubyte.gz", whole[..end].to_vec()),
            ("train-labels-idx1-ubyte.gz", gzip(&labels())),
        ]);
        let error = data.unwrap_err();
        assert!(matches!(error, Error::Gzip { .. } | Error::Truncated { .. }), "{end}: {error}");
    }
}

#[test]
fn a_damaged_gzip_stream_is_an_error_or_the_same_images() {
    let whole = gzip(&images());
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        let (_folder, data) = folder(&[
            ("train-images-idx3-ubyte.gz", damaged),
            ("train-labels-idx1-ubyte", labels()),
        ]);
        // Some header bytes (time, system) have no effect. All other damage is detected.
        if let Ok(data) = data {
            assert!((4..10).contains(&at), "damage to byte {at} was not detected");
            assert_eq!(data.train().unwrap().image_shape(), Some([1, 2, 2]));
        }
    }
}

#[test]
fn a_plain_file_named_gz_is_a_gzip_error() {
    let (_folder, data) = folder(&[
        ("train-images-idx3-ubyte.gz", images()),
        ("train-labels-idx1-ubyte.gz", labels()),
    ]);
    assert!(matches!(data.unwrap_err(), Error::Gzip { .. }));
}

#[test]
fn an_incomplete_pair_and_an_empty_folder_are_errors() {
    let (_folder, data) = folder(&[("train-images-idx3-ubyte", images())]);
    let error = data.unwrap_err();
    let path = Path::new("train-labels-idx1-ubyte");
    assert!(matches!(&error, Error::Missing { path: p, .. } if p.ends_with(path)), "{error}");
    let (_folder, data) = folder(&[("train-labels-idx1-ubyte", labels())]);
    assert!(matches!(data.unwrap_err(), Error::Missing { .. }));
    let (_folder, data) = folder(&[]);
    assert!(matches!(data.unwrap_err(), Error::Folders { .. }));
}

#[test]
fn errors_name_a_missing_folder_or_a_file() {
    let (folder, _) = folder(&[("file", vec![])]);
    for name in ["absent", "file"] {
        let path = folder.path().join(name);
        let error = DataSet::open(path.to_str().unwrap()).unwrap_err();
        assert!(matches!(&error, Error::Missing { path: p, .. } if *p == path), "{error}");
    }
}

#[test]
fn class_names_come_from_their_file() {
    let with = |names: &str| {
        folder(&[
            ("train-images-idx3-ubyte", images()),
            ("train-labels-idx1-ubyte", labels()),
            ("classes.txt", names.as_bytes().to_vec()),
        ])
        .1
    };
    // Labels go up to 7; a ninth class needs no image.
    let named = with("a\nb\n c \r\nd\ne\nf\ng\nh\ni\n\n").unwrap();
    let split = named.train().unwrap();
    let names = split.class_names().unwrap();
    assert_eq!((names.len(), &*names[2], &*names[8]), (9, "c", "i"));
    assert_eq!(split.labels(), [7, 0, 2]);
    // Class names do not affect the digest. Without the file there are no names.
    let bare = train(images(), labels()).unwrap();
    assert_eq!(bare.train().unwrap().class_names(), None);
    assert_eq!(bare.train().unwrap().digest(), split.digest());
    for (names, line, found) in [
        ("a\nb\nc\n", "line 4", "a label 7"),
        ("a\nb\n\nd\ne\nf\ng\nh\n", "line 3", "\"\""),
        ("a\nb\nc\nd\na\nf\ng\nh\n", "line 5", "\"a\""),
    ] {
        let message = with(names).unwrap_err().to_string();
        let parts = ["classes.txt", line, found, "one name per line"];
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}
