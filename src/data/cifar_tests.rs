use super::*;
use crate::data::{CropOffset, DataSet, Interpolation, Preprocess, Resize};

/// A record: label bytes, then planes whose levels are `first`, `first` + 1, … modulo 251.
fn record(labels: &[u8], first: usize) -> Vec<u8> {
    labels.iter().copied().chain((0..3 * PLANE).map(|i| ((first + i) % 251) as u8)).collect()
}

fn folder(files: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, Result<DataSet, Error>) {
    let root = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let data = DataSet::open(root.path().to_str().unwrap());
    (root, data)
}

fn names(n: usize) -> Vec<u8> {
    (0..n).map(|i| format!("class {i}\n")).collect::<String>().into_bytes()
}

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

#[test]
fn cifar_10_is_read_with_and_without_its_folder() {
    for folder_name in ["", "cifar-10-batches-bin/"] {
        let mut files: Vec<(String, Vec<u8>)> = (1..=5)
            .map(|k| (format!("data_batch_{k}.bin"), record(&[k as u8], k)))
            .chain([
                ("test_batch.bin".into(), [record(&[9], 7), record(&[0], 8)].concat()),
                ("batches.meta.txt".into(), [names(10), b"\n".to_vec()].concat()),
            ])
            .collect();
        files.iter_mut().for_each(|(name, _)| name.insert_str(0, folder_name));
        let files: Vec<(&str, Vec<u8>)> =
            files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        let (_root, data) = folder(&files);
        let data = data.unwrap();
        assert_eq!(data.kind, "cifar");
        let (train, test) = (data.train().unwrap(), data.test().unwrap());
        assert_eq!((train.labels(), test.labels()), (&[1, 2, 3, 4, 5][..], &[9, 0][..]));
        assert_eq!(train.class_names().unwrap()[9], "class 9");
        // The file stores planes in the order of the model.
        assert_eq!(levels(train, 3), record(&[], 4));
        assert_eq!(levels(test, 1), record(&[], 8));
    }
}

#[test]
fn cifar_100_uses_the_fine_label() {
    for root in ["", "cifar-100-binary/"] {
        let at = |name: &str| format!("{root}{name}");
        let (_root, data) = folder(&[
            (&at("train.bin"), record(&[19, 99], 1)),
            (&at("test.bin"), record(&[3, 4], 2)),
            (&at("fine_label_names.txt"), names(100)),
        ]);
        let data = data.unwrap();
        assert_eq!(data.train().unwrap().labels(), [99]);
        assert_eq!(data.test().unwrap().labels(), [4]);
        assert_eq!(data.test().unwrap().class_names().unwrap().len(), 100);
        assert_eq!(levels(data.test().unwrap(), 0), record(&[], 2));
    }
}

#[test]
fn an_incomplete_training_set_is_refused() {
    let (_root, data) = folder(&[("data_batch_1.bin", record(&[0], 0))]);
    let error = data.unwrap_err();
    assert!(matches!(&error, Error::Missing { path, .. } if path.ends_with("data_batch_2.bin")));
    let (_root, data) = folder(&[("test_batch.bin", record(&[0], 0))]);
    assert!(data.unwrap().train().is_none());
}

#[test]
fn damaged_files_are_refused() {
    let mut short = record(&[0, 1], 0);
    short.pop();
    let (_root, data) = folder(&[("test.bin", short)]);
    assert!(matches!(data.unwrap_err(), Error::Truncated { expected: 3074, found: 3073, .. }));
    let (_root, data) = folder(&[("test.bin", Vec::new())]);
    assert!(matches!(data.unwrap_err(), Error::Empty { .. }));
    let (_root, data) = folder(&[("test.bin", record(&[0, 100], 0))]);
    assert!(matches!(data.unwrap_err(), Error::Format { place, .. } if place.contains("image 0")));
    let (_root, data) =
        folder(&[("test.bin", record(&[0, 1], 0)), ("fine_label_names.txt", names(99))]);
    assert!(matches!(data.unwrap_err(), Error::Format { found, .. } if found == "99"));
}
