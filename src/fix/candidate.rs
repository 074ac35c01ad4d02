//! The moves of a fix as one candidate among the recipes of [`crate::post_train::search()`].

use super::{FixOptions, FixPlan, FixSearch, FixSession, Fixed};
use crate::calibrate::check_head;
use crate::checkpoint::Checkpoint;
use crate::data::DataOptions;
use crate::error::{Error, Result};
use crate::forecast::Expected;
use crate::post_train::Place;
use crate::post_train::search::Tried;
use crate::session::Context;
use std::time::Instant;

/// Moves that were found on V, and what is needed to apply them.
pub struct FixCandidate {
    /// The fix.
    pub session: FixSession,
    /// Its row in the search.
    pub tried: Tried,
    plan: FixPlan,
    search: FixSearch,
}

impl FixCandidate {
    /// Searches for moves in at most `seconds`; test images are not read. `None`, after a line to the
    /// observer, if no move is eligible, if no round fits, or if the head cannot hold a temperature.
    ///
    /// # Errors
    /// Those of [`FixSession::prepare`] and [`FixSession::search`].
    pub fn find(
        options: &FixOptions,
        checkpoint: &Checkpoint,
        data: &DataOptions,
        seconds: f64,
        context: &Context,
    ) -> Result<Option<Self>> {
        if check_head(&checkpoint.network).is_err() {
            context.info("search: no moves, because the head is not linear");
            return Ok(None);
        }
        let clock = Instant::now();
        // The session of the chosen candidate gives its notes.
        let silent = context.silenced();
        let (checkpoint, place) = (checkpoint.clone(), Place::Nowhere);
        let mut session = FixSession::prepare(options, checkpoint, data, &place, &silent)?;
        let plan = match session.plan_without_budget(clock.elapsed().as_secs_f64(), context) {
            Err(Error::Memory(reason)) => {
                context.info(&format!("search: no moves: {reason}"));
                return Ok(None);
            }
            plan => plan?,
        };
        let Some(plan) = session.plan_within(plan, seconds)? else {
            context.info(
                "search: no moves, because measuring them would take more than half of the time",
            );
            return Ok(None);
        };
        let search = match session.search(&plan, Some(seconds), context) {
            Err(Error::Refused(reason)) => {
                context.info(&format!("search: no moves: {reason}"));
                return Ok(None);
            }
            search => search?,
        };
        if search.steps.is_empty() {
            if let Some(look) = search.looks.first() {
                context.info(&format!("search: {}", look.sentence()));
            }
            return Ok(None);
        }
        let steps: Vec<String> = search
            .steps
            .iter()
            .map(|step| format!("{} α={}", step.found.label(), step.alpha))
            .collect();
        let compared = session.compared(&search, context)?;
        let tried = Tried::of_moves(steps.join(", "), &compared, clock.elapsed().as_secs_f64());
        Ok(Some(Self { session, tried, plan, search }))
    }

    /// Applies the moves, writes the checkpoint and measures it, as [`FixSession::run`] does.
    ///
    /// # Errors
    /// An output that cannot be written; those of [`FixSession::apply`].
    pub fn apply(self, place: &Place, context: &Context) -> Result<(FixSession, Fixed, Expected)> {
        let session = self.session.writing_to(place, context)?;
        let fixed = session.apply(self.search, context)?;
        Ok((session, fixed, self.plan.expected))
    }
}
