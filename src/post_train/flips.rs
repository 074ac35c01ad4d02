//! Images whose predicted class became right or wrong.

use super::result::{Flip, Flips};
use crate::evaluate::Scores;
use crate::predictions::Predictions;

/// Images that exactly one of the two models classifies correctly, without temperature scaling.
pub fn flips(own: &[Predictions; 2], [before, after]: [&Scores; 2]) -> Flips {
    let kind = |wrong: &Scores, right: &Scores, of: &Predictions| {
        let images = 0..of.images();
        let mut found: Vec<Flip> = images
            .filter(|&i| wrong.top1[i] < 1.0 && right.top1[i] == 1.0)
            .map(|image| Flip {
                image,
                label: of.labels()[image],
                mistaken_for: answer(of, image),
                confidence: wrong.confidence[image],
            })
            .collect();
        let all = found.len();
        found.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        found.truncate(Flips::SHOWN);
        (all, found)
    };
    let (fixed, most_fixed) = kind(before, after, &own[0]);
    let (broken, most_broken) = kind(after, before, &own[1]);
    Flips { fixed, broken, most_fixed, most_broken }
}

/// The class with the largest logit; the first one on ties.
fn answer(of: &Predictions, image: usize) -> u32 {
    let row = of.values().chunks(of.classes().max(1)).nth(image).unwrap_or_default();
    let mut best = (0, f64::NEG_INFINITY);
    for (class, &z) in row.iter().enumerate() {
        if z > best.1 {
            best = (class, z);
        }
    }
    best.0 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_flips_and_sorts_by_confidence() {
        let labels = [0, 0, 1, 1, 0];
        let of = |rows: [[f64; 2]; 5]| Predictions::new(rows.concat(), 2, &labels).unwrap();
        // Correct, wrong (confident), wrong (less confident), correct, correct.
        let a = of([[1., 0.], [0., 5.], [2., 0.], [0., 1.], [3., 0.]]);
        // Correct, correct, correct, wrong, correct.
        let b = of([[1., 0.], [1., 0.], [0., 1.], [1., 0.], [3., 0.]]);
        let scores = [&a, &b].map(|p| Scores::at(p, |_| 1.0));
        let found = flips(&[a, b], [&scores[0], &scores[1]]);
        assert_eq!((found.fixed, found.broken), (2, 1));
        let images: Vec<usize> = found.most_fixed.iter().map(|f| f.image).collect();
        assert_eq!(images, [1, 2]);
        let first = &found.most_fixed[0];
        assert_eq!((first.label, first.mistaken_for), (0, 1));
        assert!((first.confidence - 1.0 / (1.0 + (-5f64).exp())).abs() < 1e-12);
        assert_eq!((found.most_broken[0].image, found.most_broken[0].mistaken_for), (3, 0));
    }
}
