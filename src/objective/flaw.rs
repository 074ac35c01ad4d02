//! Where a product first was not finite.

use super::derivatives::Wanted;
use super::{Error, Examples, Objective, Result};
use crate::tape::{Flaw, Tape};
use crate::vit::stage_name;
use std::sync::{Arc, OnceLock};

/// Takes the sweeps again, one micro-batch after the other, looking at every number, and tells the
/// operation in which one first is not finite.
pub(super) fn locate(
    objective: &Objective,
    examples: &dyn Examples,
    wanted: Wanted,
) -> Result<Error> {
    let named = |from, to, flaw: Option<Flaw>| Error::NonFiniteProduct {
        layer: wanted.layer.name.clone(),
        from,
        to,
        way: if flaw.is_some_and(|f| !f.backward) { "on the way up" } else { "on the way back" },
        op: flaw.map_or("sum of micro-batches", |f| f.op),
        place: flaw.map_or("all stages".into(), |f| stage_name(&objective.config, f.stage)),
    };
    let objective = objective.placed()?;
    for range in objective.even_chunks(examples)? {
        let found = Arc::new(OnceLock::new());
        objective.sweep(examples, wanted, range.clone(), Tape::looking(found.clone()))?;
        if let Some(&flaw) = found.get() {
            return Ok(named(range.start, range.end, Some(flaw)));
        }
    }
    Ok(named(0, examples.len(), None))
}
