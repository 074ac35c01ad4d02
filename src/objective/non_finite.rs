//! Locates the first NaN or infinity of a product.

use super::derivatives::DerivativeRequest;
use super::{Error, Examples, Objective, Result};
use crate::tape::{NonFinite, Tape};
use std::sync::{Arc, OnceLock};

/// Repeats the sweep one micro-batch at a time with every number checked, and returns an error that
/// names the operation where the first NaN or infinity appears.
pub(super) fn locate(
    objective: &Objective,
    examples: &dyn Examples,
    request: DerivativeRequest,
) -> Result<Error> {
    let named = |from, to, found: Option<NonFinite>| Error::NonFiniteProduct {
        layer: request.layer.name.clone(),
        from,
        to,
        way: if found.is_some_and(|f| !f.backward) { "forward" } else { "backward" },
        op: found.map_or("sum of micro-batches", |f| f.op),
        place: found.map_or("all stages".into(), |f| objective.network.stage_name(f.stage)),
    };
    let objective = objective.on_device()?;
    for range in objective.even_chunks(examples)? {
        let found = Arc::new(OnceLock::new());
        objective.sweep(examples, request, range.clone(), Tape::checking_finite(found.clone()))?;
        if let Some(&first) = found.get() {
            return Ok(named(range.start, range.end, Some(first)));
        }
    }
    Ok(named(0, examples.len(), None))
}
