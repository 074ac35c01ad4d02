//! Sensor noise.

use super::canvas::Canvas;
use super::random::Random;

/// Adds normal noise of a standard deviation in units of the full scale.
pub fn gaussian(mut x: Canvas, small: bool, s: usize, random: &mut Random) -> Canvas {
    let sigma = match small {
        true => [0.04, 0.06, 0.08, 0.09, 0.10],
        false => [0.08, 0.12, 0.18, 0.26, 0.38],
    }[s];
    x.values.iter_mut().for_each(|v| *v += sigma * random.normal());
    x
}

/// Replaces each value by a Poisson count with this number of photons at full scale.
pub fn shot(mut x: Canvas, small: bool, s: usize, random: &mut Random) -> Canvas {
    let photons = match small {
        true => [500.0, 250.0, 100.0, 75.0, 50.0],
        false => [60.0, 25.0, 12.0, 5.0, 3.0],
    }[s];
    x.values.iter_mut().for_each(|v| *v = random.poisson(*v * photons) / photons);
    x
}

/// Sets this fraction of the values to 0 or 1, with equal probability.
pub fn impulse(mut x: Canvas, small: bool, s: usize, random: &mut Random) -> Canvas {
    let share = match small {
        true => [0.01, 0.02, 0.03, 0.05, 0.07],
        false => [0.03, 0.06, 0.09, 0.17, 0.27],
    }[s];
    for v in &mut x.values {
        // Drawn whether used or not, so that the severity does not change other pixels' noise.
        let (hit, salt) = (random.uniform(0.0, 1.0) < share, random.uniform(0.0, 1.0) < 0.5);
        if hit {
            *v = if salt { 1.0 } else { 0.0 };
        }
    }
    x
}
