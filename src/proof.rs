//! The proof that travels with a model: the recorded cases beside its file.

use std::path::Path;

use candle_core::Device;
use kandle_format::{Archive, Error, ErrorKind, Limits, Result};
use kandle_model::Model;
use kandle_parity::{Case, CaseErrorKind, Verdict, cases_of, check, check_outputs};

use crate::judge::{Judged, check_digest};

/// Loading a model only if it gives the numbers that Keras recorded.
pub trait LoadVerified: Sized {
    /// As [`Model::load`], and then [`verify_loaded`]: at start-up, on the device it will run on.
    ///
    /// ```
    /// use kandle::{LoadVerified as _, Model};
    ///
    /// let model = Model::load_verified("reference_outputs/example3/2x3/model.keras", &candle_core::Device::Cpu)?;
    /// # Ok::<(), kandle::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Model::load`] and [`verify_loaded`].
    fn load_verified(path: impl AsRef<Path>, device: &Device) -> Result<Self>;
}

impl LoadVerified for Model {
    fn load_verified(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let archive = Archive::open(path.as_ref(), &Limits::default())?;
        let cases = cases(path.as_ref(), &archive)?;
        let (model, _) = Model::from_archive(&archive, device)?;
        check_model(&model, &archive, &cases)?;
        Ok(model)
    }
}

/// Compares a loaded model with every recorded case that lies beside `file`, the file it was loaded from, and gives the
/// verdict on each: for models with layers of your own, which are loaded by [`Model::load_with`].
///
/// It costs a digest of the weights, a run on the inputs of each case, and the comparison of the outputs. Layers are
/// compared only where the outputs differ, to say which is wrong.
///
/// # Errors
/// [`ErrorKind::Missing`] where no case lies beside the file, [`ErrorKind::Unverified`] where one was recorded with other
/// weights, has no digest of them, or has other numbers; as [`Archive::open`]; and for a case that cannot be read.
pub fn verify_loaded(model: &Model, file: impl AsRef<Path>) -> Result<Vec<Verdict>> {
    let archive = Archive::open(file.as_ref(), &Limits::default())?;
    let cases = cases(file.as_ref(), &archive)?;
    check_model(model, &archive, &cases)
}

/// The cases of a file, none of them stale, and what each calls it.
fn cases(file: &Path, archive: &Archive) -> Result<Vec<(Case, String)>> {
    let found = cases_of(file).map_err(|error| {
        let kind = if error.kind() == CaseErrorKind::NotFound { ErrorKind::Missing } else { ErrorKind::Io };
        Error::new(kind, "", error.to_string())
    })?;
    let open = |of: kandle_parity::CaseOf| {
        let case = Case::open(&of.folder).map_err(|error| Error::new(ErrorKind::Unverified, "", error.to_string()))?;
        let at = case.name();
        let in_case = |error: Error| Error::new(error.kind(), at.clone(), error.to_string()).in_file(archive.name());
        if !case.digests.contains_key(&of.file) {
            let what = "the case has no digest of the weights it was recorded with; record it again";
            return Err(in_case(Error::new(ErrorKind::Unverified, "", what)));
        }
        check_digest(&case, &of.file, archive).map_err(in_case)?;
        Ok((case, of.file))
    };
    found.into_iter().map(open).collect()
}

fn check_model(model: &Model, archive: &Archive, cases: &[(Case, String)]) -> Result<Vec<Verdict>> {
    let model = model.detached();
    let judge = |(case, file): &(Case, String)| {
        let verdict = check_outputs(case, file, &Judged(&model));
        if verdict.is_ok() {
            return Ok(verdict);
        }
        let reason = check(case, file, &Judged(&model)).reason().or(verdict.reason()).unwrap_or_default();
        Err(Error::new(ErrorKind::Unverified, case.name(), reason).in_file(archive.name()))
    };
    cases.iter().map(judge).collect()
}
