//! Bugs are detected: bugs injected by the simulated libraries, and messages to the user.

use super::{Bench, bench, kept, on, tensors};
use std::fs;

fn evaluated(bench: &Bench, settings: &[(&str, &str)]) -> super::Ended {
    let dump = bench.path("planted.safetensors");
    let _ = fs::remove_file(&dump);
    let words = ["eval", &bench.model, "--data", &bench.data, "--quiet", "--dump", &dump];
    on("cuda", bench, &words, settings)
}

#[test]
fn injected_bugs_are_detected() {
    let bench = bench();
    let kept = kept(&bench);
    let fine = evaluated(&bench, &[("STANDIN_KEPT", &kept)]);
    assert_eq!(fine.code, Some(0), "{}", fine.errors);
    for mistake in ["grid", "offset", "leak", "overrun", "freed"] {
        let found = evaluated(&bench, &[("STANDIN_KEPT", &kept), ("STANDIN_PLANT", mistake)]);
        println!("{mistake}: {:?} {}", found.code, found.errors.trim());
        // Either the simulated libraries end the run, or unwritten numbers are found in the logits.
        assert!(matches!(found.code, Some(1 | 86)), "{mistake}: {:?}", found.code);
    }
}

/// In this `eval` each row is processed by one warp; barriers only occur in sums of gradients.
#[test]
fn a_missing_barrier_is_detected() {
    let bench = bench();
    let out = bench.path("planted.safetensors");
    let words = ["hvp", &bench.model, "--data", &bench.data, "--layer", "block.1", "--out", &out];
    for (mistake, code) in [("none", 0), ("barrier", 1)] {
        let found = on("cuda", &bench, &words, &[("STANDIN_PLANT", mistake)]);
        println!("{mistake}: {:?} {}", found.code, found.errors.trim());
        assert_eq!(found.code, Some(code), "{mistake}: {}", found.errors);
    }
}

/// PoF with images read for every batch, in micro-batches. Both are prefetched.
fn steps(bench: &Bench, settings: &[(&str, &str)]) -> super::Ended {
    let out = bench.path("steps");
    let mut words = vec!["post-train", &bench.model, "--data", &bench.data, "--out", &out];
    words.extend(["--method", "pof", "--write-worse", "--epochs", "2", "--keep", "last"]);
    words.extend(["--batch-size", "3", "--perturb-batch", "4", "--micro-batch", "2"]);
    words.extend(["--cache", "off", "--remeasure", "0", "--quiet"]);
    on("cuda", bench, &words, settings)
}

#[test]
fn a_missing_wait_between_streams_is_detected() {
    let bench = bench();
    for (mistake, code) in [("none", 0), ("early use", 86), ("early copy", 86)] {
        let found = steps(&bench, &[("STANDIN_PLANT", mistake)]);
        println!("{mistake}: {:?} {}", found.code, found.errors.trim());
        assert_eq!(found.code, Some(code), "{mistake}: {}", found.errors);
    }
}

#[test]
fn inputs_are_uploaded_during_computation() {
    let bench = bench();
    let ended = steps(&bench, &[("STANDIN_VERBOSE", "1")]);
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    let [copies, launches] = numbers_before(&ended.errors, "beside the computing stream");
    println!("{copies} copies, {launches} launches during a copy");
    // At least: two epochs of one step, B and B′ of the second step, and second micro-batches.
    assert!(copies >= 4 && launches > 0);
    // Without pinned memory everything is copied synchronously, with the same bits.
    let saved_weights = || fs::read(bench.path("steps/model.safetensors")).unwrap();
    let first = saved_weights();
    let ended = steps(&bench, &[("STANDIN_VERBOSE", "1"), ("STANDIN_PINNED", "0")]);
    assert!(ended.errors.contains(" 0 copies beside the computing stream"), "{}", ended.errors);
    assert!(first == saved_weights());
}

/// The numbers before `words` in the output of the simulated libraries.
fn numbers_before<const N: usize>(errors: &str, words: &str) -> [u64; N] {
    let line = errors.lines().find(|line| line.contains(words)).unwrap_or("");
    let numbers = line.split(' ').filter_map(|word| word.parse().ok());
    numbers.collect::<Vec<u64>>().try_into().unwrap()
}

#[test]
fn freed_memory_is_reused() {
    let bench = bench();
    let [kept, given_back] = ["none", "forgets"].map(|mistake| {
        let ended = steps(&bench, &[("STANDIN_VERBOSE", "1"), ("STANDIN_PLANT", mistake)]);
        assert_eq!(ended.code, Some(0), "{}", ended.errors);
        let [allocations, _, grown]: [u64; 3] =
            numbers_before(&ended.errors, "times the pool grew");
        println!("{mistake}: {allocations} allocations, for which the pool grew {grown} times");
        grown
    });
    assert!(2 * kept < given_back, "{kept} of {given_back}");
}

#[test]
fn thread_order_does_not_change_a_bit() {
    let bench = bench();
    let logits = |order: &str| {
        let found = evaluated(&bench, &[("STANDIN_ORDER", order)]);
        assert_eq!(found.code, Some(0), "{}", found.errors);
        let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        bits(tensors(&bench.path("planted.safetensors"))["logits"].f32s())
    };
    let up = logits("0");
    assert!(["1", "7"].iter().all(|order| logits(order) == up));
}

#[test]
fn micro_batches_are_halved_without_memory() {
    let bench = bench();
    let words = ["eval", &bench.model, "--data", &bench.data];
    let mut halved_runs = 0;
    let weights = fs::metadata(format!("{}/model.safetensors", bench.model)).unwrap().len();
    // From too little for the weights to more than enough.
    for room in (10..22).map(|power| 1u64 << power) {
        let bytes = (weights + room).to_string();
        let ended = on("cuda", &bench, &words, &[("STANDIN_BYTES", &bytes)]);
        let last = ended.errors.lines().find(|line| line.contains("rror: ")).unwrap_or("");
        let halved = ended.errors.contains("no room for 5 images at once: continuing with 2");
        println!("{room} bytes besides the weights: {:?} {}", ended.code, ended.errors.trim());
        assert!(ended.code == Some(0) || last.contains("no room"), "{}", ended.errors);
        halved_runs += usize::from(halved && ended.code == Some(0));
    }
    assert!(halved_runs > 0);
}

#[test]
fn unsupported_devices_are_reported() {
    let bench = bench();
    let refused = |device: &str, settings: &[(&str, &str)], part: &str| {
        let words = ["eval", &bench.model, "--data", &bench.data, "--quiet"];
        let ended = on(device, &bench, &words, settings);
        assert_eq!(ended.code, Some(1), "{}", ended.errors);
        assert_eq!(ended.errors.lines().count(), 1, "{}", ended.errors);
        assert!(ended.errors.contains(part), "{}", ended.errors);
    };
    refused("cuda", &[("STANDIN_PLANT", "no device")], "no NVIDIA driver or GPU");
    refused("cuda", &[("STANDIN_PLANT", "old driver")], "supports CUDA 12.4");
    refused("cuda:3", &[], "no GPU 3");
}

#[test]
fn cached_activations_do_not_depend_on_location() {
    let bench = bench();
    if super::own().is_some() {
        return;
    }
    let weights = fs::metadata(format!("{}/model.safetensors", bench.model)).unwrap().len();
    // Five images in micro-batches of two, in two views: full waves and a short last one.
    let tuned = |name: &str, cache: &str, settings: &[(&str, &str)]| -> Vec<u8> {
        let out = bench.path(name);
        let mut words = vec!["post-train", &bench.model, "--data", &bench.data, "--out", &out];
        words.extend([
            "--method",
            "pol",
            "--perturb",
            "head",
            "--update",
            "block.1",
            "--write-worse",
        ]);
        words.extend(["--epochs", "2", "--keep", "last", "--batch-size", "3"]);
        words.extend(["--perturb-batch", "4", "--micro-batch", "2", "--remeasure", "0"]);
        words.extend(["--augment", "flip", "--views", "2", "--cache", cache]);
        let ended = on("cuda", &bench, &words, settings);
        assert_eq!(ended.code, Some(0), "{name}: {}", ended.errors);
        fs::read(format!("{out}/model.safetensors")).unwrap()
    };
    let in_ram = tuned("gpu", "ram", &[]);
    assert!(in_ram == tuned("uncached", "off", &[]), "--cache off");
    assert!(in_ram == tuned("files", "disk", &[]), "--cache disk");
    // Half of the memory left by the weights is too little for the cached activations.
    let little = (2 * weights + (1 << 15)).to_string();
    assert!(in_ram == tuned("cpu", "ram", &[("STANDIN_BYTES", &little)]), "CPU memory");
}
