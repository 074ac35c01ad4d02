//! What can be wrong with class folders that are to be numbered as a checkpoint's classes.

/// Why class folders cannot be numbered.
#[derive(Debug, thiserror::Error)]
pub enum ClassError {
    /// Class names that another list of classes does not have.
    #[error(
        "{place}: expected classes of {of}, found {} that it does not have: {}; name the classes \
         as it does ({}), or take those classes away",
        unknown.len(), listed(unknown), listed(known)
    )]
    Unknown {
        /// Data set.
        place: String,
        /// Whose classes are expected.
        of: String,
        /// The names that are not among them.
        unknown: Vec<String>,
        /// Names it has that the data lack.
        known: Vec<String>,
    },
    /// Class folders none of which has a name of the checkpoint's.
    #[error(
        "{place}: expected the checkpoint's classes, such as `{expected}`, found none of them \
         among the class folders, such as `{found}`; rename the folders to the checkpoint's class \
         names, or, if it was trained on these very folders in sorted order, pass --class-order \
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
    /// A class folder whose name the checkpoint has more than once.
    #[error(
        "{place}: expected one class of the checkpoint called `{name}`, found several, numbers {}; \
         give them different names in its config.json and to the folders, or, if it was trained on \
         these very folders in sorted order, pass --class-order sorted",
        numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(" and ")
    )]
    Twice {
        /// Data set.
        place: String,
        /// The name.
        name: String,
        /// The classes that have it.
        numbers: Vec<u32>,
    },
    /// A label beyond the class names.
    #[error(
        "{place}: expected a label below {names}, the number of class names of the training images, \
         found {label}; name every class, or no class"
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
        "{place}: expected at most {classes} class folders, as the checkpoint's head has classes, \
         found {found} ({}); use data with the checkpoint's classes, or train a head of {found} \
         first: planish finetune --from CKPT",
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

/// The first ten names, and how many more there are.
fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(10).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(10) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
