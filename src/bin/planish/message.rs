//! Error messages: one line per cause, options written as flags.

use clap::CommandFactory;
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// An error and its causes, one per line. Skips causes that the previous line already quotes.
pub fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut last = String::new();
    for cause in error.chain().map(ToString::to_string) {
        let lead = if last.is_empty() { "error: " } else { "  because: " };
        if !last.contains(&cause) || last.is_empty() {
            text += &format!("{lead}{cause}\n");
            last = cause;
        }
    }
    // In a study file, options are keys.
    let of_file = error.chain().any(|cause| {
        let of_session = cause.downcast_ref::<planish::error::Error>();
        cause.is::<planish::study::Problem>()
            || matches!(of_session, Some(planish::error::Error::StudyFile(_)))
    });
    match of_file {
        true => text,
        false => in_flags(&text),
    }
}

/// Whether an error reports invalid usage.
pub fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let of_session = cause.downcast_ref::<planish::error::Error>();
        use planish::engine::Error::{Tf32OnCpu, TilesOnGpu};
        let of_engine = cause.downcast_ref::<planish::engine::Error>();
        cause.is::<planish::options::Error>()
            || matches!(of_engine, Some(Tf32OnCpu | TilesOnGpu))
            || matches!(of_session, Some(planish::error::Error::Options(_)))
    })
}

/// Replaces option names in backticks, as the library writes them, by flags: `` `weight_decay` ``
/// becomes `--weight-decay`.
///
/// The library writes only its own words in backticks. Names from files, data and users are in
/// double quotes, so that a layer called `data` stays what it is.
pub fn in_flags(text: &str) -> String {
    let mut parts = text.split('`');
    let mut out = parts.next().unwrap_or_default().to_owned();
    let mut quoted = true;
    let mut rest = parts.peekable();
    while let Some(part) = rest.next() {
        let closed = quoted && rest.peek().is_some();
        let flag = part.replace('_', "-");
        match closed {
            true if flags().contains(&flag) => {
                out += &format!("--{flag}");
                out += rest.next().unwrap_or_default();
            }
            true => {
                out += &format!("`{part}`");
                out += rest.next().unwrap_or_default();
            }
            false => {
                out.push('`');
                out += part;
                quoted = false;
            }
        }
    }
    out
}

/// The long flags of all commands.
fn flags() -> &'static BTreeSet<String> {
    static FLAGS: OnceLock<BTreeSet<String>> = OnceLock::new();
    FLAGS.get_or_init(|| {
        let root = crate::Cli::command();
        let of = |command: &clap::Command| -> Vec<String> {
            command.get_arguments().filter_map(|a| a.get_long().map(str::to_owned)).collect()
        };
        root.get_subcommands().flat_map(of).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn each_cause_is_printed_once() {
        let root = || std::io::Error::other("disk full");
        let chained = Err::<(), _>(root()).context("cannot write r.json").unwrap_err();
        assert_eq!(message(&chained), "error: cannot write r.json\n  because: disk full\n");
        let quoting = Err::<(), _>(root()).context("cannot write r.json: disk full").unwrap_err();
        assert_eq!(message(&quoting), "error: cannot write r.json: disk full\n");
    }

    #[test]
    fn options_become_flags_and_other_names_are_unchanged() {
        assert_eq!(in_flags("lower `weight_decay` or `lr`"), "lower --weight-decay or --lr");
        let names = "no layer is called \"data\"; `planish undo x` puts it back; `val`";
        assert_eq!(in_flags(names), names);
        assert_eq!(in_flags("a ` alone"), "a ` alone");
        assert_eq!(in_flags("`lr`"), "--lr");
    }

    /// Otherwise a class or a layer with the name of an option would be printed as a flag.
    #[test]
    fn only_options_are_inserted_in_backticks() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let (mut folders, mut files) = (vec![root.clone()], 0);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && path != root.join("bin") {
                    folders.push(path);
                    continue;
                }
                if path.extension().is_none_or(|extension| extension != "rs") {
                    continue;
                }
                files += 1;
                let code = std::fs::read_to_string(&path).unwrap();
                for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                    let inserted = line.replace("`{option}`", "").contains("`{");
                    assert!(!inserted, "{}: use \\\"…\\\": {line}", path.display());
                }
            }
        }
        assert!(files > 100);
    }
}
