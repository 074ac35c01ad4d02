//! Stratified splits: each class is divided in proportion.

use std::collections::BTreeMap;

use crate::random::{shuffle, stream};

/// Positions of each class, every class shuffled, in the order of the class numbers.
fn shuffled_classes(labels: &[u32], seed: u64, name: &str) -> Vec<Vec<usize>> {
    let mut classes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, &label) in labels.iter().enumerate() {
        classes.entry(label).or_default().push(index);
    }
    let mut rng = stream(seed, name);
    classes
        .into_values()
        .map(|mut members| {
            shuffle(&mut members, &mut rng);
            members
        })
        .collect()
}

/// Two halves of `0..labels.len()`, each ascending. Every class is divided as evenly as possible.
/// The extra members of classes of odd size go to the two halves in turn, so the halves' sizes
/// differ by at most one.
pub fn stratified_halves(labels: &[u32], seed: u64) -> (Vec<usize>, Vec<usize>) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut extra_to_first = true;
    for members in shuffled_classes(labels, seed, "folds") {
        let odd = members.len() % 2 == 1;
        let (a, b) = members.split_at(members.len() / 2 + usize::from(odd && extra_to_first));
        extra_to_first ^= odd;
        first.extend_from_slice(a);
        second.extend_from_slice(b);
    }
    first.sort_unstable();
    second.sort_unstable();
    (first, second)
}

/// Number of elements for each class, out of `n`: n·size/total rounded down, and the rest goes to
/// the largest remainders (ties to the lower class). Exact integer arithmetic.
fn shares(sizes: &[usize], n: usize) -> Vec<usize> {
    let total: usize = sizes.iter().sum();
    if n >= total {
        return sizes.to_vec();
    }
    let quota = |size: usize| (n as u128) * (size as u128);
    let total = total as u128;
    let mut shares: Vec<usize> = sizes.iter().map(|&s| (quota(s) / total) as usize).collect();
    let left = n - shares.iter().sum::<usize>();
    let mut by_remainder: Vec<usize> = (0..sizes.len()).collect();
    by_remainder.sort_by_key(|&c| std::cmp::Reverse(quota(sizes[c]) % total));
    for &class in by_remainder.iter().take(left) {
        shares[class] += 1;
    }
    shares
}

/// Selected and remaining positions, each ascending.
fn take(labels: &[u32], n: usize, seed: u64, name: &str) -> (Vec<usize>, Vec<usize>) {
    let classes = shuffled_classes(labels, seed, name);
    let sizes: Vec<usize> = classes.iter().map(Vec::len).collect();
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    for (members, share) in classes.iter().zip(shares(&sizes, n)) {
        let (a, b) = members.split_at(share.min(members.len()));
        taken.extend_from_slice(a);
        left.extend_from_slice(b);
    }
    taken.sort_unstable();
    left.sort_unstable();
    (taken, left)
}

/// Splits off round(`fraction` · n) positions, stratified. Returns `(rest, selected)`, each
/// ascending. `fraction` is clamped to [0, 1].
pub fn stratified_cut(labels: &[u32], fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let n = (fraction.clamp(0.0, 1.0) * labels.len() as f64).round() as usize;
    let (cut, rest) = take(labels, n, seed, "cut");
    (rest, cut)
}

/// `n` positions, stratified and ascending; all of them if there are at most `n`.
pub fn stratified_sample(labels: &[u32], n: usize, seed: u64) -> Vec<usize> {
    take(labels, n, seed, "sample").0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sizes[c]` labels of class c, interleaved.
    fn labels(sizes: &[usize]) -> Vec<u32> {
        let most = sizes.iter().copied().max().unwrap_or(0);
        (0..most)
            .flat_map(|i| {
                sizes.iter().enumerate().filter(move |(_, s)| i < **s).map(|(c, _)| c as u32)
            })
            .collect()
    }

    fn count(labels: &[u32], of: &[usize], class: u32) -> usize {
        of.iter().filter(|&&i| labels[i] == class).count()
    }

    fn is_partition(a: &[usize], b: &[usize], n: usize) -> bool {
        let mut all = [a, b].concat();
        all.sort_unstable();
        all == (0..n).collect::<Vec<_>>() && a.is_sorted() && b.is_sorted()
    }

    #[test]
    fn halves_are_even_in_every_class_and_overall() {
        for sizes in [&[][..], &[1], &[3, 3, 3], &[1, 1, 1, 1, 1], &[10, 7, 0, 4, 9]] {
            let y = labels(sizes);
            let (a, b) = stratified_halves(&y, 4);
            assert!(is_partition(&a, &b, y.len()));
            assert!(a.len().abs_diff(b.len()) <= 1);
            for class in 0..sizes.len() as u32 {
                assert!(count(&y, &a, class).abs_diff(count(&y, &b, class)) <= 1);
            }
        }
    }

    #[test]
    fn the_seed_determines_the_halves() {
        let y = labels(&[30, 30]);
        assert_eq!(stratified_halves(&y, 1), stratified_halves(&y, 1));
        assert_ne!(stratified_halves(&y, 1), stratified_halves(&y, 2));
    }

    #[test]
    fn a_cut_follows_the_classes() {
        let y = labels(&[100, 50, 10]);
        let (rest, cut) = stratified_cut(&y, 0.1, 0);
        assert!(is_partition(&rest, &cut, 160));
        assert_eq!([0, 1, 2].map(|c| count(&y, &cut, c)), [10, 5, 1]);
        assert_eq!(stratified_cut(&y, 0.0, 0).1.len(), 0);
        assert_eq!(stratified_cut(&y, f64::NAN, 0).1.len(), 0);
        assert_eq!(stratified_cut(&y, 1.0, 0).0.len(), 0);
    }

    #[test]
    fn a_sample_has_the_requested_size() {
        let y = labels(&[13, 9, 5, 1]);
        for n in 0..=28 {
            let sample = stratified_sample(&y, n, 7);
            assert_eq!(sample.len(), n);
            assert!(sample.windows(2).all(|w| w[0] < w[1]));
            for (class, size) in [13, 9, 5, 1].into_iter().enumerate() {
                let exact = n as f64 * size as f64 / 28.0;
                assert!((count(&y, &sample, class as u32) as f64 - exact).abs() < 1.0);
            }
        }
        assert_eq!(stratified_sample(&y, 1000, 7).len(), 28);
    }

    #[test]
    fn samples_are_uniform() {
        // Each of ten members of one class is drawn in half of all samples of five.
        let mut hits = [0usize; 10];
        for seed in 0..2000 {
            for i in stratified_sample(&[0; 10], 5, seed) {
                hits[i] += 1;
            }
        }
        // Five standard deviations of a binomial(2000, 1/2) are 112.
        assert!(hits.iter().all(|h| h.abs_diff(1000) < 112), "{hits:?}");
    }
}
