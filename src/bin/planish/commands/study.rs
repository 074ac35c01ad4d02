//! `planish study`: many models on many data sets and shifts, each cell computed once.

use crate::args::Common;
use crate::commands::study_merge::join;
use crate::render::print;
use anyhow::bail;
use planish::engine::EngineOptions;
use planish::error::Result;
use planish::format::duration;
use planish::output;
use planish::session::Context;
use planish::study::{
    CELLS, Cell, CellKind, Entry, Log, PLAN, Setup, Share, StudyPlan, TABLES, Table, all, compute,
    counted, differing, earlier, parse, plan, read, read_log, set_aside, tables,
};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// Arguments of `planish study`.
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub struct Args {
    /// Study file (TOML)
    #[arg(value_name = "FILE", required_unless_present = "merge", conflicts_with = "merge")]
    pub file: Option<PathBuf>,
    /// Results folder [default: as in the file, or the file's name without .toml]
    ///
    /// With --shard 3/16, the default name ends in -3-of-16.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Compute only this part of the cells, such as 3/16.
    ///
    /// Each shard has a results folder of its own; --merge joins them.
    #[arg(long, value_name = "I/N", default_value_t = Share::default())]
    pub shard: Share,
    /// Join the results folders of shards into the folder OUT.
    ///
    /// Cells that are already in OUT count as one more shard.
    #[arg(
        long,
        num_args = 2..,
        value_names = ["OUT", "SHARD"],
        conflicts_with_all = ["out", "shard", "only", "dry_run"]
    )]
    pub merge: Vec<PathBuf>,
    /// With --merge: join even if some cells are missing from all folders
    #[arg(long, requires = "merge")]
    pub partial: bool,
    /// Recompute one cell and print its row (repeatable).
    ///
    /// DIGEST is the cell's digest or the beginning of it.
    #[arg(long, value_name = "DIGEST", conflicts_with = "shard")]
    pub only: Vec<String>,
    /// Print how many cells there are and how many are missing, and exit
    #[arg(long)]
    pub dry_run: bool,
    /// Number of threads [default: all]
    #[arg(long, value_name = "N", help_heading = "Common options")]
    pub threads: Option<NonZeroUsize>,
    #[command(flatten)]
    pub engine: EngineOptions,
    /// Do not print progress
    #[arg(long, help_heading = "Common options")]
    pub quiet: bool,
}

const HELP: &str = "Examples:
  planish study models.toml
  planish study models.toml --shard 1/2 --out a
  planish study models.toml --shard 2/2 --out b
  planish study --merge all a b

models.toml contains, with paths as on the command line:
  shifts = [\"corruptions:fog,contrast:1,3,5\"]
  [[model]]
  name = \"small\"
  checkpoint = \"small/\"
  attributes = { width = 64 }
  [[data]]
  name = \"fashion\"
  source = \"fashion-mnist/\"
  [[ood]]
  name = \"digits\"
  source = \"mnist/\"
  [[bench]]
  name = \"pairs\"
  methods = [\"pol\", \"pof\"]
  pairs = \"all\"
  seeds = [0, 1, 2]
  diagnose = true
  grid = { lr = [0.01, 0.1], gamma = 2, epochs = 5 }";

/// Computes the missing cells and writes the tables.
///
/// # Errors
/// The study file is invalid, or a checkpoint, data set or output cannot be used.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some((out, shards)) = args.merge.split_first() {
        return join(out, shards, args.partial);
    }
    let Some(path) = &args.file else { bail!("expected a study file, found none") };
    let text = read(path)?;
    let file = parse(&text)?;
    let out = folder(args, path, file.out.as_deref())?;
    let common = Common {
        threads: args.threads,
        engine: args.engine,
        seed: file.seed,
        json: None,
        quiet: args.quiet,
    };
    let setup = Setup::new(text, file)?;
    output::check(&out.join(PLAN))?;
    spare(&out)?;
    let running = common.start()?;
    let terminal = common.terminal();
    let context = common.context(&running, &terminal);
    let cells = all(&setup, &context)?;
    let plan = plan(&cells, args.shard);
    let own = &cells[args.shard.range(cells.len())];
    if args.dry_run {
        let there = match out.join(CELLS).exists() && earlier(&out)?.is_none() {
            true => read_log(&out)?,
            false => HashMap::new(),
        };
        let missing = missing(own, |cell| there.contains_key(cell));
        return Ok(print(&forecast(&cells, (own, args.shard), &missing, &there))?);
    }
    if let Some(old) = set_aside(&out)? {
        common.say(&format!(
            "note: {} contains cells of an earlier version of planish; they are ignored and \
             recomputed",
            old.display()
        ));
        output::write_json(&out.join(PLAN), &plan)?;
    }
    if !args.only.is_empty() {
        return again(args, &setup, (&cells, &plan), &out, &common, &context);
    }
    let mut log = Log::open(&out)?;
    output::write_json(&out.join(PLAN), &plan)?;
    let missing = missing(own, |cell| log.get(cell).is_some());
    common.say(&forecast(&cells, (own, args.shard), &missing, log.entries()));
    compute(&setup, &missing, &context, &mut |entry| {
        log.add(&entry)?;
        Ok(())
    })?;
    let written = write(&out, &plan, log.entries())?;
    Ok(print(&written)?)
}

/// The results folder.
fn folder(args: &Args, file: &Path, named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let own = file.with_extension("");
    let whole = named.unwrap_or(&own);
    // Processes that compute different shards at the same time need different folders.
    let out = args.out.clone().unwrap_or_else(|| args.shard.folder(whole));
    if out.exists() && !out.is_dir() {
        bail!("{}: expected a results folder, found a file; pass --out", out.display())
    }
    Ok(out)
}

/// Rejects a folder with files named like tables that no study wrote.
///
/// # Errors
/// The folder contains such files.
pub fn spare(out: &Path) -> anyhow::Result<()> {
    if out.join(PLAN).exists() {
        return Ok(());
    }
    let files = TABLES.iter().flat_map(|name| [format!("{name}.jsonl"), format!("{name}.csv")]);
    match files.map(|name| out.join(name)).find(|path| path.exists()) {
        Some(found) => bail!(
            "{}: expected the folder of a study or a new folder, found {} but no {PLAN}; the file \
             would be overwritten; choose another folder",
            out.display(),
            found.display()
        ),
        None => Ok(()),
    }
}

/// Missing cells, each once.
fn missing(cells: &[Cell], there: impl Fn(&str) -> bool) -> Vec<&Cell> {
    let mut seen = HashSet::new();
    let new = |c: &&Cell| !there(&c.planned.cell) && seen.insert(c.planned.cell.clone());
    cells.iter().filter(new).collect()
}

/// The numbers of all and of missing cells, and the expected time of the missing ones, from the
/// mean time of finished cells of the same kind.
fn forecast(
    cells: &[Cell],
    (own, share): (&[Cell], Share),
    missing: &[&Cell],
    there: &HashMap<String, Entry>,
) -> String {
    let of_kind = |of: &CellKind| own.iter().filter(|c| c.planned.kind() == *of).count();
    let counted: Vec<String> = CellKind::ALL
        .iter()
        .map(|kind| (*kind, of_kind(kind)))
        .filter(|(_, n)| *n > 0)
        .map(|(kind, n)| counted(kind, n))
        .collect();
    let of = match share == Share::default() {
        true => String::new(),
        false => format!(" (shard {share} of {})", cells.len()),
    };
    let mean = |kind: CellKind| {
        let known = there.values().filter(|e| e.kind() == kind).map(|e| e.seconds);
        let (sum, n) = known.fold((0.0, 0.0), |(sum, n), s| (sum + s, n + 1.0));
        (n > 0.0).then_some(sum / n)
    };
    let seconds: Option<f64> = missing.iter().map(|c| mean(c.planned.kind())).sum();
    let time = match seconds.filter(|s| *s > 0.0) {
        Some(seconds) => format!(", about {} at the rate of the finished cells", duration(seconds)),
        None => String::new(),
    };
    let counted = counted.join(", ");
    format!("{} cells{of}: {counted}; {} are missing{time}", own.len(), missing.len())
}

/// Recomputes the named cells, compares them with the log, and prints their rows.
fn again(
    args: &Args,
    setup: &Setup,
    (cells, plan): (&[Cell], &StudyPlan),
    out: &Path,
    common: &Common,
    context: &Context,
) -> anyhow::Result<()> {
    let mut chosen: Vec<&Cell> = Vec::new();
    for name in &args.only {
        let found: Vec<&Cell> = missing(cells, |_| false)
            .into_iter()
            .filter(|c| c.planned.cell.starts_with(name))
            .collect();
        match found.as_slice() {
            [one] => chosen.push(one),
            many => bail!(
                "--only {name}: expected the digest of one cell of this study, found {}; see the \
                 column `cell` of the tables",
                many.len()
            ),
        }
    }
    let mut log = Log::open(out)?;
    let mut fresh = HashMap::new();
    compute(setup, &chosen, context, &mut |entry: Entry| -> Result<()> {
        // Round-trip through JSON, as the entries of the log did.
        let entry: Entry = serde_json::from_str(&serde_json::to_string(&entry)?)?;
        if let Some(known) = log.get(&entry.cell)
            && let Some((figure, before, now)) = differing(known, &entry)
        {
            return Err(planish::study::Error::Recomputed {
                cell: entry.cell.clone(),
                figure,
                before,
                now,
                folder: out.into(),
            }
            .into());
        }
        if log.get(&entry.cell).is_none() {
            log.add(&entry)?;
        } else {
            common.say(&format!("cell {}: same results as before", entry.cell));
        }
        fresh.insert(entry.cell.clone(), entry);
        Ok(())
    })?;
    let rows: String = tables(plan, &fresh)?.iter().map(Table::jsonl).collect();
    Ok(print(&rows)?)
}

/// Writes every table as JSON Lines and as CSV, and returns a summary.
///
/// # Errors
/// A file cannot be written.
pub fn write(
    out: &Path,
    plan: &StudyPlan,
    entries: &HashMap<String, Entry>,
) -> anyhow::Result<String> {
    let tables = tables(plan, entries)?;
    let wanted: HashSet<&str> = plan.cells.iter().map(|p| p.cell.as_str()).collect();
    let there = wanted.iter().filter(|cell| entries.contains_key(**cell)).count();
    let mut said = match wanted.len() - there {
        0 => format!("all {there} cells present\n"),
        n => format!("{there} cells present, {n} missing\n"),
    };
    for name in TABLES {
        let (json, csv) = (out.join(format!("{name}.jsonl")), out.join(format!("{name}.csv")));
        match tables.iter().find(|table| table.name == name) {
            Some(table) => {
                output::write(&json, table.jsonl().as_bytes())?;
                output::write(&csv, &table.csv()?)?;
                said += &format!("{} rows in {} and .csv\n", table.rows.len(), json.display());
            }
            // Remove a table left by an earlier plan.
            None => {
                for path in [json, csv].iter().filter(|path| path.exists()) {
                    std::fs::remove_file(path)
                        .map_err(|source| output::Error::Refused { path: path.clone(), source })?;
                }
            }
        }
    }
    Ok(said)
}
