//! `planish cache`: the cached activations of frozen layers.

use crate::render::print;
use crate::render::table::{Align, Style, Table};
use indicatif::HumanBytes;
use planish::cache::{CacheFile, CacheFileKind, clear, default_folder, list};
use planish::format::{count, duration};
use planish::options::text::days;
use std::path::PathBuf;
use std::time::Duration;

/// Options of `cache`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  planish cache list\n  planish cache clear --unused-for 30")]
pub struct Args {
    /// The subcommand.
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// List the files with size, age, model and data
    List {
        /// Cache folder [default: planish in the user's cache folder]
        #[arg(long, value_name = "DIR")]
        cache_dir: Option<PathBuf>,
    },
    /// Remove the files, except those being written
    Clear {
        /// Cache folder [default: planish in the user's cache folder]
        #[arg(long, value_name = "DIR")]
        cache_dir: Option<PathBuf>,
        /// Only remove files that were not used for this many days
        #[arg(long, value_name = "DAYS", default_value = "0", value_parser = days)]
        unused_for: Duration,
    },
}

/// Runs the command.
///
/// # Errors
/// The folder cannot be listed, or a file cannot be removed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let folder = |given: &Option<PathBuf>| given.clone().map_or_else(default_folder, Ok);
    match &args.command {
        Command::List { cache_dir } => {
            let folder = folder(cache_dir)?;
            let entries = list(&folder)?;
            let bytes = HumanBytes(entries.iter().map(|entry| entry.bytes).sum());
            let total = format!("{}: {} files, {bytes}", folder.display(), entries.len());
            let text =
                if entries.is_empty() { total } else { format!("{}\n{total}", table(&entries)) };
            Ok(print(&text)?)
        }
        Command::Clear { cache_dir, unused_for } => {
            let folder = folder(cache_dir)?;
            let (files, bytes) = clear(&folder, *unused_for)?;
            let bytes = HumanBytes(bytes);
            Ok(print(&format!("{}: {files} files removed, {bytes}", folder.display()))?)
        }
    }
}

fn table(entries: &[CacheFile]) -> String {
    let mut table = Table::new(&[
        ("key", Align::Left),
        ("size", Align::Right),
        ("last used", Align::Right),
        ("images", Align::Right),
        ("type", Align::Left),
        ("input of", Align::Left),
        ("view", Align::Left),
        ("model", Align::Left),
        ("data", Align::Left),
    ]);
    for entry in entries {
        let name = entry.path.file_name().unwrap_or_default().to_string_lossy();
        let key: String = name.trim_start_matches('.').chars().take(12).collect();
        let (images, rest) = match &entry.found {
            CacheFileKind::Activations(about, shape, dtype) => {
                let images = shape.first().map_or(String::new(), |&n| count(n as u64));
                let about =
                    [&about.stage, &about.view, &about.model, &about.data].map(Clone::clone);
                let [stage, view, model, data] = about;
                (images, [dtype.to_lowercase(), stage, view, model, data])
            }
            CacheFileKind::OtherFormat => {
                (String::new(), told("written by another version; unused"))
            }
            CacheFileKind::BeingWritten => (String::new(), told("being written")),
            CacheFileKind::Abandoned => (String::new(), told("left by a run that was killed")),
            CacheFileKind::Unreadable => (String::new(), told("cannot be read")),
        };
        let age = format!("{} ago", duration(entry.age.as_secs_f64()));
        let [dtype, stage, view, model, data] = rest;
        let size = HumanBytes(entry.bytes).to_string();
        table.row([key, size, age, images, dtype, stage, view, model, data]);
    }
    table.render(Style::of_stdout())
}

fn told(what: &str) -> [String; 5] {
    [String::new(), what.into(), String::new(), String::new(), String::new()]
}
