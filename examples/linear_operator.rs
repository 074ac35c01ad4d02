//! A curvature estimator of one's own: power iteration for the largest |eigenvalue| of a layer's Hessian,
//! beside planish's Lanczos.
//!
//! An estimator sees the matrix only as a map v ↦ H v. The same function serves any `LinearOperator`.
//!
//! cargo run --release --example linear_operator

use planish::curvature::lanczos::{LanczosSettings, eigenpairs};
use planish::curvature::{LayerOperator, LinearOperator};
use planish::objective::Matrix;
use planish::prelude::*;

/// λ of the largest |λ|, after so many products: vᵀHv with v ← Hv/‖Hv‖.
fn power_iteration(operator: &dyn LinearOperator, products: usize) -> Result<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let n = operator.dimension();
    // Any start will do that is not orthogonal to the eigenvector.
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
    let options = DataOptions { data: "assets/data".into(), ..DataOptions::default() };
    let roles = Data::open(&options, &checkpoint)?.roles(&checkpoint, 0)?;
    let few = sample(require(Role::Val, roles.val.as_ref())?, Some(200), 0)?;
    let (model, images) =
        (objective(&checkpoint, DType::F32, &Engine::cpu())?, pixels(&checkpoint, &few)?);
    let layer = select(&checkpoint.config, "norm")?.remove(0);
    let hessian = LayerOperator::new(&model, &images, &layer, Matrix::Hessian);

    println!("power iteration: {:.5}", power_iteration(&hessian, 30)?);
    let settings = LanczosSettings { largest: 1, tolerance: 1e-3, ..LanczosSettings::default() };
    let found = eigenpairs(&hessian, &settings)?;
    println!("Lanczos:         {:.5}", found.largest[0].value);
    Ok(())
}
