//! Caching in memory, in files or not at all gives bit-identical weights.

use super::small::{images, layer, model};
use super::{chosen, names, open, prefix, rows};
use candle_core::{DType, Device, Tensor};
use planish::cache::{ActivationDtype, CacheMode, CachePolicy, Error};
use planish::engine::Engine;
use planish::models::{Weights, arch};
use planish::objective::{Activations, Examples, Objective};
use planish::random::{stream, unit};
use planish::train::perturbation::{Perturber, StepRule};
use planish::train::pol::Pol;
use planish::train::run::{TrainSettings, train};
use planish::train::{Prefix, Source};
use std::sync::Arc;

const POLICIES: [CachePolicy; 4] =
    [CachePolicy::Ram, CachePolicy::Disk, CachePolicy::Off, CachePolicy::Disk];

/// Weights after two epochs of PoL, as bits.
fn tuned(model: &Objective, source: &Source, perturb: &str, update: &str) -> Vec<u32> {
    let [p, u] = [perturb, update].map(|name| layer(model, name));
    let perturber = Perturber::new(p, 2.0, StepRule::Newton, source.len(), 12, 5).unwrap();
    let mut method = Pol { update: u, perturber };
    let settings = TrainSettings { epochs: 2, batch_size: 7, lr: 0.1, ..TrainSettings::default() };
    let outcome = train(model, &mut method, source, None, &settings, &mut |_| ());
    bits(&outcome.unwrap().weights)
}

fn bits(weights: &Weights) -> Vec<u32> {
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    weights.iter().flat_map(|(_, t)| flat(t)).map(f32::to_bits).collect()
}

#[test]
fn cache_mode_and_threads_do_not_change_a_bit() {
    let model = model(DType::F32);
    let all = images(&model, 23);
    let start = bits(&model.weights);
    // At the pixels, within a block, between blocks, before and after the pooling.
    for (perturb, update) in [
        ("head", "embed"),
        ("head", "block.0.mlp"),
        ("block.1", "norm"),
        ("head", "norm"),
        ("head", "head"),
    ] {
        for half in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let stage = [perturb, update].map(|name| layer(&model, name).first_stage);
            let stage = stage[0].min(stage[1]);
            let mut seen: Vec<Vec<u32>> = Vec::new();
            for (i, threads) in [1, 3, 2, 1, 2, 3, 1, 2].into_iter().enumerate() {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let prefix = Prefix::new(&model, vec![&all], stage, half);
                    let (source, events) = open(prefix, POLICIES[i % 4], folder.path());
                    let hit = POLICIES[i % 4] == CachePolicy::Disk && i > 1;
                    assert_eq!((events.found, events.stale), (usize::from(hit), 0), "{i}");
                    seen.push(tuned(&model, &source, perturb, update));
                });
            }
            assert!(seen.iter().all(|weights| *weights == seen[0]), "{perturb} {update} {half}");
            assert_ne!(seen[0], start);
        }
    }
}

/// Widths that are not a multiple of a vector register, and token counts that do not fill a tile.
#[test]
fn activations_do_not_depend_on_the_batch() {
    for (name, dim, heads, mlp, n) in [
        ("vit_nano_patch7_14", 6, 2, 10, 37),
        ("vit_nano_patch7_28", 20, 4, 36, 35),
        ("vit_tiny_patch8_24", 33, 3, 50, 21),
    ] {
        let mut config = arch::vit(name, 3, 1).unwrap();
        (config.dim, config.depth, config.heads, config.mlp_dim) = (dim, 2, heads, mlp);
        let [h, w] = config.image_size;
        let network = config.network().unwrap();
        let mut rng = stream(3, "images");
        let pixels: Vec<f32> = (0..n * h * w).map(|_| 2.0 * unit(&mut rng) as f32 - 1.0).collect();
        let values = Tensor::from_vec(pixels, (n, 1, h, w), &Device::Cpu).unwrap();
        let all = Activations { stage: 0, values, labels: vec![0; n].into() };
        let weights = Weights::random(&network, 3).unwrap();
        let model = Objective::new(Arc::new(network), weights, &Engine::cpu());
        for stage in 1..=6 {
            let prefix = prefix(&model, &all, stage);
            let whole = prefix.rows(&(0..n).map(|i| (0, i)).collect::<Vec<_>>()).unwrap();
            let row = prefix.layout().row_bytes();
            for picks in [vec![n - 1], vec![4, 2], (0..n).rev().collect(), vec![9, 9, 0, 11, 7]] {
                let drawn: Vec<_> = picks.iter().map(|&i| (0, i)).collect();
                let found = prefix.rows(&drawn).unwrap();
                let expected = picks.iter().flat_map(|i| &whole[i * row..(i + 1) * row]);
                assert!(found.iter().eq(expected), "{name}, stage {stage}, {picks:?}");
            }
        }
    }
}

#[test]
fn files_are_only_written_on_request_and_reused() {
    let model = model(DType::F32);
    let all = images(&model, 20);
    let folder = tempfile::tempdir().unwrap();
    let subfolder = folder.path().join("a/b");
    for policy in [CachePolicy::Ram, CachePolicy::Off] {
        let (source, events) = open(prefix(&model, &all, 3), policy, &subfolder);
        assert_eq!(
            (source.mode(), events.found),
            (if policy == CachePolicy::Ram { CacheMode::Ram } else { CacheMode::Off }, 0)
        );
        rows(&source, 1);
        assert!(names(folder.path()).is_empty());
    }
    let (first, events) = open(prefix(&model, &all, 3), CachePolicy::Disk, &subfolder);
    assert_eq!((events.computed, events.found), (20, 0));
    let [name] = names(&subfolder).try_into().unwrap();
    let bytes = std::fs::read(subfolder.join(&name)).unwrap();
    let (second, events) = open(prefix(&model, &all, 3), CachePolicy::Disk, &subfolder);
    assert_eq!((events.computed, events.found, events.damaged.len()), (0, 1, 0));
    assert_eq!(rows(&first, 1), rows(&second, 1));
    assert_eq!(std::fs::read(subfolder.join(&name)).unwrap(), bytes);
    // An existing file takes precedence over memory, and so does an explicit folder.
    assert_eq!(
        chosen(CachePolicy::Auto, &subfolder, &prefix(&model, &all, 3)).unwrap().mode,
        CacheMode::Disk
    );
    assert_eq!(
        chosen(CachePolicy::Auto, &subfolder, &prefix(&model, &all, 5)).unwrap().mode,
        CacheMode::Disk
    );
    // `auto` does not write prepared images to files.
    assert_eq!(
        chosen(CachePolicy::Auto, &subfolder, &prefix(&model, &all, 0)).unwrap().mode,
        CacheMode::Ram
    );

    // The rows in the file are the model's activations, for use by other programs.
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let found = tensors.tensor("activations").unwrap();
    assert_eq!(found.shape(), [20, 5, 8]);
    let values = model.activations(&all, 3).unwrap().values;
    let expected: Vec<f32> = values.flatten_all().unwrap().to_vec1().unwrap();
    let found = found.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
    // The model's own micro-batches may round differently.
    assert!(found.zip(expected).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0)));
}

#[test]
fn bf16_is_rounded_to_nearest_even() {
    let mut rng = stream(8, "numbers");
    let random = (0..20_000).map(|_| f32::from_bits((unit(&mut rng) * 4_294_967_296.0) as u32));
    let ties = (0..2000u32).map(|i| f32::from_bits(0x3f80_8000 + (i << 16)));
    let numbers: Vec<f32> = random.chain(ties).filter(|x| x.is_finite()).collect();
    let x = Tensor::from_slice(&numbers, numbers.len(), &Device::Cpu).unwrap();
    let bytes = ActivationDtype::Bf16.encode(&x).unwrap();
    for (x, bytes) in numbers.iter().zip(bytes.as_chunks().0) {
        // Adding half a unit minus one, plus the last kept bit, rounds ties to even.
        let bits = x.to_bits();
        let expected = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
        assert_eq!(u16::from_le_bytes(*bytes), expected, "{x}");
    }
}

#[test]
fn bf16_stays_within_its_bound() {
    let model = model(DType::F32);
    let all = images(&model, 40);
    let folder = tempfile::tempdir().unwrap();
    let of = |half| {
        let prefix = Prefix::new(&model, vec![&all], 3, half);
        let (source, _) = open(prefix, CachePolicy::Disk, folder.path());
        let values = source.batch(&(0..40).map(|i| (0, i)).collect::<Vec<_>>()).unwrap().values;
        let exact: Vec<f32> = values.flatten_all().unwrap().to_vec1().unwrap();
        (exact, tuned(&model, &source, "head", "block.1"))
    };
    let ((exact, whole), (rounded, half)) = (of(false), of(true));
    // Eight bits of precision: half a unit in the last place is at most 2⁻⁸ of the number.
    let worst = exact.iter().zip(&rounded).map(|(x, y)| (x - y).abs() / x.abs().max(1e-30));
    let worst = worst.fold(0.0, f32::max);
    assert!(worst > 0.0 && worst <= 1.0 / 256.0, "{worst}");
    let float =
        |bits: &[u32]| -> Vec<f64> { bits.iter().map(|&b| f64::from(f32::from_bits(b))).collect() };
    let (whole, half, start) = (float(&whole), float(&half), float(&bits(&model.weights)));
    let distance =
        |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let error = distance(&half, &whole) / distance(&whole, &start);
    println!(
        "activations: error at most {worst:.1e}; six steps of PoL: {error:.1e} of their length"
    );
    assert!(error > 0.0 && error <= 0.02, "{error}");
    let sizes: Vec<u64> = names(folder.path())
        .iter()
        .map(|name| std::fs::metadata(folder.path().join(name)).unwrap().len())
        .collect();
    assert!(sizes.len() == 2 && sizes.iter().max() > sizes.iter().min(), "{sizes:?}");
}

#[test]
fn too_little_space_is_reported_with_a_remedy() {
    let model = model(DType::F32);
    let all = images(&model, 4);
    let folder = tempfile::tempdir().unwrap();
    let huge = prefix(&model, &Many, 3);
    let error = chosen(CachePolicy::Disk, folder.path(), &huge).unwrap_err();
    assert!(matches!(error, Error::NoRoom { .. }));
    let message = error.to_string();
    for part in ["`cache_dtype` to bf16", "`cache_dir`", "planish cache clear", "`cache` to off"] {
        assert!(message.contains(part), "{message}");
    }
    let error = chosen(CachePolicy::Ram, folder.path(), &huge).unwrap_err();
    assert!(matches!(error, Error::NoMemory { .. }) && error.to_string().contains("`cache_ram`"));
    assert_eq!(chosen(CachePolicy::Auto, folder.path(), &huge).unwrap().mode, CacheMode::Off);

    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for place in [file.clone(), file.join("below")] {
        let error = chosen(CachePolicy::Disk, &place, &prefix(&model, &all, 3)).unwrap_err();
        assert!(matches!(error, Error::NotAFolder { .. }), "{error}");
        assert_eq!(
            chosen(CachePolicy::Auto, &place, &prefix(&model, &all, 3)).unwrap().mode,
            CacheMode::Ram
        );
    }
    #[cfg(target_os = "linux")]
    {
        let read_only = std::path::Path::new("/proc/planish");
        let error = chosen(CachePolicy::Disk, read_only, &prefix(&model, &all, 3)).unwrap_err();
        assert!(error.to_string().contains("cannot write into /proc"), "{error}");
    }
    assert_eq!(names(folder.path()), ["file"]);
}

/// More images than fit on any disk.
struct Many;

impl Examples for Many {
    fn len(&self) -> usize {
        1 << 50
    }
    fn stage(&self) -> usize {
        0
    }
    fn inputs(&self, _: std::ops::Range<usize>) -> planish::objective::Result<Tensor> {
        unreachable!("these images must not be read")
    }
    fn labels(&self) -> &[u32] {
        &[]
    }
    fn fingerprint(&self) -> planish::cache::Result<Option<String>> {
        Ok(Some("many".into()))
    }
}
