//! Layers that only Keras 1 and 2 have. In a file of Keras 3 a class of such a name is the user's own.

mod highway;
mod inactive;
mod locally_connected;
mod maxout_dense;
mod merge;
mod parametric;
mod thresholded_relu;

use crate::{
    Fields, dialect,
    registry::{Family, Registered, layer},
};
use highway::Highway;
use inactive::{Additions, RandomSize};
use locally_connected::LocallyConnected;
use maxout_dense::MaxoutDense;
use merge::Cosine;
use parametric::Parametric;
use thresholded_relu::ThresholdedRelu;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[
    layer::<ThresholdedRelu>("ThresholdedReLU", Family::Legacy),
    layer::<LocallyConnected<1>>("LocallyConnected1D", Family::Legacy),
    layer::<LocallyConnected<2>>("LocallyConnected2D", Family::Legacy),
    layer::<super::normalization::BatchNormalization>("SyncBatchNormalization", Family::Legacy),
    layer::<RandomSize>("RandomHeight", Family::Legacy),
    layer::<RandomSize>("RandomWidth", Family::Legacy),
    layer::<Additions>("AddLoss", Family::Legacy),
    layer::<Additions>("AddMetric", Family::Legacy),
    layer::<Highway>("Highway", Family::Legacy),
    layer::<MaxoutDense>("MaxoutDense", Family::Legacy),
    layer::<Cosine>("Merge", Family::Legacy),
    layer::<Parametric<false>>("SReLU", Family::Legacy),
    layer::<Parametric<true>>("ParametricSoftplus", Family::Legacy),
];

/// Refuses the layer in a file of Keras 3.
fn only_in_old_files(fields: &mut Fields<'_>) {
    if !dialect::is_legacy(fields.keras_major()) {
        fields.refuse("a layer of Keras 1 and 2 in a file of Keras 3: if it is your own, register a layer for it");
    }
}
