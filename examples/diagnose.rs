//! Where does a fine-tuned model overfit? Prints ΔL and κ of every layer, and a plan, and writes the
//! report that `planish diagnose` would write.
//!
//! cargo run --release --example diagnose -- [CHECKPOINT DATA [REPORT.json]]

use planish::output;
use planish::prelude::*;
use planish::report::diagnosis::DiagnosisReport;
use planish::run::RunInfo;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let checkpoint = arguments.next().unwrap_or_else(|| "assets/model".into());
    let data = arguments.next().unwrap_or_else(|| "assets/data".into());

    let context = Context::silent(0);
    let clock = RunInfo::start("example".into(), context.seed, context.engine);
    let checkpoint = Checkpoint::open(checkpoint.as_ref(), &Load::default())?;
    let data = DataOptions { data: vec![data], ..DataOptions::default() };
    let options = DiagnoseOptions { samples: Some(500), ..DiagnoseOptions::default() };
    let limit = Limit::default();
    let session = DiagnoseSession::prepare(&options, checkpoint, &data, limit, &context)?;
    let found = session.run(&context)?;

    for layer in &found.findings.layers {
        let (gap, sharpness) = (layer.delta_l_nats.cross_fit, layer.kappa.cross_fit);
        println!("{:8} ΔL {gap:?} nats, κ {sharpness:?}", layer.name);
    }
    println!("{}", found.findings.summary);
    if let Some(plan) = &found.findings.plan {
        println!("perturb {}, update {}", plan.perturb, plan.update);
    }
    if let Some(path) = arguments.next() {
        let report = DiagnosisReport::new(clock.finish(), &session, found);
        output::write_json(path.as_ref(), &report)?;
    }
    Ok(())
}
