//! What convolutions have in common: their settings, the shape of what comes out, and what follows the sums.

use candle_core::{D, Result, Tensor, bail};
use kandle_format::Problem;

use crate::{
    Activation, Call, Fields, Given, Layout, Lowered, Primitive, Spec, Value, Weight,
    layers::{
        cannot, one_float,
        spatial::{Image, from_channels_last, to_channels_last},
    },
    math::window::{Padding, Window, lengths},
    primitive::Convolution,
};

/// The settings of every convolution.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) kernel_size: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilation_rate: Vec<usize>,
    pub(super) padding: Padding,
    channels_first: bool,
    pub(super) use_bias: bool,
    activation: Activation,
    /// Whether the kernel is stored as Keras 1 does.
    of_keras_1: bool,
}

/// What a convolution's settings say about strides together with dilation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Both {
    /// Keras refuses both above 1 in one layer.
    Refused,
    /// Both may exceed 1.
    Allowed,
}

impl Settings {
    /// Reads the settings of a convolution over `axes` spatial axes.
    pub(super) fn read(fields: &mut Fields<'_>, axes: usize, causal: bool, both: Both) -> Self {
        fields.training_only(&[
            "kernel_initializer",
            "bias_initializer",
            "kernel_regularizer",
            "bias_regularizer",
            "activity_regularizer",
            "kernel_constraint",
            "bias_constraint",
        ]);
        let paddings = [("valid", Padding::Valid), ("same", Padding::Same), ("causal", Padding::Causal)];
        if fields.take("kernel_size").is_none() {
            fields.wrong("kernel_size is missing");
        }
        let settings = Self {
            kernel_size: fields.sizes("kernel_size", axes, 1),
            strides: fields.sizes("strides", axes, 1),
            dilation_rate: fields.sizes("dilation_rate", axes, 1),
            padding: fields
                .choice("padding", paddings.get(..if causal { 3 } else { 2 }).unwrap_or_default())
                .unwrap_or(Padding::Valid),
            channels_first: fields.channels_first(),
            use_bias: fields.flag("use_bias", true),
            activation: fields.activation("activation"),
            of_keras_1: fields.keras_major() < 2,
        };
        let Self { strides, dilation_rate, .. } = &settings;
        let exceed = |sizes: &[usize]| sizes.iter().any(|size| *size > 1);
        if both == Both::Refused && exceed(strides) && exceed(dilation_rate) {
            fields.wrong(format!("strides {strides:?} and dilation_rate {dilation_rate:?} cannot both exceed 1"));
        }
        settings
    }

    /// As [`KerasLayer::keeps_float32`](crate::KerasLayer::keeps_float32).
    pub(super) fn keeps_float32(&self) -> bool {
        self.activation.keeps_float32()
    }

    /// How many channels the input has.
    pub(super) fn channels(&self, given: Given<'_, Spec>) -> std::result::Result<usize, String> {
        let unknown = "the size of its input's channel axis is not known: give the model a fixed one in Keras, or FileLayer its `of`";
        let image = Image::of(given.input()?, self.kernel_size.len(), self.channels_first);
        image.map_err(|problem| problem.to_string())?.channels.ok_or_else(|| unknown.to_owned())
    }

    /// The shape of a weight of this kernel size with two more axes.
    pub(super) fn kernel_shape(&self, inner: usize, outer: usize) -> Vec<usize> {
        [self.kernel_size.as_slice(), &[inner, outer]].concat()
    }

    /// The orders in which Keras 1 may have the axes of the kernel, `(spatial…, in, out)` or, transposed, `(…, out, in)`.
    pub(super) fn old_axes(&self, transposed: bool) -> &'static [&'static [usize]] {
        match (self.kernel_size.len(), self.channels_first, transposed) {
            _ if !self.of_keras_1 => &[],
            // Up to 1.1: (filters, channels, length, 1).
            (1, ..) => &[&[0, 2, 3], &[2, 1, 0]],
            (2, true, false) => &[&[2, 3, 1, 0]],
            (2, false, true) => &[&[0, 1, 3, 2]],
            (2, true, true) => &[&[2, 3, 0, 1]],
            (3, true, false) => &[&[2, 3, 4, 1, 0]],
            _ => &[],
        }
    }

    /// `weights`, and the bias after them if there is one.
    pub(super) fn with_bias(&self, mut weights: Vec<Weight>, filters: usize) -> Vec<Weight> {
        if self.use_bias {
            weights.push(Weight::new("bias", vec![filters], "bias", Layout::AsIs));
        }
        weights
    }

    /// The window of each axis.
    pub(super) fn windows(&self) -> std::result::Result<Vec<Window>, Problem> {
        Window::all(&self.kernel_size, &self.strides, &self.dilation_rate).map_err(cannot)
    }

    /// What comes out where each window gives one cell.
    pub(super) fn output(&self, given: Given<'_, Spec>, filters: usize) -> std::result::Result<Vec<Spec>, Problem> {
        let windows = self.windows()?;
        self.output_of(given, filters, |spatial| lengths(spatial, &windows, self.padding))
    }

    /// What comes out where the spatial axes become `cells` of them.
    pub(super) fn output_of(
        &self,
        given: Given<'_, Spec>,
        filters: usize,
        cells: impl Fn(&[Option<usize>]) -> std::result::Result<Vec<Option<usize>>, String>,
    ) -> std::result::Result<Vec<Spec>, Problem> {
        let image = Image::of(one_float(given)?, self.kernel_size.len(), self.channels_first)?;
        let spatial = cells(&image.spatial).map_err(cannot)?;
        let shape = Image { spatial, channels: Some(filters), ..image }.shape(self.channels_first);
        Ok(vec![self.activation.output(&Spec { shape, dtype: given.policy().arithmetic() })?])
    }

    /// The layer around what `convolve` makes of the bias, the windows and the padding; as
    /// [`KerasLayer::primitives`](crate::KerasLayer::primitives) has it. The bias is the last of `weights` weights.
    pub(super) fn lowered(
        &self,
        lowered: Lowered<'_>,
        weights: usize,
        convolve: impl FnOnce(Option<Tensor>, Vec<Window>, Padding) -> Vec<Primitive>,
    ) -> Result<Option<Vec<Primitive>>> {
        if self.channels_first {
            return Ok(None);
        }
        let windows = self.windows().map_err(|problem| candle_core::Error::Msg(problem.what))?;
        let chain = convolve(lowered.weight_if(self.use_bias, weights)?, windows, self.padding);
        self.activation.after(chain, lowered)
    }

    /// The whole layer around the sums `convolve` of its input, channels last, and a kernel in Keras's axes.
    ///
    /// The bias is the last of `weights` weights, where there is one.
    pub(super) fn forward(
        &self,
        call: Call<'_>,
        weights: usize,
        convolve: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Vec<Value>> {
        let input = call.input()?;
        if input.tensor.rank() != self.kernel_size.len() + 2 {
            bail!("expected an input of rank {}, found {:?}", self.kernel_size.len() + 2, input.tensor.dims());
        }
        let policy = call.given.policy();
        let mut ys = policy.rounded(convolve(&to_channels_last(&input.tensor, self.channels_first)?)?)?;
        if self.use_bias {
            ys = policy.rounded(ys.broadcast_add(call.weight(weights)?)?)?;
        }
        // Keras: the activation sees the axes as data_format has them; softmax is over the last, a spatial one or not.
        let ys = from_channels_last(&ys, self.channels_first)?;
        Ok(vec![self.activation.apply(&input.with_tensor(ys), policy)?])
    }
}

/// A kernel `(a, b, spatial…)` as Keras has it, `(spatial…, b, a)`.
pub(super) fn keras_kernel(weight: &Tensor) -> Result<Tensor> {
    weight.permute((2..weight.rank()).chain([1, 0]).collect::<Vec<usize>>())?.contiguous()
}

/// A depthwise kernel `(channels · multiplier, 1, spatial…)` as Keras has it, `(spatial…, channels, multiplier)`.
pub(super) fn keras_depthwise_kernel(weight: &Tensor, multiplier: usize) -> Result<Tensor> {
    let [filters, 1, spatial @ ..] = weight.dims() else {
        bail!("expected a kernel of one channel a group, found {:?}", weight.dims())
    };
    if multiplier == 0 || !filters.is_multiple_of(multiplier) {
        bail!("{filters} filters are not {multiplier} for each channel");
    }
    let split = [&[filters / multiplier, multiplier], spatial].concat();
    let axes: Vec<usize> = (2..split.len()).chain([0, 1]).collect();
    weight.squeeze(1)?.reshape(split)?.permute(axes)?.contiguous()
}

/// A depthwise convolution with the weight `(channels · multiplier, 1, spatial…)` as primitives: of each channel as many as it
/// has filters, and one filter for each of them.
pub(super) struct ByChannel {
    kernel: Tensor,
    times: Option<Vec<usize>>,
}

impl ByChannel {
    pub(super) fn new(weight: &Tensor, multiplier: usize) -> Result<Self> {
        let kernel = keras_depthwise_kernel(weight, multiplier)?;
        let spatial = kernel.rank().saturating_sub(2);
        let kernel = kernel.flatten_from(spatial)?.unsqueeze(spatial + 1)?;
        let times = (multiplier > 1).then(|| [vec![1; spatial], vec![multiplier]].concat());
        Ok(Self { kernel, times })
    }

    pub(super) fn chain(self, bias: Option<Tensor>, windows: Vec<Window>, padding: Padding) -> Vec<Primitive> {
        let Self { kernel, times } = self;
        let convolution = Convolution { kernel, bias, windows, padding, margins: None, groups: 1, depthwise: true };
        let repeat = times.map(Primitive::Repeat);
        repeat.into_iter().chain([Primitive::Convolution(convolution)]).collect()
    }
}

/// A kernel of one cell `(filters, channels, 1…)` as Keras has it, `(1…, channels, filters)`: a product over channels.
pub(super) fn pointwise(xs: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (filters, channels) = (weight.dim(0)?, weight.dim(1)?);
    let rows = xs.elem_count() / xs.dim(D::Minus1)?.max(1);
    let Some((last, outer)) = xs.dims().split_last() else { bail!("a scalar has no channels") };
    if *last != channels {
        bail!("input has {last} channels, kernel expects {channels}");
    }
    let product = xs.reshape((rows, channels))?.matmul(&weight.reshape((filters, channels))?.t()?)?;
    product.reshape([outer, &[filters]].concat())
}
