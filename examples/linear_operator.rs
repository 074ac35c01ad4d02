//! A custom curvature estimator: power iteration for the eigenvalue of largest magnitude of a
//! layer's Hessian, compared with planish's Lanczos.
//!
//! An estimator only needs the map v ↦ H v, so the function works with any `LinearOperator`.
//!
//! cargo run --release --example linear_operator

use planish::curvature::lanczos::{LanczosSettings, eigenpairs};
use planish::curvature::{LayerOperator, LinearOperator};
use planish::objective::Matrix;
use planish::prelude::*;

/// Estimates the λ of largest |λ| as vᵀHv, after `products` iterations of v ← Hv/‖Hv‖.
fn power_iteration(operator: &dyn LinearOperator, products: usize) -> Result<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let n = operator.dimension();
    // The start must not be orthogonal to the eigenvector.
    let mut v: Vec<f64> = (0..n).map(|i| (1.0 + i as f64).sin()).collect();
    let mut value = 0.0;
    for _ in 0..products {
        let length = dot(&v, &v).sqrt();
        v.iter_mut().for_each(|x| *x /= length);
        let product = operator.apply(std::slice::from_ref(&v))?.remove(0);
        value = dot(&v, &product);
        v = product;
    }
    Ok(value)
}

fn main() -> Result<()> {
    let checkpoint = Checkpoint::open("assets/model".as_ref(), &Load::default())?;
    let options = DataOptions { data: vec!["assets/data".into()], ..DataOptions::default() };
    let roles = Data::open(&options, &checkpoint)?.roles(&checkpoint, 0)?;
    let subset = sample(require(Role::Val, roles.val.as_ref())?, Some(200), 0)?;
    let (model, images) =
        (objective(&checkpoint, DType::F32, &Engine::cpu())?, pixels(&checkpoint, &subset)?);
    let layer = select(&checkpoint.network, "norm")?.remove(0);
    let hessian = LayerOperator::new(&model, &images, &layer, Matrix::Hessian);

    println!("power iteration: {:.5}", power_iteration(&hessian, 30)?);
    let settings = LanczosSettings { largest: 1, tolerance: 1e-3, ..LanczosSettings::default() };
    let found = eigenpairs(&hessian, &settings)?;
    println!("Lanczos:         {:.5}", found.largest[0].value);
    Ok(())
}
