//! The operations of `keras.ops` that occur as nodes of a Functional graph, in files by what they do.

use crate::registry::Registered;

/// Every operation that is reproduced, a table for each file.
pub(crate) const OPERATIONS: &[&[Registered]] = &[];
