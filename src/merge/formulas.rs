//! Formulas of merged weights. All are computed in f64 and returned in f32.

use crate::models::Weights;
use candle_core::{DType, Device, Result, Tensor};

/// The mean of several weights: a uniform soup (Wortsman et al., ICML 2022).
///
/// # Errors
/// Tensor operations; no weights.
pub fn average(all: &[&Weights]) -> Result<Weights> {
    let Some((first, others)) = all.split_first() else {
        candle_core::bail!("expected one or more weights, found none")
    };
    let mut out = Vec::new();
    for i in 0..first.names().len() {
        let mut sum = first.tensor(i).to_dtype(DType::F64)?;
        for other in others {
            sum = (sum + other.tensor(i).to_dtype(DType::F64)?)?;
        }
        out.push((i, (sum / all.len() as f64)?.to_dtype(DType::F32)?));
    }
    Ok(first.with(&out))
}

/// t · mean + (1 − t) w⁰ for each tensor of `moved`, with t = K cos φ / ((K − 1) cos φ + 1) for K
/// weights: Model Stock (Jang, Yun and Han, ECCV 2024). cos φ is the mean cosine between two
/// differences from w⁰, at least 0. Other tensors are the mean.
///
/// # Errors
/// Tensor operations; fewer than two weights.
pub fn model_stock(all: &[&Weights], pretrained: &Weights, moved: &[usize]) -> Result<Weights> {
    let mean = average(all)?;
    if all.len() < 2 {
        candle_core::bail!("expected two or more weights, found {}", all.len())
    }
    let k = all.len() as f64;
    let mut out = Vec::new();
    for &i in moved {
        let w0 = pretrained.tensor(i).to_dtype(DType::F64)?;
        let differences: Vec<Vec<f64>> = all
            .iter()
            .map(|w| (w.tensor(i).to_dtype(DType::F64)? - &w0)?.flatten_all()?.to_vec1())
            .collect::<Result<_>>()?;
        let cos = mean_cosine(&differences);
        let t = k * cos / ((k - 1.0) * cos + 1.0);
        let m = mean_of(&differences);
        let m = Tensor::from_vec(m, w0.shape(), &Device::Cpu)?;
        out.push((i, (&w0 + (m * t)?)?.to_dtype(DType::F32)?));
    }
    Ok(mean.with(&out))
}

/// Mean cosine over all pairs, at least 0. Two equal differences, also of length 0, have cosine 1.
fn mean_cosine(all: &[Vec<f64>]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (mut sum, mut pairs) = (0.0, 0.0);
    for (i, a) in all.iter().enumerate() {
        for b in &all[i + 1..] {
            let lengths = (dot(a, a) * dot(b, b)).sqrt();
            sum += match lengths > 0.0 {
                true => dot(a, b) / lengths,
                false => f64::from(u8::from(a == b)),
            };
            pairs += 1.0;
        }
    }
    (sum / f64::max(pairs, 1.0)).max(0.0)
}

fn mean_of(all: &[Vec<f64>]) -> Vec<f64> {
    let n = all.first().map_or(0, Vec::len);
    (0..n).map(|j| all.iter().map(|x| x[j]).sum::<f64>() / all.len() as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretrained::interpolate;
    use crate::pretrained::test_weights::{filled, network, values};

    /// What `tests/reference/make_merge.py` wrote.
    #[derive(serde::Deserialize)]
    struct Reference {
        /// w⁰, A, B and C.
        inputs: Vec<Vec<f64>>,
        average: Vec<f64>,
        interpolated: Vec<f64>,
        stock: Vec<f64>,
    }

    #[test]
    fn formulas_equal_torch() {
        let text = include_str!("../../tests/reference/merge.json");
        let reference: Reference = serde_json::from_str(text).unwrap();
        let network = network();
        // The head's weight (3,8) has the reference's 24 numbers; all other tensors are 0.
        let head = network.params().iter().position(|p| p.name == "head.weight").unwrap();
        let of = |k: usize| {
            let given = &reference.inputs[k];
            filled(&network, |i, j| if i == head { given[j] } else { 0.0 })
        };
        let (w0, a, b, c) = (of(0), of(1), of(2), of(3));
        let all: Vec<usize> = (0..network.params().len()).collect();
        let close = |found: &Weights, expected: &[f64]| {
            let found = values(found, head);
            let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            // One rounding to f32 of numbers up to 4.
            assert!(found.len() == expected.len() && off < 2.5e-7, "{off}");
        };
        close(&average(&[&a, &b, &c]).unwrap(), &reference.average);
        close(&interpolate(&a, &w0, &all, 0.3).unwrap(), &reference.interpolated);
        close(&model_stock(&[&a, &b, &c], &w0, &all).unwrap(), &reference.stock);
    }

    #[test]
    fn ends_and_equal_models_are_exact() {
        let network = network();
        let of = |k: f64| filled(&network, move |i, j| (k * (1 + i + 7 * j) as f64).sin());
        let (w, w0) = (of(0.7), of(1.1));
        let all: Vec<usize> = (0..network.params().len()).collect();
        let same = |a: &Weights, b: &Weights| (0..all.len()).all(|i| values(a, i) == values(b, i));
        assert!(same(&interpolate(&w, &w0, &all, 1.0).unwrap(), &w));
        assert!(same(&interpolate(&w, &w0, &all, 0.0).unwrap(), &w0));
        assert!(same(&interpolate(&w, &w0, &[], 0.5).unwrap(), &w));
        // Equal weights have cos φ = 1 and t = 1.
        let stock = model_stock(&[&w, &w], &w0, &all).unwrap();
        assert!((0..all.len()).all(|i| {
            values(&stock, i).iter().zip(values(&w, i)).all(|(a, b)| (a - b).abs() < 1e-6)
        }));
        // Opposite changes cancel: only w⁰ is left.
        let [plus, minus] = [1.0, -1.0].map(|sign| filled(&network, move |_, _| 2.0 + sign));
        let stock = model_stock(&[&plus, &minus], &filled(&network, |_, _| 2.0), &all).unwrap();
        assert!(values(&stock, 0).iter().all(|x| *x == 2.0));
        assert!(average(&[]).is_err() && model_stock(&[&w], &w0, &all).is_err());
    }
}
