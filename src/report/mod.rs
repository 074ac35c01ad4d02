//! Results as they are written: one versioned schema a kind.

pub mod diagnosis;
