//! The benchmark tasks, by name.

use candle_core::Tensor;
use planish::curvature::{LayerOperator, LinearOperator};
use planish::engine::Precision;
use planish::line_search::moved;
use planish::models::layers::{features, select};
use planish::models::{Layer, cost};
use planish::objective::{Activations, Examples, LayerVectors, Matrix, Objective};
use planish::random::{stream, unit};
use planish::train::perturbation::StepRule;
use planish::train::pof::Pof;
use planish::train::pol::Pol;
use planish::train::{Method, Perturber, Source};
use std::error::Error;
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// All tasks.
pub const NAMES: [&str; 11] = [
    "forward",
    "gradient",
    "forward bf16",
    "gradient bf16",
    "hvp first block",
    "hvp last block",
    "hvp head",
    "hvps of all blocks",
    "last block, cached",
    "pol step, cached",
    "pof step",
];

/// Suffix of the names of bf16 tasks.
const IN_BF16: &str = " bf16";

/// A model, a batch, and the operands of the tasks.
pub struct Tasks {
    pub objective: Objective,
    examples: Activations,
    blocks: Vec<Layer>,
    head: Layer,
    all: Layer,
    /// Inputs of the last block.
    stage_input: Activations,
    /// A direction for each block: its weights.
    directions: Vec<Vec<Tensor>>,
}

impl Tasks {
    pub fn new(objective: Objective, examples: Activations) -> Outcome<Self> {
        let network = &objective.network;
        let named = |name: &str| select(network, name).map(|mut found| found.remove(0));
        let blocks = network.trunk();

        let (head, all) = (named("head")?, named("*")?);
        let last = blocks.last().ok_or("a model without blocks")?;
        let stage_input = objective.activations(&examples, last.first_stage)?;
        let weights = |layer: &Layer| objective.weights_of(layer);
        let directions = blocks.iter().map(weights).collect::<Result<_, _>>()?;
        Ok(Self { blocks, head, all, stage_input, directions, examples, objective })
    }

    fn last(&self) -> &Layer {
        &self.blocks[self.blocks.len() - 1]
    }

    fn perturber(&self, examples: usize) -> Outcome<Perturber> {
        Ok(Perturber::new(self.head.clone(), 2.0, StepRule::Search, examples, examples, 1)?)
    }

    /// Operations per image; a multiply-add counts as two.
    pub fn flops(&self, task: &str) -> Outcome<f64> {
        let (network, model) = (&self.objective.network, &self.objective);
        // Includes the forward pass through the stages below the layer.
        let below = |layer: &Layer| cost::forward(network, 0..layer.first_stage);
        let hvp = |layer: &Layer| below(layer) + cost::hvp(network, layer);
        let last = self.last();
        // A step in a linear layer: logits of both batches, gradients of the logits, one product.
        let ascent = cost::forward(network, last.first_stage..network.stages());
        Ok(match task.trim_end_matches(IN_BF16) {
            "forward" => cost::forward(network, 0..network.stages()),
            "gradient" => cost::gradient(network, &self.all),
            "hvp first block" => hvp(&self.blocks[0]),
            "hvp last block" => hvp(last),
            "hvp head" => hvp(&self.head),
            "hvps of all blocks" => {
                let layers: Vec<&Layer> = self.blocks.iter().collect();
                below(&self.blocks[0]) + cost::sweep(network, &layers)
            }
            "last block, cached" => cost::gradient(network, last),
            "pol step, cached" => ascent + cost::gradient(network, last),
            "pof step" => {
                cost::forward(network, 0..network.stages())
                    + cost::gradient(network, &features(&model.network))
            }
            other => return Err(format!("no task `{other}`").into()),
        })
    }

    /// Runs a task once. Returns seconds, and a number to compare with other implementations.
    pub fn run(&self, task: &str) -> Outcome<(f64, f64)> {
        let examples = &self.examples;
        let precision = match task.ends_with(IN_BF16) {
            true => Precision::Bf16,
            false => Precision::F32,
        };
        let objective = &Objective { precision, ..self.objective.clone() };
        let clock = Instant::now();
        let norm = |t: &[Tensor]| planish::vector::norm(t);
        let check = match task.trim_end_matches(IN_BF16) {
            "forward" => {
                let logits = objective.predict(examples)?;
                planish::evaluate::losses(&logits, 1.0).iter().sum::<f64>() / examples.len() as f64
            }
            "gradient" => norm(&objective.gradient(examples, &self.all)?.gradient)?,
            "hvp first block" => norm(&self.hvp(0)?)?,
            "hvp last block" => norm(&self.hvp(self.blocks.len() - 1)?)?,
            "hvp head" => {
                let at = objective.activations(examples, self.head.first_stage)?;
                let operator = LayerOperator::new(objective, &at, &self.head, Matrix::Hessian);
                let mut draws = stream(1, "direction");
                let v: Vec<f64> = (0..operator.dimension()).map(|_| unit(&mut draws)).collect();
                operator.apply(&[v])?[0].iter().map(|x| x * x).sum::<f64>().sqrt()
            }
            "hvps of all blocks" => self.curvatures()?.iter().sum(),
            "last block, cached" => {
                norm(&objective.gradient(&self.stage_input, self.last())?.gradient)?
            }
            "pol step, cached" => {
                let update = self.last().clone();
                let perturber = self.perturber(self.stage_input.len())?;
                let source = Source::held(&self.stage_input);
                norm(
                    &Pol { update, perturber }
                        .step(objective, &source, &self.stage_input)?
                        .gradient,
                )?
            }
            "pof step" => {
                let features = features(&objective.network);
                let perturber = self.perturber(examples.len())?;
                let source = Source::held(examples);
                norm(&Pof { features, perturber }.step(objective, &source, examples)?.gradient)?
            }
            other => return Err(format!("no task `{other}`").into()),
        };
        Ok((clock.elapsed().as_secs_f64(), check))
    }

    /// Hessian-vector product of one block with its weights.
    fn hvp(&self, block: usize) -> Outcome<Vec<Tensor>> {
        let layer = &self.blocks[block];
        let at = self.objective.activations(&self.examples, layer.first_stage)?;
        Ok(self.objective.hvp(&at, layer, &self.directions[block])?.hvp)
    }

    /// wᵀH w for each block, with w its weights.
    fn curvatures(&self) -> Outcome<Vec<f64>> {
        let unsqueezed = |d: &Vec<Tensor>| d.iter().map(|t| t.unsqueeze(0)).collect();
        let vectors = self.directions.iter().map(unsqueezed);
        let vectors = vectors.collect::<candle_core::Result<Vec<Vec<Tensor>>>>()?;
        let requests = self.blocks.iter().zip(&vectors);
        let requests: Vec<LayerVectors> =
            requests.map(|(layer, vectors)| LayerVectors { layer, vectors }).collect();
        Ok(self.objective.quadratic_forms(&self.examples, &requests, Matrix::Hessian)?)
    }

    /// Checks the gradient against the change of the loss along it, and the sweep against single
    /// products.
    pub fn verify(&self) -> Outcome<()> {
        let found = self.objective.gradient(&self.examples, &self.all)?;
        let square = planish::vector::dot(&found.gradient, &found.gradient)?;
        let step = 1e-3 / square.sqrt();
        let at = |t: f64| -> Outcome<f64> {
            let shifted = moved(&self.objective, &self.all, &found.gradient, t)?;
            let logits = shifted.predict(&self.examples)?;
            let losses = planish::evaluate::losses(&logits, 1.0);
            Ok(losses.iter().sum::<f64>() / losses.len() as f64)
        };
        let slope = (at(-step)? - at(step)?) / (2.0 * step);
        if (slope / square - 1.0).abs() > 0.02 {
            return Err(format!("gᵀg is {square}, the loss falls by {slope}").into());
        }
        for (i, found) in self.curvatures()?.iter().enumerate() {
            let alone = planish::vector::dot(&self.directions[i], &self.hvp(i)?)?;
            let size = planish::vector::norm(&self.directions[i])?.powi(2);
            if (found - alone).abs() > 1e-4 * found.abs().max(1e-3 * size) {
                return Err(format!("block.{i}: {found} in the sweep, {alone} alone").into());
            }
        }
        Ok(())
    }
}
