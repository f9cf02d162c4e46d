use std::fmt;

/// The result of opening, reading and planning.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system could not read or write the file.
    Io,
    /// The bytes are not one of Keras's containers.
    NotKeras,
    /// The container is of the right kind but broken: truncated, a wrong checksum, JSON that does not parse.
    Damaged,
    /// The file asks for more than [`Limits`](crate::Limits) allow.
    Limit,
    /// Something the file must hold is not there.
    Missing,
    /// Valid Keras that is not reproduced exactly, so it is refused.
    Unsupported,
    /// A value that Keras itself would not accept.
    Invalid,
    /// Weights that are missing, left over, or of another shape or dtype than the configuration says.
    Weights,
    /// An input that the model does not take.
    Input,
    /// A model whose numbers are not proven: the recorded case is of other weights, or has other numbers.
    Unverified,
}

/// One thing that went wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind of thing went wrong.
    pub kind: ErrorKind,
    /// File › member › dataset, or the layer's path.
    pub at: String,
    /// What is wrong, what was expected and what was found.
    pub what: String,
}

impl Problem {
    /// A problem of `kind` at the place `at`.
    pub fn new(kind: ErrorKind, at: impl Into<String>, what: impl Into<String>) -> Self {
        Self { kind, at: at.into(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.is_empty() { f.write_str(&self.what) } else { write!(f, "{}: {}", self.at, self.what) }
    }
}

/// Why a file could not be opened, understood or loaded: one problem, or all of them together.
///
/// It prints as `where: what`, or as a list where there are several.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    file: Option<String>,
    first: Problem,
    others: Vec<Problem>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with one problem.
    pub fn new(kind: ErrorKind, at: impl Into<String>, what: impl Into<String>) -> Self {
        Self { file: None, first: Problem::new(kind, at, what), others: Vec::new(), source: None }
    }

    /// `Err` with all of `problems`, or `Ok` where there are none.
    pub fn check(problems: Vec<Problem>) -> Result<()> {
        let mut problems = problems.into_iter();
        match problems.next() {
            None => Ok(()),
            Some(first) => Err(Self { file: None, first, others: problems.collect(), source: None }),
        }
    }

    /// The same error with the error that caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error with the name of the file it is about, unless it has one.
    #[must_use]
    pub fn in_file(mut self, file: &str) -> Self {
        if self.file.is_none() && !file.is_empty() {
            self.file = Some(file.to_owned());
        }
        self
    }

    /// The kind of the first problem.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.first.kind
    }

    /// Where the first problem is: file › member › dataset, or the layer's path.
    #[must_use]
    pub fn at(&self) -> &str {
        &self.first.at
    }

    /// Every problem, in the order of the file.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Whether the file is refused as unsupported, rather than found to be wrong: every problem is
    /// [`ErrorKind::Unsupported`].
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.problems().all(|problem| problem.kind == ErrorKind::Unsupported)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.others.is_empty() {
            return match &self.file {
                Some(file) if self.first.at.is_empty() => write!(f, "{file}: {}", self.first.what),
                Some(file) => write!(f, "{file} › {}", self.first),
                None => self.first.fmt(f),
            };
        }
        if let Some(file) = &self.file {
            write!(f, "{file}: ")?;
        }
        write!(f, "{} problems", self.others.len() + 1)?;
        const SHOWN: usize = 100;
        self.problems().take(SHOWN).try_for_each(|problem| write!(f, "\n  {problem}"))?;
        match (self.others.len() + 1).checked_sub(SHOWN) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "\n  and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, ErrorKind, Problem};

    #[test]
    fn an_error_prints_its_coordinates_first() {
        let error = Error::new(ErrorKind::Damaged, "config.json", "not JSON");
        assert_eq!(error.to_string(), "config.json: not JSON");
        assert_eq!(error.in_file("model.keras").in_file("other").to_string(), "model.keras › config.json: not JSON");
        assert_eq!(
            Error::new(ErrorKind::Io, "", "no such file").in_file("a.keras").to_string(),
            "a.keras: no such file"
        );
    }

    #[test]
    fn several_problems_are_listed_together() {
        assert!(Error::check(Vec::new()).is_ok());
        let problems = vec![
            Problem::new(ErrorKind::Unsupported, "layer \"a\"", "first"),
            Problem::new(ErrorKind::Invalid, "layer \"b\"", "second"),
        ];
        let error = Error::check(problems).unwrap_err();
        assert_eq!(error.to_string(), "2 problems\n  layer \"a\": first\n  layer \"b\": second");
        assert_eq!((error.kind(), error.at(), error.is_refusal()), (ErrorKind::Unsupported, "layer \"a\"", false));
        let many = Error::check(vec![Problem::new(ErrorKind::Weights, "", "x"); 102]).unwrap_err();
        assert_eq!((many.to_string().lines().count(), many.problems().count()), (102, 102));
        assert!(many.to_string().ends_with("\n  and 2 more"));
    }
}
