//! Ways to halve V, all made of the same blocks of images, so that any two halvings share half of each half.

use crate::data::folds::stratified_halves;

/// Most halvings: they take 16 blocks.
pub const MOST_REPEATS: usize = 15;

/// Number of blocks for this many halvings: the smallest power of two above it.
pub fn block_count(repeats: usize) -> usize {
    (repeats + 1).next_power_of_two()
}

/// Seeded, stratified halvings of V. In each, a half is half of the blocks, and the halves of two
/// halvings have half of their blocks in common: the rows of a Hadamard matrix (Plackett and Burman,
/// Biometrika 33, 1946).
#[derive(Clone, Debug)]
pub struct Halvings {
    /// Images of each block, ascending.
    pub blocks: Vec<Vec<usize>>,
    repeats: usize,
}

impl Halvings {
    /// Blocks are halves of halves, so their sizes differ by at most one. The first halving is
    /// [`stratified_halves`] of the same seed. There are fewer halvings where V has too few images for the
    /// blocks; `None` for fewer than two images.
    pub fn new(labels: &[u32], repeats: usize, seed: u64) -> Option<Self> {
        let mut blocks = vec![(0..labels.len()).collect::<Vec<_>>()];
        while blocks.len() < block_count(repeats) && 2 * blocks.len() <= labels.len() {
            // The index of a block gets a bit at the top, so that its lowest bit is the first halving.
            let split = |(k, block): (usize, &Vec<usize>)| {
                let own: Vec<u32> = block.iter().map(|&i| labels[i]).collect();
                let at = seed.wrapping_add((blocks.len() - 1 + k) as u64);
                let (a, b) = stratified_halves(&own, at);
                [a, b].map(|half| half.into_iter().map(|i| block[i]).collect::<Vec<_>>())
            };
            let halves: Vec<[Vec<usize>; 2]> = blocks.iter().enumerate().map(split).collect();
            let (low, high): (Vec<_>, Vec<_>) = halves.into_iter().map(|[a, b]| (a, b)).unzip();
            blocks = [low, high].concat();
        }
        let repeats = repeats.min(blocks.len() - 1);
        (repeats > 0).then_some(Self { blocks, repeats })
    }

    /// Number of halvings.
    pub fn repeats(&self) -> usize {
        self.repeats
    }

    /// The half that a block belongs to: the parity of the bits that its index shares with r + 1.
    fn half_of(&self, r: usize, block: usize) -> usize {
        ((r + 1) & block).count_ones() as usize % 2
    }

    /// Blocks of one half of halving r.
    pub fn blocks_of(&self, r: usize, half: usize) -> Vec<usize> {
        (0..self.blocks.len()).filter(|&b| self.half_of(r, b) == half).collect()
    }

    /// Images of both halves of halving r, ascending.
    pub fn halves(&self, r: usize) -> [Vec<usize>; 2] {
        [0, 1].map(|half| {
            let of = self.blocks_of(r, half).into_iter().flat_map(|b| &self.blocks[b]);
            let mut images: Vec<usize> = of.copied().collect();
            images.sort_unstable();
            images
        })
    }

    /// For each halving, the half that each image belongs to.
    pub fn half_of_images(&self) -> Vec<Vec<usize>> {
        let images = self.blocks.iter().map(Vec::len).sum();
        let of = |r: usize| {
            let mut halves = vec![0; images];
            for (b, block) in self.blocks.iter().enumerate() {
                block.iter().for_each(|&i| halves[i] = self.half_of(r, b));
            }
            halves
        };
        (0..self.repeats).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(n: usize) -> Vec<u32> {
        (0..n).map(|i| (i * i % 7 % 3) as u32).collect()
    }

    #[test]
    fn halvings_are_balanced_and_share_half_of_their_halves() {
        for (n, repeats) in [(160, 1), (160, 3), (161, 5), (803, 7), (320, 15)] {
            let labels = labels(n);
            let found = Halvings::new(&labels, repeats, 4).unwrap();
            assert_eq!((found.repeats(), found.blocks.len()), (repeats, block_count(repeats)));
            let (a, b) = stratified_halves(&labels, 4);
            assert_eq!(found.halves(0), [a, b]);
            let half_of = found.half_of_images();
            for r in 0..repeats {
                let halves = found.halves(r);
                assert!(halves[0].iter().all(|&i| half_of[r][i] == 0));
                assert!(halves[1].iter().all(|&i| half_of[r][i] == 1));
                assert_eq!(halves[0].len() + halves[1].len(), n);
                // Sizes of blocks differ by at most one image.
                let slack = found.blocks.len();
                assert!(halves[0].len().abs_diff(halves[1].len()) <= slack / 2);
                for s in 0..r {
                    let shared = (0..n).filter(|&i| half_of[r][i] == half_of[s][i]).count();
                    assert!((2 * shared).abs_diff(n) <= slack, "{r} {s}: {shared} of {n}");
                }
            }
        }
    }

    #[test]
    fn few_images_allow_few_halvings() {
        let repeats = |n: usize| Halvings::new(&labels(n), 5, 0).map(|found| found.repeats());
        assert_eq!(
            [0, 1, 2, 3, 4, 7, 8].map(repeats),
            [None, None, Some(1), Some(1), Some(3), Some(3), Some(5)]
        );
        let halves = Halvings::new(&labels(4), 5, 0).unwrap();
        assert!((0..3).all(|r| halves.halves(r).iter().all(|half| half.len() == 2)));
    }
}
