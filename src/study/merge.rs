//! The parts of a study, joined.

use super::{CELLS, Entry, Error, PLAN, Plan, Result, differing, read_log};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A plan with the cells that several folders hold of it.
#[derive(Debug)]
pub struct Merged {
    /// What the study wants.
    pub plan: Plan,
    /// What there is.
    pub entries: HashMap<String, Entry>,
}

impl Merged {
    /// The log in the plan's order, and how many of its cells it lacks.
    ///
    /// # Errors
    /// A cell that has no JSON form.
    pub fn log(&self) -> serde_json::Result<(String, usize)> {
        let (mut text, mut missing) = (String::new(), 0);
        let mut done = std::collections::HashSet::new();
        for planned in self.plan.cells.iter().filter(|p| done.insert(&p.cell)) {
            match self.entries.get(&planned.cell) {
                Some(entry) => text += &(serde_json::to_string(entry)? + "\n"),
                None => missing += 1,
            }
        }
        Ok((text, missing))
    }
}

/// Joins the folders of one study. Of a cell that several hold, the first folder's is taken, time
/// and all; cells that the plan does not want are left out.
///
/// # Errors
/// [`Error::OtherStudy`] for plans that differ; [`Error::Conflict`] for a cell of which two folders
/// hold different figures; those of reading.
pub fn merge(folders: &[PathBuf]) -> Result<Merged> {
    let mut merged: Option<(PathBuf, Plan)> = None;
    let mut entries: HashMap<String, (usize, Entry)> = HashMap::new();
    for (i, folder) in folders.iter().enumerate() {
        let plan = Plan::read(folder)?;
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
    let plan = merged.map_or_else(Plan::default, |(_, plan)| plan);
    let wanted: std::collections::HashSet<&str> =
        plan.cells.iter().map(|p| p.cell.as_str()).collect();
    entries.retain(|cell, _| wanted.contains(cell.as_str()));
    let entries = entries.into_iter().map(|(cell, (_, entry))| (cell, entry)).collect();
    Ok(Merged { plan, entries })
}

fn agree(a: &Path, known: &Entry, b: &Path, entry: &Entry) -> Result<()> {
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
