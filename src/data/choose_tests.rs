use std::collections::BTreeSet;

use super::*;

/// A data set whose split number k has `n` one-pixel images, of levels 50k, 50k + 1, …, and
/// labels 0, 1, 0, 1, …
fn data(splits: &[(&str, usize)]) -> DataSet {
    let split = |(k, &(name, n)): (usize, &(&str, usize))| {
        let levels = (0..n).map(|i| (50 * k + i) as u8).collect();
        let labels = (0..n as u32).map(|i| i % 2).collect();
        Split::from_levels(name, levels, [1, 1, 1], labels).unwrap()
    };
    let splits = splits.iter().enumerate().map(split).collect();
    DataSet { path: "memory".into(), kind: "idx", by_name: false, notes: Vec::new(), splits }
}

fn request(data: &DataSet) -> RoleRequest<'_> {
    RoleRequest {
        data,
        train_data: None,
        val_data: None,
        test_data: None,
        val_from_train: None,
        provenance: None,
        sample: None,
        seed: 3,
    }
}

/// The levels of a split's images.
fn levels(split: &Option<Split>) -> BTreeSet<i64> {
    let preprocess = crate::data::Preprocess {
        image_size: [1, 1],
        channels: 1,
        resize: crate::data::Resize::Squash,
        crop_offset: crate::data::CropOffset::HalfToEven,
        interpolation: crate::data::Interpolation::Bilinear,
        mean: vec![0.0],
        std: vec![1.0],
    };
    let split = split.as_ref().unwrap();
    let all: Vec<usize> = (0..split.len()).collect();
    let pixels = split.pixels(&all, Some(&preprocess), None).unwrap();
    pixels.iter().map(|v| (v * 255.0).round() as i64).collect()
}

#[test]
fn val_data_takes_precedence() {
    let base = data(&[("train", 10), ("val", 4), ("test", 6)]);
    let other = data(&[("test", 8)]);
    let roles = choose(&RoleRequest { val_data: Some(&other), ..request(&base) }).unwrap();
    assert_eq!(roles.val.unwrap().len(), 8);
    assert_eq!(roles.val_origin.to_string(), "`val_data` memory");
    assert_eq!((roles.train.unwrap().len(), roles.test.unwrap().len()), (10, 6));
}

#[test]
fn a_val_split_takes_precedence_over_provenance() {
    let base = data(&[("train", 10), ("val", 4), ("test", 6)]);
    let digest = base.train().unwrap().digest().to_owned();
    let provenance = SplitProvenance { seed: 0, fraction: 0.2, data_digest: digest };
    let roles = choose(&RoleRequest { provenance: Some(&provenance), ..request(&base) }).unwrap();
    assert_eq!(levels(&roles.val), (50..54).collect());
    assert_eq!((roles.train.unwrap().len(), roles.test.unwrap().len()), (10, 6));
}

#[test]
fn provenance_restores_the_held_out_images() {
    let base = data(&[("train", 20), ("test", 6)]);
    let query = RoleRequest { val_from_train: Some(0.2), seed: 8, ..request(&base) };
    let finetune = choose(&query).unwrap();
    assert_eq!(finetune.val_origin.to_string(), "held out of train, seed 8, 20%");
    let digest = base.train().unwrap().digest().to_owned();
    let provenance = SplitProvenance { seed: 8, fraction: 0.2, data_digest: digest };
    let roles = choose(&RoleRequest { provenance: Some(&provenance), ..request(&base) }).unwrap();
    assert_eq!(roles.val_origin.to_string(), "held out by finetune, seed 8, 20%");
    assert_eq!(levels(&roles.val), levels(&finetune.val));
    assert_eq!(roles.val.as_ref().unwrap().len(), 4);
    let both: BTreeSet<_> = levels(&roles.val).union(&levels(&roles.train)).copied().collect();
    assert_eq!(both, (0..20).collect());
    assert!(levels(&roles.val).is_disjoint(&levels(&roles.train)));
    assert_eq!(roles.test.unwrap().len(), 6);
}

#[test]
fn provenance_of_another_training_split_is_ignored() {
    let base = data(&[("train", 20), ("test", 6)]);
    let provenance = SplitProvenance { seed: 8, fraction: 0.2, data_digest: "0".into() };
    let roles = choose(&RoleRequest { provenance: Some(&provenance), ..request(&base) }).unwrap();
    assert_eq!(roles.val_origin.to_string(), "half of test, seed 3");
    assert_eq!(roles.train.unwrap().len(), 20);
    assert!(roles.notes[0].contains("different digest"), "{:?}", roles.notes);
}

#[test]
fn half_of_test_is_the_last_fallback_with_a_note() {
    let base = data(&[("train", 10), ("test", 9)]);
    let roles = choose(&request(&base)).unwrap();
    assert_eq!(roles.val_origin.to_string(), "half of test, seed 3");
    assert!(roles.notes[0].contains("half of the test split"));
    let both: BTreeSet<_> = levels(&roles.val).union(&levels(&roles.test)).copied().collect();
    assert_eq!(both, (50..59).collect());
    assert_eq!(roles.val.unwrap().len() + roles.test.unwrap().len(), 9);
}

#[test]
fn a_single_split_is_val_unless_val_is_given() {
    let base = data(&[("all", 10)]);
    let roles = choose(&request(&base)).unwrap();
    assert_eq!(roles.val_origin.to_string(), "the data given");
    assert!(roles.train.is_none() && roles.test.is_none());
    assert_eq!(roles.val.unwrap().len(), 10);
    let other = data(&[("all", 4)]);
    let roles = choose(&RoleRequest { val_data: Some(&other), ..request(&base) }).unwrap();
    assert_eq!((roles.train.unwrap().len(), roles.val.unwrap().len()), (10, 4));
    let roles = choose(&RoleRequest { val_from_train: Some(0.3), ..request(&base) }).unwrap();
    assert_eq!((roles.train.unwrap().len(), roles.val.unwrap().len()), (7, 3));
}

#[test]
fn train_data_and_test_data_replace_the_splits() {
    let base = data(&[("train", 10), ("test", 6)]);
    let (train, test) = (data(&[("train", 12), ("test", 3)]), data(&[("all", 20)]));
    let query = RoleRequest { train_data: Some(&train), test_data: Some(&test), ..request(&base) };
    let roles = choose(&query).unwrap();
    assert_eq!(roles.train.unwrap().len(), 12);
    assert_eq!((roles.val.unwrap().len(), roles.test.unwrap().len()), (10, 10));
}

#[test]
fn an_ambiguous_data_set_is_refused() {
    let base = data(&[("train", 10), ("test", 6)]);
    let error = choose(&RoleRequest { val_data: Some(&base), ..request(&base) }).unwrap_err();
    assert!(matches!(error, Error::Role { role: "validation", .. }), "{error}");
}

#[test]
fn contradictory_or_invalid_fractions_are_refused() {
    let base = data(&[("train", 10), ("test", 6)]);
    let other = data(&[("all", 4)]);
    let both = RoleRequest { val_data: Some(&other), val_from_train: Some(0.1), ..request(&base) };
    assert!(matches!(choose(&both).unwrap_err(), Error::Setting { .. }));
    for fraction in [0.0, 1.0, -0.5, f64::NAN] {
        let query = RoleRequest { val_from_train: Some(fraction), ..request(&base) };
        assert!(matches!(choose(&query).unwrap_err(), Error::Setting { .. }), "{fraction}");
    }
    let query = RoleRequest { val_from_train: Some(0.001), ..request(&base) };
    assert!(matches!(choose(&query).unwrap_err(), Error::Empty { .. }));
}

#[test]
fn a_single_test_image_is_not_split() {
    let single = data(&[("test", 1)]);
    let roles = choose(&request(&single)).unwrap();
    assert_eq!((roles.test.unwrap().len(), roles.val.is_none()), (1, true));
    assert!(roles.notes[0].contains("cannot be split in half"), "{:?}", roles.notes);
}

#[test]
fn a_missing_role_is_none_and_its_error_names_the_option() {
    let base = data(&[("train", 10)]);
    let roles = choose(&request(&base)).unwrap();
    assert!(roles.val.is_none() && roles.test.is_none());
    assert_eq!(roles.val_origin.to_string(), "none");
    assert_eq!(require(Role::Train, roles.train.as_ref()).unwrap().len(), 10);
    for (role, flag) in [(Role::Val, "`val_data`"), (Role::Test, "`test_data`")] {
        let error = require(role, None).unwrap_err();
        assert!(error.to_string().contains(flag), "{error}");
    }
    assert!(require(Role::Train, None).unwrap_err().to_string().contains("`train_data`"));
}
