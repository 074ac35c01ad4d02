//! Errors of numbering class folders by a checkpoint's classes.

/// Why class folders cannot be numbered.
#[derive(Debug, thiserror::Error)]
pub enum ClassError {
    /// Class names that are not in the expected list of classes.
    #[error(
        "{place}: expected classes of {of}, found {} that are not in it: {}; rename these \
         classes (names in {of} without data: {}), or remove them",
        unknown.len(), listed(unknown), listed(known)
    )]
    Unknown {
        /// Data set.
        place: String,
        /// The source of the expected classes.
        of: String,
        /// The unexpected names.
        unknown: Vec<String>,
        /// Expected names that the data do not have.
        known: Vec<String>,
    },
    /// No class folder has the name of one of the checkpoint's classes.
    #[error(
        "{place}: expected the checkpoint's classes, such as \"{expected}\", found only other \
         class folders, such as \"{found}\"; rename the folders to the checkpoint's class \
         names, or, if it was trained on these folders in sorted order, set `class_order` to \
         sorted"
    )]
    NoneKnown {
        /// Data set.
        place: String,
        /// First class of the checkpoint.
        expected: String,
        /// First class folder.
        found: String,
    },
    /// A class folder whose name occurs more than once in the checkpoint.
    #[error(
        "{place}: expected one class of the checkpoint called \"{name}\", found several, numbers {}; \
         give them different names in its config.json and in the folders, or, if it was trained \
         on these folders in sorted order, set `class_order` to sorted",
        numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(" and ")
    )]
    Twice {
        /// Data set.
        place: String,
        /// The name.
        name: String,
        /// The classes with this name.
        numbers: Vec<u32>,
    },
    /// A label without a class name.
    #[error(
        "{place}: expected a label below {names}, the number of class names of the training images, \
         found {label}; name every class, or none"
    )]
    Unnamed {
        /// Data set and split.
        place: String,
        /// The label.
        label: u32,
        /// Number of class names.
        names: usize,
    },
    /// More class folders than the model has classes.
    #[error(
        "{place}: expected at most {classes} class folders, the number of classes of the \
         checkpoint's head, found {found} ({}); use data with the checkpoint's classes, or \
         fine-tune a head of {found} classes first (`planish finetune`)",
        listed(names)
    )]
    TooMany {
        /// Data set.
        place: String,
        /// Number of classes of the checkpoint.
        classes: usize,
        /// Number of class folders.
        found: usize,
        /// Their names.
        names: Vec<String>,
    },
}

/// The first ten names, and the number of further ones.
fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(10).map(|name| format!("\"{name}\"")).collect();
    match names.len().saturating_sub(10) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
