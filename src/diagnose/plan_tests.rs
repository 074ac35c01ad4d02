use super::*;
use crate::diagnose::halvings::Halvings;
use crate::random::{below, stream, unit};

/// One halving of eight images.
fn halves() -> Vec<Vec<usize>> {
    vec![vec![0, 1, 0, 1, 0, 1, 0, 1]]
}

/// Gaps with mean `base` and a standard error of 0.65 `noise`.
fn evidence(name: &str, base: f64, noise: f64, scale: f64) -> Evidence {
    let gaps: Vec<f64> = (0..8).map(|i| base + noise * [1.0, -1.0, -1.0, 1.0][i % 4]).collect();
    let sharpness = Some(vec![gaps.iter().map(|g| g * scale).collect()]);
    Evidence { name: name.into(), gaps: vec![gaps], sharpness }
}

#[test]
fn picks_the_best_layer_if_differences_are_clear() {
    let all = [evidence("embed", 1.0, 0.1, 1.0), evidence("head", 3.0, 0.1, 0.1)];
    let plan = plan(&all, &halves(), "raw").unwrap();
    assert_eq!((&*plan.update, &*plan.perturb), ("head", "embed"));
    assert!(plan.tied_update.is_empty() && plan.tied_perturb.is_empty());
}

#[test]
fn picks_the_tied_layer_nearest_the_head() {
    // The pair differs by 0.1 with noise of opposite sign, so the interval contains 0.
    let all = [
        evidence("block.0", 1.1, 0.3, 1.0),
        evidence("block.1", 1.0, -0.3, 1.0),
        evidence("head", 0.1, 0.01, 1.0),
    ];
    let plan = plan(&all, &halves(), "raw").unwrap();
    assert_eq!(plan.update, "block.1");
    assert_eq!(plan.tied_update, ["block.0"]);
}

#[test]
fn no_plan_without_an_eligible_layer() {
    let all = [evidence("embed", 0.1, 2.0, 1.0), evidence("head", -1.0, 0.1, 1.0)];
    assert_eq!(plan(&all, &halves(), "raw"), None);
}

#[test]
fn a_noisy_layer_near_the_head_does_not_displace_a_clear_winner() {
    // The noise of `head` leaves the difference open. Its lower bound, 1.5 − 1.96 · 0.71 = 0.1, is below
    // half of 2.
    let all = [evidence("block.0", 2.0, 0.1, 1.0), evidence("head", 1.5, 1.1, 1.0)];
    let both = choose(&[("block.0", &all[0].gaps), ("head", &all[1].gaps)], &halves());
    assert_eq!(both, Some(("block.0".into(), Vec::new())));
    // Known to 0.26, its lower bound is above half of 1.6.
    let known = [evidence("block.0", 1.6, 0.4, 1.0), evidence("head", 1.5, -0.4, 1.0)];
    let tied = choose(&[("block.0", &known[0].gaps), ("head", &known[1].gaps)], &halves());
    assert_eq!(tied, Some(("head".into(), vec!["block.0".into()])));
}

#[test]
fn eligibility_is_corrected_for_the_number_of_layers() {
    // 2.1 standard errors: significant alone, not as the best of twenty layers.
    let error = cross_fitted(&evidence("", 0.0, 1.0, 1.0).gaps, &halves()).stderr.unwrap();
    let one = evidence("head", 2.1 * error, 1.0, 1.0);
    assert_eq!(eligible(std::slice::from_ref(&one), &halves()), [true]);
    let mut many = vec![evidence("block", -error, 1.0, 1.0); 19];
    many.push(one);
    assert!(!eligible(&many, &halves()).contains(&true));
}

/// Five halvings.
fn halvings(images: usize) -> Vec<Vec<usize>> {
    Halvings::new(&vec![0; images], 5, 0).unwrap().half_of_images()
}

/// Standard normal values (Box and Muller 1958).
fn normals(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = stream(seed, "normals");
    let mut one = || {
        let (u, v) = (1.0 - unit(&mut rng), unit(&mut rng));
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    (0..n).map(|_| one()).collect()
}

#[test]
fn ties_are_as_frequent_as_bootstrap_intervals_that_contain_zero() {
    // Two layers whose true difference is d. Over many samples, they must be called tied about as
    // often as the bootstrap percentile interval of the paired difference contains 0.
    let (n, trials) = (100, 150);
    // Equal values in all halvings: the directions are given, as for the bootstrap.
    let (of, half_of) = (|values: &[f64]| vec![values.to_vec(); 5], halvings(n));
    let (mut tied, mut containing, mut differ) = (0, 0, 0);
    for trial in 0..trials {
        let (a, b) = (normals(n, 100 + trial), normals(n, 1100 + trial));
        let base: Vec<f64> = a.iter().map(|x| 2.0 + 0.3 * x).collect();
        let best: Vec<f64> = base.iter().zip(&b).map(|(x, e)| x + 0.06 + 0.3 * e).collect();
        let chosen = choose(&[("best", &of(&best)), ("base", &of(&base))], &half_of).unwrap();
        let is_tied = !chosen.1.is_empty();
        let difference: Vec<f64> = best.iter().zip(&base).map(|(a, b)| a - b).collect();
        let mut rng = stream(trial, "tie bootstrap");
        let mut means: Vec<f64> = (0..2000)
            .map(|_| {
                let mut one = || difference[below(&mut rng, n as u64) as usize];
                (0..n).map(|_| one()).sum::<f64>() / n as f64
            })
            .collect();
        means.sort_by(f64::total_cmp);
        // `base` may lead by chance; count only whether there is a tie or a leader.
        let contains_zero = means[49] <= 0.0 && means[1950] >= 0.0;
        tied += usize::from(is_tied);
        containing += usize::from(contains_zero);
        differ += usize::from(is_tied != contains_zero);
    }
    assert!(tied > trials as usize / 5 && tied < 4 * trials as usize / 5, "{tied} of {trials}");
    assert!(
        differ <= trials as usize / 15,
        "{differ} differ: {tied} tied, {containing} intervals contain 0"
    );
}

#[test]
fn ranking_is_decided_once_errors_are_small() {
    let near = evidence("block.0", 1.0, 0.5, 1.0);
    let far = evidence("head", 3.0, 0.1, 0.1);
    let found = ranking(&[near.clone(), far], &halves()).unwrap();
    assert_eq!((&*found.update.best, &*found.perturb.best), ("head", "block.0"));
    let error = found.update.stderr.unwrap() / found.update.value;
    assert!(found.update.is_decided(1.01 * error) && !found.update.is_decided(0.99 * error));
    // An ineligible layer that might still be the best leaves the ranking open.
    let noisy = evidence("embed", 3.1, 9.0, 1.0);
    assert_eq!(eligible(std::slice::from_ref(&noisy), &halves()), [false]);
    let precise = evidence("head", 3.0, 0.01, 0.1);
    let found = ranking(&[noisy, precise], &halves()).unwrap();
    assert_eq!(&*found.update.best, "head");
    assert!(found.update.stderr.unwrap() < 0.01 * 3.0 && !found.update.is_decided(0.01));
    // Noise of opposite sign: neither is ahead, and the difference is uncertain.
    let level = evidence("block.1", 1.0, -0.5, 1.0);
    let found = ranking(&[near, level], &halves()).unwrap();
    let rival = &found.update.rivals[0];
    assert!(!found.update.is_decided(0.99 * rival.stderr.unwrap() / found.update.value));
    assert!(found.update.is_decided(1.01 * rival.stderr.unwrap() / found.update.value));
}
