//! Post-trains the last block with SGD and prints the test NLL before and after.
//!
//! cargo run --release --example post_train -- OUT [CHECKPOINT DATA]

use planish::post_train::Preview;
use planish::prelude::*;

fn main() -> Result<()> {
    let mut paths = std::env::args().skip(1);
    let out = paths.next().unwrap_or_else(|| "tuned.safetensors".into());
    let checkpoint = paths.next().unwrap_or_else(|| "assets/model".into());
    let data = paths.next().unwrap_or_else(|| "assets/data".into());

    let checkpoint = Checkpoint::open(checkpoint.as_ref(), &Load::default())?;
    let last = checkpoint.network.last_block().name;
    let options = PostTrainOptions {
        train: TrainArgs { epochs: Some(2), lr: Some(0.03), ..TrainArgs::default() },
        remeasure: Some(0),
        write_worse: true,
        ..PostTrainOptions::new(MethodOptions::sgd(&last))
    };
    let data = DataOptions { data: vec![data], ..DataOptions::default() };
    let (place, context) = (Place::New(out.into()), Context::silent(0));
    let session =
        PostTrainSession::prepare(&options, checkpoint, &data, &place, Preview::None, &context)?;
    println!("{}", session.intention()?);
    let result = session.run(&session.cache_plan(None)?, &context)?;

    for epoch in &result.outcome.epochs {
        println!("epoch {}: training loss {:.4}", epoch.epoch, epoch.training_loss);
    }
    if let Some(test) = &result.figures.test {
        println!("test NLL {:.4} → {:.4}", test.before.nll, test.after.nll);
        let [before, after] = [&test.before, &test.after].map(|s| s.calibrated_nll);
        println!("after a temperature {before:.4} → {after:.4}");
    }
    Ok(())
}
