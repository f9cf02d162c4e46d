//! Why a recorded case, or a list of them, can't be read.

use std::fmt;
use std::path::Path;

use crate::text;

/// Why a case can't be read: `where: what: expected X, found Y`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseError {
    kind: CaseErrorKind,
    at: String,
    what: String,
}

/// The kinds of [`CaseError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CaseErrorKind {
    /// A file or folder can't be read.
    Unreadable,
    /// There is no case where one was looked for.
    NotFound,
    /// A file is not what it should be: no JSON, no safetensors, a key missing or of the wrong kind.
    Malformed,
    /// The recorded tensors are not those that case.json declares.
    Mismatch,
}

impl CaseError {
    pub(crate) fn new(kind: CaseErrorKind, at: impl Into<String>, what: impl fmt::Display) -> CaseError {
        CaseError { kind, at: at.into(), what: what.to_string() }
    }

    pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> CaseError {
        CaseError::new(CaseErrorKind::Unreadable, shown_path(path), format_args!("cannot read: {error}"))
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> CaseErrorKind {
        self.kind
    }

    /// Where: the file, then the key or tensor in it, as `cases/dense/case.json › outputs[0].dtype`.
    pub fn at(&self) -> &str {
        &self.at
    }
}

impl fmt::Display for CaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

impl std::error::Error for CaseError {}

/// A path as it is shown in messages.
pub(crate) fn shown_path(path: &Path) -> String {
    text::shown(&path.to_string_lossy(), 1000)
}
