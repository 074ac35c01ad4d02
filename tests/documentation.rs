//! The pages of the documentation: links, and the table of contents of the book.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Pages outside the book.
const OUTSIDE: [&str; 4] =
    ["README.md", "CONTRIBUTING.md", "kernels/README.md", "assets/README.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages of the book, with its table of contents.
fn book() -> Vec<PathBuf> {
    let (mut folders, mut pages) = (vec![root().join("docs")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// The text without fenced code.
fn prose(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let mut code = false;
    let shown = |line: &&str| {
        let fence = line.starts_with("```");
        code ^= fence;
        !code && !fence
    };
    text.lines().filter(shown).collect::<Vec<_>>().join("\n")
}

/// The targets of all links and images that are not on another site.
fn links(text: &str) -> Vec<&str> {
    let target = |part: &'_ str| part.find(')').map(|end| part[..end].len());
    let parts = text.split("](").skip(1);
    let found = parts.filter_map(|part| target(part).map(|end| &part[..end]));
    found.filter(|link| !link.contains(char::is_whitespace) && !link.contains(':')).collect()
}

/// The anchors of a page's headings, as code hosts and mdBook make them.
fn anchors(path: &Path) -> BTreeSet<String> {
    let text = prose(path);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

fn anchor(heading: &str) -> String {
    // A link in a heading counts with its text alone.
    let mut plain = String::new();
    for (i, part) in heading.split("](").enumerate() {
        let rest = if i == 0 { part } else { part.split_once(')').map_or("", |(_, rest)| rest) };
        plain += rest;
    }
    let kept = |c: &char| c.is_alphanumeric() || "_- ".contains(*c);
    plain.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

#[test]
fn anchors_are_those_of_code_hosts() {
    assert_eq!(anchor(" Does it help?"), "does-it-help");
    assert_eq!(
        anchor(" The `[[bench]]` table, and [links](x.md) in it"),
        "the-bench-table-and-links-in-it"
    );
}

/// The book contains only `docs`, so its pages may not link to other files of the repository.
#[test]
fn links_lead_to_pages_and_headings() {
    let docs = root().join("docs").canonicalize().unwrap();
    let outside = OUTSIDE.map(|name| root().join(name));
    let (mut bad, mut checked) = (Vec::new(), 0);
    for page in book().iter().chain(&outside) {
        for link in links(&prose(page)) {
            checked += 1;
            let (name, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if name.is_empty() { page.clone() } else { page.with_file_name(name) };
            let wrong = match target.canonicalize() {
                Err(_) => "no such file",
                Ok(file) if page.starts_with(&docs) && !file.starts_with(&docs) => "leaves docs",
                Ok(file) if !anchor.is_empty() && !anchors(&file).contains(anchor) => {
                    "no such heading"
                }
                Ok(_) => continue,
            };
            bad.push(format!("{}: {link}: {wrong}", page.display()));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(checked > 100, "only {checked} links were found");
}

/// Blocks that `scripts/refresh-docs` writes.
#[test]
fn generated_blocks_have_contents() {
    let outside = OUTSIDE.map(|name| root().join(name));
    let mut blocks = 0;
    for page in book().iter().chain(&outside) {
        let text = fs::read_to_string(page).unwrap();
        for block in text.split("<!-- generated").skip(1) {
            let (inner, _) = block.split_once("<!-- end -->").expect("a block ends");
            let lines = inner.lines().skip(1).filter(|line| !line.starts_with("```"));
            assert!(lines.count() > 0, "{}: {inner}", page.display());
            blocks += 1;
        }
    }
    assert!(blocks > 20, "only {blocks} blocks were found");
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let summary = root().join("docs/SUMMARY.md");
    let text = prose(&summary);
    let listed: BTreeSet<PathBuf> =
        links(&text).into_iter().map(|name| summary.with_file_name(name)).collect();
    let pages: BTreeSet<PathBuf> = book().into_iter().filter(|page| *page != summary).collect();
    assert_eq!(pages, listed);
}
