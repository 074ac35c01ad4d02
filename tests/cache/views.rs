//! Augmented views: each has its own file, and epochs use them in turn.

use super::small::model;
use super::{names, open, rows};
use candle_core::DType;
use planish::cache::CachePolicy;
use planish::data::order::Batches;
use planish::data::{Augment, CropOffset, Interpolation, Preprocess, Resize, Split};
use planish::objective::{Examples, Objective};
use planish::pixels::Pixels;
use planish::train::{Prefix, Source};

const N: usize = 12;

fn pixels(model: &Objective) -> Pixels {
    let levels = (0..N * 196).map(|i| (i * 31 % 253) as u8).collect();
    let split = Split::from_levels("train", levels, [1, 14, 14], vec![0; N]).unwrap();
    let preprocess = Preprocess {
        image_size: [14, 14],
        channels: 1,
        resize: Resize::Squash,
        crop_offset: CropOffset::HalfToEven,
        interpolation: Interpolation::Bilinear,
        mean: vec![0.5],
        std: vec![0.25],
    };
    Pixels::new(&split, Some(&preprocess), &model.network).unwrap()
}

fn views(model: &Objective, count: u64) -> Vec<Pixels> {
    let augment = Augment { flip: true, shift: 3, crop: Some(0.5) };
    (0..count).map(|number| pixels(model).view(augment, 4, number).unwrap()).collect()
}

fn prefix<'a>(model: &Objective, views: &'a [Pixels]) -> Prefix<'a> {
    let views = views.iter().map(|view| view as &dyn Examples).collect();
    Prefix::new(model, views, 2, false)
}

#[test]
fn more_views_reuse_existing_files() {
    let model = model(DType::F32);
    let folder = tempfile::tempdir().unwrap();
    let five = views(&model, 5);
    let (two, events) = open(prefix(&model, &five[..2]), CachePolicy::Disk, folder.path());
    assert_eq!((events.computed, events.found), (2 * N, 0));
    let first = names(folder.path());
    assert_eq!(first.len(), 2);
    let (all, events) = open(prefix(&model, &five), CachePolicy::Disk, folder.path());
    assert_eq!((events.computed, events.found), (3 * N, 2));
    assert!(first.iter().all(|name| names(folder.path()).contains(name)));
    assert_eq!(names(folder.path()).len(), 5);
    assert_eq!(rows(&two, 2), rows(&all, 5)[..rows(&two, 2).len()]);
    let (uncached, _) = open(prefix(&model, &five), CachePolicy::Off, folder.path());
    let (memory, _) = open(prefix(&model, &five), CachePolicy::Ram, folder.path());
    let expected = rows(&all, 5);
    assert!(rows(&uncached, 5) == expected && rows(&memory, 5) == expected);
    // View i is the augmentation of epoch i, and views differ.
    let each: Vec<&[u32]> = expected.chunks(expected.len() / 5).collect();
    assert!((1..5).all(|view| each[view] != each[0]));
}

/// The view of each image in a batch, identified by its rows.
fn views_of_next_batch(source: &Source, order: &mut Batches) -> Vec<(usize, usize)> {
    let batch = source.next(order).unwrap().values.flatten_from(1).unwrap();
    let batch: Vec<Vec<f32>> = batch.to_vec2().unwrap();
    let picks: Vec<(usize, usize)> = (0..3).flat_map(|v| (0..N).map(move |i| (v, i))).collect();
    let all = source.batch(&picks).unwrap().values.flatten_from(1).unwrap();
    let all: Vec<Vec<f32>> = all.to_vec2().unwrap();
    let find = |row: &Vec<f32>| picks[all.iter().position(|other| other == row).unwrap()];
    batch.iter().map(find).collect()
}

#[test]
fn each_image_uses_every_view_once_in_as_many_epochs() {
    let model = model(DType::F32);
    let folder = tempfile::tempdir().unwrap();
    let three = views(&model, 3);
    let mut seen = Vec::new();
    for policy in [CachePolicy::Ram, CachePolicy::Off, CachePolicy::Disk] {
        let (source, _) = open(prefix(&model, &three), policy, folder.path());
        let orders = ["B", "B'"].map(|name| {
            let mut order = Batches::new(N, 4, 9, name).unwrap();
            (0..18).map(|_| views_of_next_batch(&source, &mut order)).collect::<Vec<_>>().concat()
        });
        seen.push(orders);
    }
    assert!(seen[0] == seen[1] && seen[1] == seen[2]);
    let [b, other] = &seen[0];
    for epochs in [&b[..3 * N], &b[N..4 * N], &b[3 * N..], &other[..3 * N]] {
        let mut once = epochs.to_vec();
        once.sort_unstable();
        assert_eq!(once, (0..3).flat_map(|v| (0..N).map(move |i| (v, i))).collect::<Vec<_>>());
    }
    let starts = |order: &[(usize, usize)]| {
        let mut first = order[..N].to_vec();
        first.sort_unstable_by_key(|pick| pick.1);
        first
    };
    // Images start at different views, and differently in B and B′.
    assert!((0..3).all(|view| starts(b).iter().any(|pick| pick.0 == view)));
    assert_ne!(starts(b), starts(other));
}
