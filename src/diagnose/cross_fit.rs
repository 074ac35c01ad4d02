//! The cross-fitted mean over repeated halvings of V, with a standard error that covers.
//!
//! `values[r][i]` belongs to image i in halving r: its gap along the direction that the half without i
//! gave. `half_of[r][i]` is the half of image i.
//!
//! An image counts twice: it is measured, and it helps to choose the direction that others are measured
//! along. Over the choice of V, the variance of the mean of R halvings is about the sum of two terms:
//!
//! - **Measuring.** Each image is measured once per halving. With v̄ᵢ the mean of its values, the variance of
//!   the mean over n images is s²(v̄)/n.
//! - **Choosing.** The two directions of a halving are chosen by disjoint halves, so their gains differ, by
//!   how well these chose and by which images measured them. The second part is known: it is the
//!   difference of the means, over the same two halves, of the images' values in the other halvings. Let Pᵣ
//!   be that difference minus the difference of the gains. Pᵣ has four times the variance of what n images
//!   contribute by choosing: it is a difference of means over n/2 images each. So the term is the mean of
//!   Pᵣ²/4. It has R degrees of freedom, since the halvings are orthogonal. To cover with 1.96 errors, it
//!   is multiplied by (t/1.96)², t being the quantile of Student's distribution.
//!
//! The covariance of the two is left out. It is 0 if gradients vary equally in all directions, and negative
//! if they vary as the curvature does, which is so for a fitted model (Fisher information). Simulations with
//! known truth in the tests show that 95% intervals cover, from pure noise to strong effects. They cover less
//! (79% at worst) where one direction has a hundred times the curvature and noise of all others. The usual
//! error, which takes the directions as given, does not.

use crate::curvature::student_95;
use crate::evaluate::{Estimate, mean_stderr};

/// Two-sided 95% of the normal distribution.
pub const Z95: f64 = 1.96;

/// Variance of the cross-fitted mean over its variance given the directions, for one halving, pure noise
/// and equal curvature in all directions. With s, d the sum and the difference of the halves' mean
/// gradients, the mean is |s|²/8 − 3|d|²/8 up to a factor; s and d are independent and of equal
/// covariance Σ, so its variance is 2 tr Σ² (1 + 9)/64. Given the directions, it is tr Σ²/8.
const ONE_HALVING: f64 = 2.5;

/// The mean over halvings of the mean of both halves' means, with its standard error. `None` for the error
/// if a half has one image.
///
/// With one halving, what its directions contribute to the error cannot be estimated. The error given
/// the directions is then multiplied by √2.5, the factor under pure noise.
pub fn cross_fitted(values: &[Vec<f64>], half_of: &[Vec<usize>]) -> Estimate {
    let repeats = values.len() as f64;
    let halves: Vec<[Estimate; 2]> =
        values.iter().zip(half_of).map(|(values, half_of)| of_halves(values, half_of)).collect();
    let means: Vec<f64> = halves.iter().map(|[a, b]| (a.mean + b.mean) / 2.0).collect();
    let mean = means.iter().sum::<f64>() / repeats;
    let errors = halves.iter().flatten().map(|half| half.stderr).collect::<Option<Vec<f64>>>();
    let variance = errors.map(|errors| match halves.as_slice() {
        [_] => ONE_HALVING * errors.iter().map(|error| (error / 2.0).powi(2)).sum::<f64>(),
        _ => {
            let images = by_image(values);
            let measuring = mean_stderr(&images).stderr.unwrap_or(0.0).powi(2);
            let mut choosing = 0.0;
            for ((values, half_of), [a, b]) in values.iter().zip(half_of).zip(&halves) {
                let other = |(all, own): (&f64, &f64)| (repeats * all - own) / (repeats - 1.0);
                let others: Vec<f64> = images.iter().zip(values).map(other).collect();
                let [of_a, of_b] = of_halves(&others, half_of);
                choosing += ((of_b.mean - of_a.mean) - (b.mean - a.mean)).powi(2) / (4.0 * repeats);
            }
            measuring + (student_95(values.len()) / Z95).powi(2) * choosing
        }
    });
    Estimate { mean, stderr: variance.map(f64::sqrt) }
}

fn of_halves(values: &[f64], half_of: &[usize]) -> [Estimate; 2] {
    [0, 1].map(|half| {
        let own = values.iter().zip(half_of).filter(|(_, h)| **h == half);
        mean_stderr(&own.map(|(value, _)| *value).collect::<Vec<_>>())
    })
}

/// The mean over halvings of each image's value.
fn by_image(values: &[Vec<f64>]) -> Vec<f64> {
    let mut sums = vec![0.0; values.first().map_or(0, Vec::len)];
    for values in values {
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    sums.into_iter().map(|sum| sum / values.len() as f64).collect()
}

/// κ = G/S, the ratio of the cross-fitted gap G and the mean S of all moves' ‖Δw‖², linearised: the
/// values κ + (gapᵢ − κ ‖Δw‖²)/S, where ‖Δw‖² is that of the move measured on image i. Their cross-fitted
/// mean is κ, and its standard error is that of the delta method (Cochran, Sampling Techniques, 1977,
/// section 6.3). `squares` has ‖Δw‖² by halving and by the half that gave the direction. `None` if
/// nothing moved.
pub fn sharpness(
    gaps: &[Vec<f64>],
    squares: &[[f64; 2]],
    half_of: &[Vec<usize>],
) -> Option<Vec<Vec<f64>>> {
    let square = squares.iter().flatten().sum::<f64>() / (2 * squares.len()) as f64;
    let kappa = cross_fitted(gaps, half_of).mean / square;
    let of_halving = |((gaps, squares), half_of): ((&Vec<f64>, &[f64; 2]), &Vec<usize>)| {
        let at = |(gap, h): (&f64, &usize)| kappa + (gap - kappa * squares[1 - h]) / square;
        gaps.iter().zip(half_of).map(at).collect()
    };
    (square > 0.0).then(|| gaps.iter().zip(squares).zip(half_of).map(of_halving).collect())
}

/// Differences of two layers' values. Their cross-fitted mean and error are those of the paired difference.
pub fn differences(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let minus = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| a - b).collect();
    a.iter().zip(b).map(minus).collect()
}

#[cfg(test)]
#[path = "cross_fit_tests.rs"]
mod tests;
