//! `planish completions` and `planish man`: shell completions and manual pages, generated from the
//! argument definitions.

use crate::Cli;
use crate::render::print;
use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use planish::output;
use std::path::PathBuf;

/// Arguments of `planish completions`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  planish completions bash > \
                        ~/.local/share/bash-completion/completions/planish")]
pub struct Args {
    /// Shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

/// Arguments of `planish man`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  planish man --out ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Output folder; one page per command is written
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Prints the completion script.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "planish", &mut script);
    Ok(print(&String::from_utf8_lossy(&script))?)
}

/// Writes `planish.1`, and `planish-COMMAND.1` for each command.
///
/// # Errors
/// A page cannot be written.
pub fn man(args: &ManArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.out).with_context(|| {
        format!("cannot write {}; choose another folder with --out", args.out.display())
    })?;
    let mut command = Cli::command();
    command.build();
    pages(&command, &args.out)
}

/// Writes the page of a command and of its subcommands.
fn pages(command: &clap::Command, folder: &std::path::Path) -> anyhow::Result<()> {
    let page = clap_mangen::Man::new(command.clone());
    let mut text = Vec::new();
    page.render(&mut text).context("cannot render a manual page")?;
    output::write(&folder.join(page.get_filename()), &text)?;
    let within = command.get_subcommands().filter(|c| c.get_name() != "help");
    within.into_iter().try_for_each(|c| pages(c, folder))
}
