use super::*;
use crate::random::unit;

/// Scores with these losses, outcomes and confidences.
fn scores(rows: &[(f64, bool, f64)]) -> Scores {
    let column = |f: fn(&(f64, bool, f64)) -> f64| rows.iter().map(f).collect::<Vec<f64>>();
    let correct = |row: &(f64, bool, f64)| if row.1 { 1.0 } else { 0.0 };
    Scores {
        nll: column(|row| row.0),
        top1: column(correct),
        top5: column(|_| 1.0),
        brier: column(|row| row.0),
        confidence: column(|row| row.2),
        entropy: column(|_| 0.0),
    }
}

#[test]
fn a_model_against_itself_and_against_a_better_one() {
    let some = [(1.0, false, 0.5), (2.0, true, 0.75), (3.0, true, 0.625), (0.5, true, 1.0)];
    let a = scores(&some.repeat(8));
    let same = compare([&a, &a], [&a, &a], 0, 200).unwrap();
    for d in &same.differences {
        assert_eq!(
            (d.gain, d.interval, d.verdict),
            (0.0, Some([0.0; 2]), Verdict::Equivalent),
            "{d:?}"
        );
    }
    assert_eq!(same.mcnemar, McNemar { only_a: 0, only_b: 0, p: 1.0 });
    let mut b = a.clone();
    b.nll.iter_mut().for_each(|loss| *loss -= 0.25);
    let found = compare([&a, &a], [&b, &a], 0, 200).unwrap();
    let nll = found.of("nll").unwrap();
    assert_eq!((nll.gain, nll.interval, nll.verdict), (0.25, Some([0.25; 2]), Verdict::Better));
    assert_eq!(found.of("calibrated_nll").unwrap().verdict, Verdict::Equivalent);
    let swapped = compare([&b, &a], [&a, &a], 0, 200).unwrap();
    assert_eq!(swapped.of("nll").unwrap().verdict, Verdict::Worse);
}

#[test]
fn one_image_gives_no_verdict_and_unpaired_images_are_refused() {
    let (a, b) = (scores(&[(9.0, false, 0.9)]), scores(&[(0.1, true, 0.9)]));
    let found = compare([&a, &a], [&b, &b], 0, 200).unwrap();
    for d in &found.differences {
        assert_eq!((d.interval, d.gain_stderr, d.verdict), (None, None, Verdict::Open));
    }
    let two = scores(&[(9.0, false, 0.9), (0.1, true, 0.9)]);
    let error = compare([&a, &a], [&two, &two], 0, 200).unwrap_err();
    assert_eq!(error, Error::Unpaired { a: 1, b: 2 });
    let none = scores(&[]);
    assert_eq!(
        compare([&none; 2], [&none; 2], 0, 2).unwrap_err(),
        predictions::Error::NoImages.into()
    );
}

#[test]
fn too_few_images_give_no_verdict() {
    for n in [2, 5, FEW - 1, FEW] {
        let (a, b) = (scores(&vec![(1.0, true, 0.9); n]), scores(&vec![(0.5, true, 0.9); n]));
        let found = compare([&a, &a], [&b, &b], 0, 200).unwrap();
        let nll = found.of("nll").unwrap();
        assert_eq!((nll.verdict == Verdict::Open, nll.interval), (n < FEW, Some([0.5; 2])), "{n}");
    }
}

#[test]
fn accuracy_is_compared_on_images_that_only_one_model_gets_right() {
    let mut rows = vec![(1.0, true, 0.9); 100];
    let a = scores(&rows);
    rows[..6].iter_mut().for_each(|row| row.1 = false);
    let b = scores(&rows);
    let found = compare([&a, &a], [&b, &b], 0, 500).unwrap();
    let top1 = found.of("top1").unwrap();
    assert_eq!((found.mcnemar.only_a, found.mcnemar.only_b), (6, 0));
    assert!((found.mcnemar.p - 2.0 / 64.0).abs() < 1e-12);
    assert_eq!((top1.verdict, top1.b), (Verdict::Worse, 0.94));
    assert!((top1.gain + 0.06).abs() < 1e-12);
    // The interval is that of a binomial proportion: 0.06 ± 1.96 · 0.0237.
    let [low, high] = top1.interval.unwrap();
    assert!((low + 0.11).abs() < 0.015 && (high + 0.02).abs() < 0.015, "{low} {high}");
}

/// Counts over 300 pairs of samples of 400 images: NLL intervals that contain the true gain 0.05,
/// ECE intervals that contain the true gain, and established ECE differences. Confidence is
/// uniform over a range of 0.44 and too high by `over`.
fn trials(over: [f64; 2]) -> [usize; 3] {
    let mut rng = stream(4, "compare test");
    let mut counts = [0; 3];
    for trial in 0..300 {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..400 {
            let shared = 3.0 * unit(&mut rng);
            let noise = unit(&mut rng) + unit(&mut rng) - 1.0;
            let [p, q] = over.map(|over| (0.5 - 0.5 * over + 0.44 * unit(&mut rng), over));
            let mut image = |(p, over): (f64, f64), loss| (loss, unit(&mut rng) < p, p + over);
            a.push(image(p, shared + noise));
            b.push(image(q, shared - 0.05));
        }
        let (a, b) = (scores(&a), scores(&b));
        let found = compare([&a, &a], [&b, &b], trial, 300).unwrap();
        let covers = |figure: &str, truth: f64| {
            let [low, high] = found.of(figure).unwrap().interval.unwrap();
            low <= truth && truth <= high
        };
        counts[0] += usize::from(covers("nll", 0.05));
        counts[1] += usize::from(covers("ece", over[0] - over[1]));
        counts[2] += usize::from(found.of("ece").unwrap().verdict != Verdict::Open);
    }
    counts
}

#[test]
fn intervals_have_their_nominal_coverage() {
    // 285 of 300 expected; three standard deviations below are 274.
    let [nll, ece, _] = trials([0.15, 0.25]);
    println!("of 300 intervals, {nll} (NLL) and {ece} (ECE) contain the true gain");
    // Three standard deviations above are 297, so intervals are not too wide either.
    assert!((274..=297).contains(&nll), "{nll}");
    assert!((274..=297).contains(&ece), "{ece}");
}

#[test]
fn equally_calibrated_models_are_rarely_reported_as_different() {
    // 15 of 300 expected; three standard deviations above are 26.
    for over in [0.0, 0.1] {
        let [_, _, established] = trials([over; 2]);
        println!(
            "both overconfident by {over}: {established} of 300 differences in ECE established"
        );
        assert!(established <= 26, "{established}");
    }
}

#[test]
fn a_seed_gives_the_same_results_on_any_number_of_threads() {
    let rows = (0..50).map(|i| (f64::from(i % 7), i % 3 > 0, 0.5 + 0.01 * f64::from(i)));
    let a = scores(&rows.clone().collect::<Vec<_>>());
    let b = scores(&rows.map(|(l, r, p)| (l * 0.9 + 0.1, !r, p)).collect::<Vec<_>>());
    let run = |threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| compare([&a, &a], [&b, &b], seed, 64).unwrap())
    };
    assert_eq!(run(1, 3), run(3, 3));
    assert_ne!(run(1, 3).differences, run(1, 4).differences);
}

#[test]
fn rounding_is_not_a_difference() {
    // Every loss is lower by one rounding of f32, or by a thousand times as much.
    let verdict = |shift: f64| {
        let side = |shift| scores(&vec![(0.5 + shift, true, 0.6); FEW]);
        let (a, b) = (side(shift), side(0.0));
        compare([&a, &a], [&b, &b], 0, 200).unwrap().of("nll").unwrap().verdict
    };
    assert_eq!((verdict(6e-8), verdict(6e-5)), (Verdict::Equivalent, Verdict::Better));
}
