//! The judge: compares a candle model with what Keras recorded, layer by layer, within a stated tolerance.
//!
//! Two tensors, ours and Keras's, in three lines:
//!
//! ```
//! # use candle_core::{Device, Tensor};
//! # use kandle_parity::{Array, Rule, compare};
//! let ours = Array::try_from(Tensor::new(&[0.5f32, -1.25], &Device::Cpu)?)?;
//! let keras = Array::from_slice(&[0.5f32, -1.2500001], &[2])?;
//! assert!(compare(&ours, &keras, Rule::Contraction.tolerance_of(&keras)).passed());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A whole model: [`Case::open`] reads a folder that Keras recorded, a [`Subject`] is whatever gives tensors for tensors, [`check`] compares every recorded layer and the outputs, and the [`Verdict`] says what is wrong, where and by how much.
//! The crate knows nothing of kandle's own models: any port to candle can be judged.
//!
//! ```no_run
//! use kandle_parity::{Array, Case, Failure, Subject, check};
//!
//! struct Port(candle_nn::Linear);
//! # mod candle_nn { pub struct Linear; impl Linear { pub fn forward(&self, xs: &candle_core::Tensor) -> candle_core::Result<candle_core::Tensor> { Ok(xs.clone()) } } }
//! impl Subject for Port {
//!     fn run(&self, inputs: &[Array]) -> Result<Vec<Array>, Failure> {
//!         let [xs] = inputs else { return Err("one input is needed".into()) };
//!         let ys = self.0.forward(&xs.to_tensor(&candle_core::Device::Cpu)?)?;
//!         Ok(vec![ys.try_into()?])
//!     }
//! }
//! # let port = Port(candle_nn::Linear);
//! let verdict = check(&Case::open("reference_outputs/dense")?, "model.keras", &port);
//! assert!(verdict.is_ok(), "{verdict}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The rules: `|ours − keras| ≤ atol + rtol·|keras|` at every number; shapes and dtypes equal; NaN and infinities exactly where Keras has them; integers and bools equal whatever the tolerance; and a check that compares nothing fails.

mod array;
mod case;
mod check;
mod compare;
mod error;
mod find;
mod html;
mod json;
mod number;
mod port;
mod report;
mod subject;
mod table;
mod text;
mod tolerance;
mod truth;
mod verdict;

#[cfg(test)]
mod fixture;

pub use array::{Array, ArrayError};
pub use case::{Case, Declared, Layer, Noise, Recorded};
pub use check::{check, check_outputs};
pub use compare::{Comparison, Mismatch, Worst, compare};
pub use error::{CaseError, CaseErrorKind};
pub use find::{CaseOf, cases_of, find_cases};
pub use html::HtmlReport;
pub use number::{Dtype, Number};
pub use port::{Comparable, Port, parity, port_parity};
pub use report::{CaseReport, MayRefuse, Outcome, Standing, Summary};
pub use subject::{Failure, LayerCall, Subject, Trace};
pub use tolerance::{Rule, Tolerance, UnknownRule};
pub use truth::{Truth, median};
pub use verdict::{Check, Hint, How, MadeIn, Verdict};
