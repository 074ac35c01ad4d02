//! A cache key depends on exactly the inputs that determine the activations.

use super::small::{images, layer, model, weights_of, with_weights};
use super::{chosen, prefix};
use candle_core::{DType, Tensor};
use planish::cache::{CacheMode, CachePolicy};
use planish::data::{Augment, CropOffset, Interpolation, Preprocess, Resize, Split};
use planish::objective::{Activations, Examples, Objective};
use planish::pixels::Pixels;
use planish::train::Prefix;
use std::collections::HashSet;
use std::sync::Arc;

fn key(model: &Objective, images: &dyn Examples, stage: usize) -> String {
    prefix(model, images, stage).keys().unwrap().remove(0)
}

/// The model with one weight of a layer changed by one unit in the last place.
fn nudged(model: &Objective, name: &str) -> Objective {
    let layer = layer(model, name);
    let mut values = weights_of(model, &layer);
    let last = values.len() - 1;
    values[last] = f64::from((values[last] as f32).next_up());
    with_weights(model, &layer, &values)
}

#[test]
fn keys_depend_on_layers_below_the_stage_only() {
    let model = model(DType::F32);
    let all = images(&model, 6);
    let stages: Vec<String> = (0..=6).map(|stage| key(&model, &all, stage)).collect();
    assert_eq!(stages.iter().collect::<HashSet<_>>().len(), 7);
    assert_eq!(stages[3], key(&model.clone(), &all, 3));
    // Each tensor, changed in the last bit of its last value.
    for (i, param) in model.network.params().iter().enumerate() {
        let name = &param.name;
        let changed = nudged(&model, name);
        let first = layer(&model, name).first_stage;
        for (stage, known) in stages.iter().enumerate() {
            assert_eq!(key(&changed, &all, stage) != *known, first < stage, "{i} {name} {stage}");
        }
    }
    let mut config = model.network.config().vit().unwrap().clone();
    config.eps *= 2.0;
    let other = Objective { network: Arc::new(config.network().unwrap()), ..model.clone() };
    assert_ne!(key(&other, &all, 3), stages[3]);
    // The training micro-batch does not affect the prefix.
    assert_eq!(key(&Objective { micro_batch: 1, ..model.clone() }, &all, 3), stages[3]);
    // bf16 products give other activations.
    let bf16 = Objective { precision: planish::engine::Precision::Bf16, ..model.clone() };
    assert_ne!(key(&bf16, &all, 3), stages[3]);
    let half = Prefix::new(&model, vec![&all], 3, true).keys().unwrap().remove(0);
    assert_ne!(half, stages[3]);
}

#[test]
fn keys_depend_on_images_but_not_on_labels() {
    let model = model(DType::F32);
    let all = images(&model, 6);
    let known = key(&model, &all, 3);
    let relabelled = Activations { labels: vec![1; 6].into(), ..all.clone() };
    assert_eq!(key(&model, &relabelled, 3), known);
    let reordered = all.select(&[1, 0, 2, 3, 4, 5]).unwrap();
    let fewer = all.select(&[0, 1, 2, 3, 4]).unwrap();
    let brighter = Activations { values: (&all.values + 1e-6).unwrap(), ..all.clone() };
    let keys = [&reordered, &fewer, &brighter].map(|images| key(&model, images, 3));
    assert!(!keys.contains(&known));
}

fn split(change: Option<usize>, labels: Vec<u32>) -> Split {
    let mut levels: Vec<u8> = (0..6 * 14 * 14).map(|i| (i * 7 % 251) as u8).collect();
    if let Some(at) = change {
        levels[at] ^= 1;
    }
    Split::from_levels("train", levels, [1, 14, 14], labels).unwrap()
}

#[test]
fn keys_depend_on_the_transform() {
    let model = model(DType::F32);
    let plain = Preprocess {
        image_size: [14, 14],
        channels: 1,
        resize: Resize::Squash,
        crop_offset: CropOffset::HalfToEven,
        interpolation: Interpolation::Bilinear,
        mean: vec![0.5],
        std: vec![0.25],
    };
    let pixels_of = |split: &Split, preprocess: &Preprocess| {
        Pixels::new(split, Some(preprocess), &model.network).unwrap()
    };
    let labels = vec![0, 1, 2, 0, 1, 2];
    let images = split(None, labels.clone());
    let base = pixels_of(&images, &plain);
    let flip = Augment { flip: true, ..Augment::default() };
    let mut keys = vec![
        key(&model, &base, 3),
        key(&model, &pixels_of(&split(Some(0), labels.clone()), &plain), 3),
        key(&model, &pixels_of(&split(Some(1175), labels), &plain), 3),
        key(&model, &pixels_of(&images.range(0..5), &plain), 3),
        key(&model, &pixels_of(&images.subset(&[1, 0, 2, 3, 4, 5], "t").unwrap(), &plain), 3),
        key(&model, &pixels_of(&images, &Preprocess { mean: vec![0.500_001], ..plain.clone() }), 3),
        key(&model, &pixels_of(&images, &Preprocess { std: vec![0.26], ..plain.clone() }), 3),
        key(
            &model,
            &pixels_of(&images, &Preprocess { resize: Resize::ShortSide(14), ..plain.clone() }),
            3,
        ),
        key(
            &model,
            &pixels_of(
                &images,
                &Preprocess { interpolation: Interpolation::Bicubic, ..plain.clone() },
            ),
            3,
        ),
        key(&model, &base.view(flip, 0, 0).unwrap(), 3),
        key(&model, &base.view(flip, 0, 1).unwrap(), 3),
        key(&model, &base.view(flip, 1, 0).unwrap(), 3),
        key(&model, &base.view(Augment { shift: 1, ..flip }, 0, 0).unwrap(), 3),
    ];
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count);
    // Labels and the name of the split do not affect the key.
    let other = split(None, vec![2; 6]).subset(&[0, 1, 2, 3, 4, 5], "other").unwrap();
    assert_eq!(key(&model, &pixels_of(&other, &plain), 3), key(&model, &base, 3));
}

#[test]
fn inputs_without_a_digest_are_not_cached() {
    struct Nameless(Activations);
    impl Examples for Nameless {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn stage(&self) -> usize {
            0
        }
        fn inputs(&self, range: std::ops::Range<usize>) -> planish::objective::Result<Tensor> {
            self.0.inputs(range)
        }
        fn labels(&self) -> &[u32] {
            self.0.labels()
        }
    }
    let model = model(DType::F32);
    let images = Nameless(images(&model, 4));
    let folder = tempfile::tempdir().unwrap();
    let frozen = prefix(&model, &images, 3);
    let error = chosen(CachePolicy::Disk, folder.path(), &frozen).unwrap_err();
    assert!(error.to_string().contains("`cache` to ram"), "{error}");
    assert_eq!(chosen(CachePolicy::Auto, folder.path(), &frozen).unwrap().mode, CacheMode::Ram);
}
