//! The order of images, and mini-batches.

use super::Error;
use crate::random::{below, shuffle, stream};

/// A permutation of `0..n`, determined by seed, stream name and epoch.
pub fn epoch_order(n: usize, seed: u64, name: &str, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    shuffle(&mut order, &mut stream(seed, &format!("{name}, epoch {epoch}")));
    order
}

/// Divides an order into consecutive batches. The last batch may be short; it is dropped if
/// `drop_last`. A batch size of 0 gives no batches.
pub fn batches(order: &[usize], batch: usize, drop_last: bool) -> Vec<&[usize]> {
    if batch == 0 {
        return Vec::new();
    }
    order.chunks(batch).filter(|b| !drop_last || b.len() == batch).collect()
}

/// `draws` images out of `n`, each drawn independently, determined by seed, stream name and epoch. None if
/// `n` is 0.
pub fn epoch_draws(n: usize, draws: usize, seed: u64, name: &str, epoch: u64) -> Vec<usize> {
    let mut rng = stream(seed, &format!("{name} with replacement, epoch {epoch}"));
    let draws = if n == 0 { 0 } else { draws };
    (0..draws).map(|_| below(&mut rng, n as u64) as usize).collect()
}

/// An endless sequence of full batches. Each epoch is a new permutation; its last partial batch is
/// dropped. With replacement, an epoch has as many batches, and each image of a batch is drawn
/// independently.
///
/// Two sequences with the same seed and stream name are equal.
#[derive(Clone, Debug)]
pub struct Batches {
    len: usize,
    batch: usize,
    seed: u64,
    name: String,
    replacement: bool,
    epoch: u64,
    order: Vec<usize>,
    next: usize,
}

impl Batches {
    /// Batches of `batch` images out of `len`, from epoch 0 of the stream `name`.
    ///
    /// # Errors
    /// [`Error::Setting`] if `batch` is 0 or more than `len`: there would be no full batch.
    pub fn new(len: usize, batch: usize, seed: u64, name: &str) -> Result<Self, Error> {
        if batch == 0 || batch > len {
            return Err(Error::Setting {
                name: "batch size",
                expected: match len {
                    1 => "1, because there is one image".into(),
                    _ => format!("1 to {len}, the number of images"),
                },
                found: batch.to_string(),
                remedy: "choose a smaller `batch_size`, or give more images",
            });
        }
        let (name, replacement) = (name.to_owned(), false);
        let order = epoch_order(len, seed, &name, 0);
        Ok(Self { len, batch, seed, name, replacement, epoch: 0, order, next: 0 })
    }

    /// The sequence that draws with replacement, from epoch 0.
    #[must_use]
    pub fn with_replacement(self) -> Self {
        let mut own = Self { replacement: true, epoch: 0, next: 0, ..self };
        own.order = own.drawn();
        own
    }

    /// The images of the epoch, batch by batch.
    fn drawn(&self) -> Vec<usize> {
        let Self { len, batch, seed, ref name, epoch, .. } = *self;
        match self.replacement {
            true => epoch_draws(len, len - len % batch, seed, name, epoch),
            false => epoch_order(len, seed, name, epoch),
        }
    }

    /// Full batches in one epoch, ⌊len / batch⌋.
    pub fn per_epoch(&self) -> usize {
        self.len / self.batch
    }

    /// Seed of the order.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Name of the random stream of the order.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The epoch, from 0, of the last batch returned.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Iterator for Batches {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        if self.len - self.next < self.batch {
            self.epoch += 1;
            self.order = self.drawn();
            self.next = 0;
        }
        let batch = self.order.get(self.next..self.next + self.batch)?.to_vec();
        self.next += self.batch;
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_visits_every_image_once() {
        for n in [0, 1, 2, 7, 100] {
            let mut order = epoch_order(n, 3, "B", 5);
            order.sort_unstable();
            assert_eq!(order, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn seed_name_and_epoch_each_change_the_order() {
        let base = epoch_order(50, 0, "B", 0);
        assert_eq!(base, epoch_order(50, 0, "B", 0));
        assert_ne!(base, epoch_order(50, 1, "B", 0));
        assert_ne!(base, epoch_order(50, 0, "B'", 0));
        assert_ne!(base, epoch_order(50, 0, "B", 1));
    }

    #[test]
    fn shuffles_of_three_are_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..6000 {
            *counts.entry(epoch_order(3, 0, "test", epoch)).or_insert(0usize) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Five standard deviations of a binomial(6000, 1/6) are 144.
        assert!(counts.values().all(|c| c.abs_diff(1000) < 144), "{counts:?}");
    }

    #[test]
    fn batches_keep_or_drop_the_rest() {
        let order: Vec<usize> = (0..7).collect();
        assert_eq!(batches(&order, 3, false), [&[0, 1, 2][..], &[3, 4, 5], &[6]]);
        assert_eq!(batches(&order, 3, true), [&[0, 1, 2][..], &[3, 4, 5]]);
        assert!(batches(&order, 0, false).is_empty());
    }

    #[test]
    fn endless_batches_follow_the_epochs() {
        let mut endless = Batches::new(7, 3, 9, "B").unwrap();
        assert_eq!(endless.per_epoch(), 2);
        for epoch in 0..3 {
            let order = epoch_order(7, 9, "B", epoch);
            for batch in batches(&order, 3, true) {
                assert_eq!(endless.next().unwrap(), batch);
                assert_eq!(endless.epoch(), epoch);
            }
        }
    }

    #[test]
    fn draws_with_replacement_are_independent_and_uniform() {
        let all = || Batches::new(7, 3, 9, "B'").unwrap().with_replacement();
        assert!(all().take(50).eq(all().take(50)));
        let mut batches = all();
        let (mut counts, mut repeats) = ([0usize; 7], 0);
        for n in 0..2000 {
            let batch = batches.next().unwrap();
            assert_eq!((batch.len(), batches.epoch()), (3, n / 2));
            batch.iter().for_each(|&image| counts[image] += 1);
            repeats +=
                usize::from(batch[0] == batch[1] || batch[0] == batch[2] || batch[1] == batch[2]);
        }
        // 6000 draws: five standard deviations of a binomial(6000, 1/7) are 136.
        assert!(counts.iter().all(|n| n.abs_diff(857) < 136), "{counts:?}");
        // Three of seven are distinct with probability 6/7 · 5/7 = 30/49; five deviations are 109.
        assert!(repeats.abs_diff(2000 * 19 / 49) < 109, "{repeats}");
    }

    #[test]
    fn a_batch_larger_than_the_data_is_refused() {
        for batch in [0, 8] {
            let error = Batches::new(7, batch, 0, "B").unwrap_err();
            assert!(matches!(error, Error::Setting { name: "batch size", .. }), "{error}");
        }
        let error = Batches::new(1, 128, 0, "B").unwrap_err().to_string();
        assert!(error.contains("expected 1, because there is one image, found 128"), "{error}");
    }
}
