//! Forecasts a bench from one run of each row.

use super::{BenchRunner, BenchSession, RunForecast};
use crate::cache::CacheMode;
use crate::forecast::{Expected, Need, Part};
use crate::session::Context;
use std::collections::HashSet;

/// See [`BenchSession::outlook`].
pub(super) fn forecast<R: BenchRunner>(
    session: &BenchSession<R>,
    runner: &R,
    began: f64,
    context: &Context,
) -> Result<Expected, R::Error> {
    let mut parts = vec![Part::new("so far", Need::default().after(began))];
    parts.extend(session.planned.as_ref().and_then(|plan| plan.diagnosis_ahead.clone()));
    let mut keys = HashSet::new();
    let task = context.task("forecast", session.rows.len() as u64, "runs");
    for row in &session.rows {
        let run = session.of(row, session.seed);
        let RunForecast { expected, cache } = runner.forecast(&run, context)?;
        let again = expected.seconds_of("layers measured again");
        let frozen = expected.seconds_of("frozen layers");
        // Only the first run that freezes these layers writes cache files.
        let (each, once) = match cache.filter(|cache| cache.mode == CacheMode::Disk) {
            Some(cache) => {
                let fresh = cache.keys.iter().filter(|key| keys.insert((*key).clone())).count();
                (0.0, frozen * fresh as f64 / cache.keys.len().max(1) as f64)
            }
            None => (frozen, 0.0),
        };
        let others = expected.seconds - again - frozen;
        let seconds = session.options.seeds as f64 * (others + each) + once + again;
        parts.push(Part::new(&row.name, Need { seconds, mib: expected.peak_mib }));
        task.advance(1);
    }
    Ok(Expected::of(parts))
}
