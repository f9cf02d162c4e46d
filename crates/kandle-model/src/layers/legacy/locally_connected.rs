//! `LocallyConnected1D` and `LocallyConnected2D` of Keras 1 and 2: a convolution that has a kernel of its own at each place.
//!
//! Shapes: xs `(batch, spatial…, channels)`, or channels first; kernel `(places, window · channels, filters)`, a place for each
//! cell of the output, row by row; bias `(spatial…, filters)` of the output; result `(batch, spatial…, filters)`. A window's
//! numbers are in the order of the axes of xs. With channels first Keras takes the numbers of the bias, as they are stored, for
//! those of `(filters, spatial…)`. With a window of 1, kernels `[2]` and `[3]` turn `[[1], [1]]` into `[[2], [3]]`.
//!
//! Source: tf_keras/src/layers/locally_connected/*.py, tf_keras/src/backend.py (`local_conv`).

use candle_core::{Tensor, bail};
use kandle_format::Problem;

use super::only_in_old_files;
use crate::{
    Activation, Call, Fields, Given, KerasLayer, Spec, Value, Weight,
    layers::{
        cannot, one_float,
        spatial::{Image, from_channels_last},
    },
    math::window::{Padding, Window, lengths},
};

#[derive(Debug)]
pub(super) struct LocallyConnected<const AXES: usize> {
    filters: usize,
    kernel_size: Vec<usize>,
    strides: Vec<usize>,
    channels_first: bool,
    use_bias: bool,
    activation: Activation,
}

impl<const AXES: usize> KerasLayer for LocallyConnected<AXES> {
    fn read(fields: &mut Fields<'_>) -> Self {
        only_in_old_files(fields);
        fields.training_only(&[
            "kernel_initializer",
            "bias_initializer",
            "kernel_regularizer",
            "bias_regularizer",
            "kernel_constraint",
            "bias_constraint",
        ]);
        // The others have the padding "same", and kernels with a row for each pair of places.
        fields.only("implementation", &1.into());
        fields.only("padding", &"valid".into());
        Self {
            filters: fields.size("filters"),
            kernel_size: fields.sizes("kernel_size", AXES, 1),
            strides: fields.sizes("strides", AXES, 1),
            channels_first: fields.channels_first(),
            use_bias: fields.flag("use_bias", true),
            activation: fields.activation("activation"),
        }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let image = Image::of(given.input()?, AXES, self.channels_first).map_err(|problem| problem.to_string())?;
        let places = self.places(&image).map_err(|problem| problem.to_string())?;
        let known = places.iter().copied().collect::<Option<Vec<usize>>>().zip(image.channels);
        let (places, channels) = known.ok_or("the size of its input is not known")?;
        let product = |sizes: &[usize]| sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let window = product(&self.kernel_size).and_then(|taps| taps.checked_mul(channels));
        let (Some(count), Some(window)) = (product(&places), window) else { return Err("too large".to_owned()) };
        let mut weights = vec![Weight::as_keras("kernel", vec![count, window, self.filters])];
        if self.use_bias {
            weights.push(Weight::as_keras("bias", [places.as_slice(), &[self.filters]].concat()));
        }
        Ok(weights)
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one_float(given)?;
        let image = Image::of(input, AXES, self.channels_first)?;
        let spatial = self.places(&image)?;
        let shape = Image { spatial, channels: Some(self.filters), ..image }.shape(self.channels_first);
        Ok(vec![self.activation.output(&input.with_shape(shape))?])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        let (xs, kernel) = (&input.tensor, call.weight(0)?);
        let first = if self.channels_first { 2 } else { 1 };
        let sizes: Vec<Option<usize>> = xs.dims().iter().skip(first).take(AXES).copied().map(Some).collect();
        let places = self.lengths(&sizes).map_err(candle_core::Error::msg)?;
        let places: Vec<usize> = places.into_iter().flatten().collect();
        let batch = xs.dim(0)?;
        let mut rows = Vec::new();
        for number in 0..places.iter().product::<usize>() {
            let (mut window, mut rest) = (xs.clone(), number);
            for axis in (0..AXES).rev() {
                let size = |sizes: &[usize]| sizes.get(axis).copied().unwrap_or(1);
                let place = rest % size(&places).max(1);
                rest /= size(&places).max(1);
                window = window.narrow(first + axis, place * size(&self.strides), size(&self.kernel_size))?;
            }
            let window = window.contiguous()?.reshape((batch, ()))?;
            if number >= kernel.dim(0)? {
                bail!("an input of {:?} has more places than the {} kernels", xs.dims(), kernel.dim(0)?)
            }
            rows.push(window.matmul(&kernel.get(number)?)?);
        }
        let policy = call.given.policy();
        let dims = [&[batch], places.as_slice(), &[self.filters]].concat();
        let ys = policy.rounded(Tensor::stack(&rows, 1)?.reshape(dims)?)?;
        let mut ys = from_channels_last(&ys, self.channels_first)?;
        if self.use_bias {
            // Keras: with channels first the bias is reshaped, not transposed, though it is stored with the filters last.
            let dims = ys.dims().iter().skip(1).copied().collect::<Vec<usize>>();
            ys = policy.rounded(ys.broadcast_add(&call.weight(1)?.reshape(dims)?)?)?;
        }
        Ok(vec![self.activation.apply(&input.with_tensor(ys), policy)?])
    }
}

impl<const AXES: usize> LocallyConnected<AXES> {
    /// How many places the output has along each axis.
    fn places(&self, image: &Image) -> Result<Vec<Option<usize>>, Problem> {
        self.lengths(&image.spatial).map_err(cannot)
    }

    fn lengths(&self, spatial: &[Option<usize>]) -> Result<Vec<Option<usize>>, String> {
        let windows = Window::all(&self.kernel_size, &self.strides, &vec![1; AXES])?;
        lengths(spatial, &windows, Padding::Valid)
    }
}
