//! Text output of `study`.

use planish::format::duration;
use planish::study::{Share, StudyOutlook, StudyTables, counted};

/// The numbers of all and of missing cells, and the expected time of the missing ones.
pub fn outlook(found: &StudyOutlook, share: Share) -> String {
    let cells: usize = found.kinds.iter().map(|(_, n)| n).sum();
    let kinds: Vec<String> = found.kinds.iter().map(|(kind, n)| counted(*kind, *n)).collect();
    let of = match share == Share::default() {
        true => String::new(),
        false => format!(" (shard {share} of {})", found.whole),
    };
    let time = match found.seconds.filter(|s| *s > 0.0) {
        Some(seconds) => format!(", about {} at the rate of the finished cells", duration(seconds)),
        None => String::new(),
    };
    format!("{cells} cells{of}: {}; {} are missing{time}", kinds.join(", "), found.missing)
}

/// What was written.
pub fn written(found: &StudyTables) -> String {
    let mut out = match found.missing {
        0 => format!("all {} cells present\n", found.finished),
        n => format!("{} cells present, {n} missing\n", found.finished),
    };
    for (file, rows) in &found.tables {
        out += &format!("{rows} rows in {} and .csv\n", file.display());
    }
    out
}
