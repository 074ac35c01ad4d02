//! Where does a fine-tuned model overfit? Prints ΔL and κ of every layer, and a plan.
//!
//! cargo run --release --example diagnose -- [CHECKPOINT DATA]

use planish::prelude::*;

fn main() -> Result<()> {
    let mut paths = std::env::args().skip(1);
    let checkpoint = paths.next().unwrap_or_else(|| "assets/model".into());
    let data = paths.next().unwrap_or_else(|| "assets/data".into());

    let checkpoint = Checkpoint::open(checkpoint.as_ref(), &Load::default())?;
    let data = Data::open(&DataOptions { data, ..DataOptions::default() }, &checkpoint)?;
    let context = Context::silent(0);
    let roles = data.roles(&checkpoint, context.seed)?;
    let session = DiagnoseSession::new(&checkpoint, &roles, Some(500), &context)?;
    let blocks = layers(&checkpoint.network, Granularity::Block);
    let found = session.measure(&blocks, &MeasureOptions::default(), &context)?;

    for layer in &found.layers {
        let (gap, sharpness) = (layer.delta_l_nats.cross_fit, layer.kappa.cross_fit);
        println!("{:8} ΔL {gap:?} nats, κ {sharpness:?}", layer.name);
    }
    println!("{}", found.summary);
    if let Some(plan) = found.plan {
        println!("perturb {}, update {}", plan.perturb, plan.update);
    }
    Ok(())
}
