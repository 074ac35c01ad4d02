//! One study: its file, its folder and its cells.

use super::{
    CELLS, Cell, CellKind, Error as StudyError, Log, LogEntry, MergedStudy, PLAN, Setup, Share,
    StudyPlan, TABLES, Table, all, compute, differing, earlier, merge, parse, plan, read, read_log,
    set_aside, tables,
};
use crate::error::Result;
use crate::output;
use crate::session::Context;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// A study with its cells, or a share of them, ready to run.
pub struct StudySession {
    /// The parsed study file.
    pub setup: Setup,
    /// The results folder.
    pub folder: PathBuf,
    /// The part of the cells that this session computes.
    pub share: Share,
    /// All cells, in the study's order.
    pub cells: Vec<Cell>,
    /// Their plan.
    pub plan: StudyPlan,
}

/// The cells of a study that are missing, and the time that they take.
#[derive(Clone, Debug, PartialEq)]
pub struct StudyOutlook {
    /// Number of cells of the share, by kind; kinds without cells are left out.
    pub kinds: Vec<(CellKind, usize)>,
    /// Number of these cells that are missing.
    pub missing: usize,
    /// Number of cells of the whole study.
    pub whole: usize,
    /// Expected time of the missing cells, from the mean time of finished cells of the same kind.
    /// `None` if a kind has no finished cell.
    pub seconds: Option<f64>,
}

/// The tables of a study, as written to its folder.
#[derive(Clone, Debug, PartialEq)]
pub struct StudyTables {
    /// Number of cells in the log.
    pub finished: usize,
    /// Number of cells that are missing.
    pub missing: usize,
    /// Each table's file of JSON Lines, and its number of rows. The same rows are beside it as CSV.
    pub tables: Vec<(PathBuf, usize)>,
}

impl StudySession {
    /// Reads a study file, and opens all its checkpoints and images. Results go to the folder `out`;
    /// without it, to the one that the file names, or to the file's name without `.toml`, each with the
    /// share in its name. The seed is the file's.
    ///
    /// # Errors
    /// An invalid study file; a folder whose files would be overwritten; anything wrong with a
    /// checkpoint or with images.
    pub fn prepare(
        file: &Path,
        out: Option<&Path>,
        share: Share,
        context: &Context,
    ) -> Result<Self> {
        let text = read(file)?;
        let parsed = parse(&text)?;
        let own = file.with_extension("");
        let whole = parsed.out.as_deref().unwrap_or(&own);
        // Processes that compute different shares at the same time need different folders.
        let folder = out.map_or_else(|| share.folder(whole), Path::to_path_buf);
        if folder.exists() && !folder.is_dir() {
            return Err(StudyError::NoFolder { path: folder }.into());
        }
        let setup = Setup::new(text, parsed)?;
        output::check(&folder.join(PLAN))?;
        spare(&folder)?;
        let cells = all(&setup, &Context { seed: setup.file.seed, ..*context })?;
        let plan = plan(&cells, share);
        Ok(Self { setup, folder, share, cells, plan })
    }

    /// What is finished in the folder, and what is left.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub fn outlook(&self) -> Result<StudyOutlook> {
        let readable = self.folder.join(CELLS).exists() && earlier(&self.folder)?.is_none();
        let finished = if readable { read_log(&self.folder)? } else { HashMap::new() };
        let own = self.own();
        let count = |kind: CellKind| own.iter().filter(|c| c.planned.kind() == kind).count();
        let kinds = CellKind::ALL.map(|kind| (kind, count(kind)));
        let mean = |kind: CellKind| {
            let known = finished.values().filter(|e| e.kind() == kind).map(|e| e.seconds);
            let (sum, n) = known.fold((0.0, 0.0), |(sum, n), s| (sum + s, n + 1.0));
            (n > 0.0).then_some(sum / n)
        };
        let missing = missing(own, |cell| finished.contains_key(cell));
        Ok(StudyOutlook {
            kinds: kinds.into_iter().filter(|(_, n)| *n > 0).collect(),
            missing: missing.len(),
            whole: self.cells.len(),
            seconds: missing.iter().map(|cell| mean(cell.planned.kind())).sum(),
        })
    }

    /// Computes the missing cells, each stored as soon as it is done, and writes the tables.
    ///
    /// # Errors
    /// Another process that writes this study; those of [`compute`]; a file that cannot be written.
    pub fn run(&self, context: &Context) -> Result<StudyTables> {
        let context = Context { seed: self.setup.file.seed, ..*context };
        let mut log = self.open_log(&context)?;
        output::write_json(&self.folder.join(PLAN), &self.plan)?;
        let missing = missing(self.own(), |cell| log.get(cell).is_some());
        compute(&self.setup, &missing, &context, &mut |entry| {
            log.add(&entry)?;
            Ok(())
        })?;
        write(&self.folder, &self.plan, log.entries())
    }

    /// Computes these cells again, given by their digests or the beginnings of them, and compares them
    /// with the log. Returns their rows.
    ///
    /// # Errors
    /// A name that is not one cell's; a result that differs from the log; those of [`compute`].
    pub fn recompute(&self, digests: &[String], context: &Context) -> Result<Vec<Table>> {
        let context = Context { seed: self.setup.file.seed, ..*context };
        let mut chosen: Vec<&Cell> = Vec::new();
        let cells = missing(&self.cells, |_| false);
        for digest in digests {
            let found = cells.iter().filter(|c| c.planned.cell.starts_with(digest));
            match found.collect::<Vec<_>>().as_slice() {
                [one] => chosen.push(one),
                many => {
                    let (digest, found) = (digest.clone(), many.len());
                    return Err(StudyError::NoCell { digest, found }.into());
                }
            }
        }
        let mut log = self.open_log(&context)?;
        let mut fresh = HashMap::new();
        compute(&self.setup, &chosen, &context, &mut |entry: LogEntry| -> Result<()> {
            // Through JSON, as the entries of the log went.
            let entry: LogEntry = serde_json::from_str(&serde_json::to_string(&entry)?)?;
            match log.get(&entry.cell) {
                None => {
                    log.add(&entry)?;
                }
                Some(known) => {
                    if let Some((figure, before, now)) = differing(known, &entry) {
                        let (cell, folder) = (entry.cell.clone(), self.folder.clone());
                        let changed = StudyError::Recomputed { cell, figure, before, now, folder };
                        return Err(changed.into());
                    }
                    context.info(&format!("cell {}: same results as before", entry.cell));
                }
            }
            fresh.insert(entry.cell.clone(), entry);
            Ok(())
        })?;
        Ok(tables(&self.plan, &fresh)?)
    }

    /// The cells of the share.
    fn own(&self) -> &[Cell] {
        &self.cells[self.share.range(self.cells.len())]
    }

    /// Opens the log. Renames one of an earlier version first.
    fn open_log(&self, context: &Context) -> Result<Log> {
        if let Some(old) = set_aside(&self.folder)? {
            context.note(&format!(
                "{} contains cells of an earlier version of planish; they are ignored and recomputed",
                old.display()
            ));
            output::write_json(&self.folder.join(PLAN), &self.plan)?;
        }
        Ok(Log::open(&self.folder)?)
    }
}

/// Joins the folders of a study's shares into the folder `out`, and writes the tables. Cells that are
/// already in `out` count as one more share.
///
/// # Errors
/// Folders of different studies; missing cells, unless the result may be `partial`; two folders that
/// disagree on a cell; a file that cannot be read or written.
pub fn join(out: &Path, shares: &[PathBuf], partial: bool) -> Result<StudyTables> {
    output::check(&out.join(PLAN))?;
    spare(out)?;
    let mut folders = shares.to_vec();
    // The lock keeps other writers out until the tables are written.
    let mut lock = None;
    if out.join(CELLS).exists() {
        if out.join(PLAN).exists() {
            // Names a folder of an earlier version.
            StudyPlan::read(out)?;
        }
        lock = Some(Log::open(out)?);
        if !folders.iter().any(|folder| folder == out) {
            folders.push(out.to_path_buf());
        }
    }
    let merged = merge(&folders)?;
    if !partial {
        merged.whole()?;
    }
    let (log, _) = merged.log()?;
    let MergedStudy { plan, entries, .. } = merged;
    output::write(&out.join(CELLS), log.as_bytes())?;
    output::write_json(&out.join(PLAN), &plan)?;
    let written = write(out, &plan, &entries)?;
    drop(lock);
    Ok(written)
}

/// Rejects a folder with files named like tables that no study wrote.
fn spare(folder: &Path) -> Result<(), StudyError> {
    if folder.join(PLAN).exists() {
        return Ok(());
    }
    let files = TABLES.iter().flat_map(|name| table_files(folder, name));
    match files.into_iter().find(|path| path.exists()) {
        Some(file) => Err(StudyError::Occupied { folder: folder.into(), file }),
        None => Ok(()),
    }
}

/// The JSON Lines and the CSV of a table.
fn table_files(folder: &Path, name: &str) -> [PathBuf; 2] {
    ["jsonl", "csv"].map(|end| folder.join(format!("{name}.{end}")))
}

/// The cells that are missing, each once.
fn missing(cells: &[Cell], there: impl Fn(&str) -> bool) -> Vec<&Cell> {
    let mut seen = HashSet::new();
    let new = |c: &&Cell| !there(&c.planned.cell) && seen.insert(c.planned.cell.clone());
    cells.iter().filter(new).collect()
}

/// Writes every table as JSON Lines and as CSV, and removes those that an earlier plan left.
fn write(
    folder: &Path,
    plan: &StudyPlan,
    entries: &HashMap<String, LogEntry>,
) -> Result<StudyTables> {
    let tables = tables(plan, entries)?;
    let wanted: HashSet<&str> = plan.cells.iter().map(|p| p.cell.as_str()).collect();
    let finished = wanted.iter().filter(|cell| entries.contains_key(**cell)).count();
    let mut written = Vec::new();
    for name in TABLES {
        let [json, csv] = table_files(folder, name);
        match tables.iter().find(|table| table.name == name) {
            Some(table) => {
                output::write(&json, table.jsonl().as_bytes())?;
                output::write(&csv, &table.csv()?)?;
                written.push((json, table.rows.len()));
            }
            None => {
                for path in [json, csv].iter().filter(|path| path.exists()) {
                    std::fs::remove_file(path)
                        .map_err(|source| output::Error::Refused { path: path.clone(), source })?;
                }
            }
        }
    }
    Ok(StudyTables { finished, missing: wanted.len() - finished, tables: written })
}
