//! Merges the parts of a study.

use super::{CELLS, Error, LogEntry, PLAN, Planned, Result, Share, StudyPlan, differing, read_log};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// A plan with the cells found in several folders.
#[derive(Debug)]
pub struct MergedStudy {
    /// The plan.
    pub plan: StudyPlan,
    /// The cells found.
    pub entries: HashMap<String, LogEntry>,
    /// The share of one of the folders, if any has one. It shows into how many parts the study was
    /// split.
    pub share: Option<Share>,
}

/// Maximum number of ranges of missing cells in an error message.
const NAMED: usize = 8;

impl MergedStudy {
    /// Checks that every cell of the plan is present.
    ///
    /// # Errors
    /// [`Error::Missing`], with the positions of the missing cells.
    pub fn whole(&self) -> Result<()> {
        let cells = &self.plan.cells;
        let mut seen = HashSet::new();
        let gone = |p: &Planned| !self.entries.contains_key(&p.cell);
        let missing: Vec<usize> =
            (0..cells.len()).filter(|&i| gone(&cells[i]) && seen.insert(&cells[i].cell)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let shard = |i: usize| self.share.and_then(|share| share.holding(i, cells.len()));
        let next = |a: &usize, b: &usize| *b == a + 1 && shard(*a) == shard(*b);
        let stretches: Vec<&[usize]> = missing.chunk_by(next).collect();
        let told = |stretch: &&[usize]| {
            let (first, last) = (stretch[0] + 1, stretch[stretch.len() - 1] + 1);
            let range =
                if first == last { first.to_string() } else { format!("{first} to {last}") };
            match shard(stretch[0]) {
                Some(share) => format!("{range} (shard {share})"),
                None => range,
            }
        };
        let mut places: Vec<String> = stretches.iter().take(NAMED).map(told).collect();
        if let more @ 1.. = stretches.len().saturating_sub(NAMED) {
            places.push(format!("and {more} more ranges"));
        }
        let wanted: HashSet<&str> = cells.iter().map(|p| p.cell.as_str()).collect();
        Err(Error::Missing {
            missing: missing.len(),
            cells: wanted.len(),
            places: places.join(", "),
        })
    }

    /// The log in the plan's order, and the number of missing cells.
    ///
    /// # Errors
    /// A cell that JSON cannot represent.
    pub fn log(&self) -> serde_json::Result<(String, usize)> {
        let (mut text, mut missing) = (String::new(), 0);
        let mut done = HashSet::new();
        for planned in self.plan.cells.iter().filter(|p| done.insert(&p.cell)) {
            match self.entries.get(&planned.cell) {
                Some(entry) => text += &(serde_json::to_string(entry)? + "\n"),
                None => missing += 1,
            }
        }
        Ok((text, missing))
    }
}

/// Merges the folders of one study. If several folders have the same cell, the first one is used,
/// including its run time. Cells that are not in the plan are dropped.
///
/// # Errors
/// [`Error::OtherStudy`] for plans that differ; [`Error::Conflict`] for a cell with different
/// values in two folders; those of reading.
pub fn merge(folders: &[PathBuf]) -> Result<MergedStudy> {
    let mut merged: Option<(PathBuf, StudyPlan)> = None;
    let mut entries: HashMap<String, (usize, LogEntry)> = HashMap::new();
    let mut share = None;
    for (i, folder) in folders.iter().enumerate() {
        let mut plan = StudyPlan::read(folder)?;
        // The share does not affect the plan of the whole study.
        share = share.or(plan.shard.take().and_then(|text| text.parse().ok()));
        match &merged {
            None => merged = Some((folder.clone(), plan)),
            Some((first, known)) => {
                if let Some(what) = known.differs(&plan) {
                    let (a, b) = (first.join(PLAN), folder.join(PLAN));
                    return Err(Error::OtherStudy { a, b, what });
                }
            }
        }
        for (cell, entry) in read_log(folder)? {
            if let Some((from, known)) = entries.get(&cell) {
                agree(&folders[*from], known, folder, &entry)?;
            } else {
                entries.insert(cell, (i, entry));
            }
        }
    }
    let plan = merged.map_or_else(StudyPlan::default, |(_, plan)| plan);
    let wanted: HashSet<&str> = plan.cells.iter().map(|p| p.cell.as_str()).collect();
    entries.retain(|cell, _| wanted.contains(cell.as_str()));
    let entries = entries.into_iter().map(|(cell, (_, entry))| (cell, entry)).collect();
    Ok(MergedStudy { plan, entries, share })
}

fn agree(a: &Path, known: &LogEntry, b: &Path, entry: &LogEntry) -> Result<()> {
    match differing(known, entry) {
        None => Ok(()),
        Some((figure, found_a, found_b)) => Err(Error::Conflict {
            cell: entry.cell.clone(),
            figure,
            a: a.join(CELLS),
            found_a,
            b: b.join(CELLS),
            found_b,
        }),
    }
}
