use super::super::verdict::{equivalence, interval};
use super::super::{EQUIVALENT_NATS, mean_stderr};
use super::*;
use crate::random::{stream, unit};
use rand_chacha::ChaCha8Rng;

/// What `tests/reference/make_effects.py` wrote, by the analysis of variance of statsmodels.
#[derive(serde::Deserialize)]
struct Reference {
    crossed: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    table: Vec<Vec<f64>>,
    mean: f64,
    stderr: f64,
    degrees_of_freedom: f64,
}

#[test]
fn error_and_degrees_of_freedom_equal_an_analysis_of_variance() {
    let text = include_str!("../../tests/reference/effects.json");
    let reference: Reference = serde_json::from_str(text).unwrap();
    assert_eq!(reference.crossed.len(), 3);
    for case in reference.crossed {
        let found = crossed(&case.table).unwrap();
        let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * b.abs(), "{a} {b}");
        close(found.mean, case.mean);
        close(found.stderr.unwrap(), case.stderr);
        close(found.degrees_of_freedom.unwrap(), case.degrees_of_freedom);
    }
}

#[test]
fn one_seed_or_one_image_has_no_error_and_ragged_tables_are_refused() {
    let none = Crossed { mean: 2.0, stderr: None, degrees_of_freedom: None };
    assert_eq!(crossed(&[vec![1.0, 3.0]]), Ok(none));
    assert_eq!(crossed(&[vec![1.0], vec![3.0]]), Ok(none));
    let ragged = [vec![1.0, 2.0], vec![1.0]];
    assert_eq!(crossed(&ragged), Err(Error::Unpaired { a: 2, b: 1 }));
    assert_eq!(crossed(&[]), Err(predictions::Error::NoImages.into()));
    // No variation at all.
    let same = crossed(&[vec![1.0; 3], vec![1.0; 3]]).unwrap();
    assert_eq!((same.stderr, same.degrees_of_freedom), (Some(0.0), Some(1.0)));
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v) = (1.0 - unit(rng), unit(rng));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Skewed as losses are: an exponential variable less its mean, with standard deviation 1.
fn skewed(rng: &mut ChaCha8Rng) -> f64 {
    -(1.0 - unit(rng)).ln() - 1.0
}

/// A table with mean `truth`, and effects of seeds, images and the rest with these standard deviations.
fn table(
    truth: f64,
    [a, b, e]: [f64; 3],
    [s, n]: [usize; 2],
    rng: &mut ChaCha8Rng,
) -> Vec<Vec<f64>> {
    let of_images: Vec<f64> = (0..n).map(|_| b * skewed(rng)).collect();
    (0..s)
        .map(|_| {
            let of_seed = truth + a * normal(rng);
            of_images.iter().map(|of_image| of_seed + of_image + e * normal(rng)).collect()
        })
        .collect()
}

/// How many of 400 intervals contain the truth: over seeds and images, over seeds alone, and over the
/// images of the mean over seeds alone.
fn covered(deviations: [f64; 3], name: &str) -> [usize; 3] {
    let (truth, sizes) = (0.02, [5, 500]);
    let mut rng = stream(0, "coverage of seeds and images");
    let mut counts = [0; 3];
    for _ in 0..400 {
        let table = table(truth, deviations, sizes, &mut rng);
        let found = crossed(&table).unwrap();
        let of = |mean, stderr: Option<f64>, df| {
            let [low, high] = interval(mean, stderr.unwrap(), df);
            usize::from(low <= truth && truth <= high)
        };
        let row = |row: &Vec<f64>| mean_stderr(row).mean;
        let seeds = mean_stderr(&table.iter().map(row).collect::<Vec<_>>());
        let column = |i: usize| table.iter().map(|row| row[i]).sum::<f64>() / 5.0;
        let images = mean_stderr(&(0..500).map(column).collect::<Vec<_>>());
        counts[0] += of(found.mean, found.stderr, found.degrees_of_freedom.unwrap());
        counts[1] += of(seeds.mean, seeds.stderr, 4.0);
        counts[2] += of(images.mean, images.stderr, 499.0);
    }
    println!("{name}: of 400 intervals, {counts:?} contain the truth");
    counts
}

#[test]
fn intervals_over_five_seeds_and_images_cover_the_truth() {
    // The errors of the mean from seeds and from images: a/√5 and b/√500.
    let seeds = covered([0.02, 0.05, 0.05], "seeds vary most");
    let both = covered([0.005, 0.05, 0.05], "seeds and images vary alike");
    let images = covered([0.0005, 0.1, 0.05], "images vary most");
    let rest = covered([0.0, 0.0, 0.1], "no effects of either");
    for found in [seeds, both, images, rest] {
        // 93% of 400, and not so wide that every interval covers.
        assert!((372..400).contains(&found[0]), "{found:?}");
    }
    // Intervals that count one source alone miss the truth wherever the other one matters.
    assert!(images[1] < 340 && seeds[2] < 340 && both[1] < 372 && both[2] < 372);
}

#[test]
fn equivalence_is_rarely_claimed_of_a_difference_at_the_margin() {
    let mut rng = stream(1, "equivalence at the margin");
    let claimed = |truth: f64, rng: &mut ChaCha8Rng| {
        let found = (0..400).filter(|_| {
            let table = table(truth, [0.001, 0.01, 0.01], [5, 500], rng);
            let Crossed { mean, stderr, degrees_of_freedom } = crossed(&table).unwrap();
            let (stderr, df) = (stderr.unwrap(), degrees_of_freedom.unwrap());
            equivalence(mean, stderr, df, EQUIVALENT_NATS) < 0.05
        });
        found.count()
    };
    let [at_margin, equal] = [EQUIVALENT_NATS, 0.0].map(|truth| claimed(truth, &mut rng));
    println!("equivalence claimed {at_margin} of 400 times at the margin, {equal} times at 0");
    // 20 of 400 expected at most; three standard deviations above are 33.
    assert!(at_margin <= 33 && equal > 380, "{at_margin} {equal}");
}
