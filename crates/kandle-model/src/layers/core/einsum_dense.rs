//! `keras.layers.EinsumDense`: `activation(einsum(equation, xs, kernel) + bias)`.
//!
//! Shapes: as the equation says, in one of three forms, `ab,bc->ac`, `...b,bc->...c` and `ab...,bc->ac...`. `output_shape` is
//! that of one sample, in the output's letters; it gives the sizes that xs does not. The bias has an axis for each letter from
//! the first of `bias_axes` on, of size 1 where the letter is not among them. With `ab,bc->ac` this is Dense: kernel
//! `[[1], [2]]` and bias `[10]` make `[[3, 4]]` into `[[21]]`.
//!
//! Keras: on TensorFlow a bias with one axis beyond size 1 is added along the last axis of the result, or else the second,
//! where that has its size, whichever axis the equation means. Here it is always the equation's.
//!
//! Source: keras/src/layers/core/einsum_dense.py.

use candle_core::{DType, Tensor, bail};
use kandle_format::{Dtype, Problem};

use crate::{
    Activation, Call, Fields, Given, KerasLayer, Lowered, Policy, Primitive, Quantization, Shape, Spec, Value, Weight,
    layers::{cannot, one},
    math::einsum::{Equation, einsum, matmul},
    numeric::{cast, rounded},
    quantized::{AbsMax, Quantized, dequantized, through_float8, unpack_int4},
};

#[derive(Debug)]
pub(crate) struct EinsumDense {
    /// `None` where the equation is not understood.
    terms: Option<Terms>,
    /// The sizes of one sample of the output, `None` for one that xs has.
    output_shape: Vec<Option<usize>>,
    bias_axes: Option<Vec<char>>,
    quantized: Option<Quantized>,
    /// Rank and factor of LoRA weights.
    lora: Option<(usize, f64)>,
    activation: Activation,
}

/// The letters of an equation, and where its ellipsis stands.
#[derive(Debug)]
struct Terms {
    equation: Equation,
    input: Vec<char>,
    kernel: Vec<char>,
    output: Vec<char>,
    ellipsis: Ellipsis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ellipsis {
    None,
    Left,
    Right,
}

/// What the sizes of an input make of an equation.
pub(crate) struct Sizes {
    pub kernel: Vec<usize>,
    pub bias: Option<Vec<usize>>,
    pub output: Shape,
}

impl KerasLayer for EinsumDense {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&[
            "kernel_initializer",
            "bias_initializer",
            "kernel_regularizer",
            "bias_regularizer",
            "activity_regularizer",
            "kernel_constraint",
            "bias_constraint",
            "gptq_unpacked_column_size",
        ]);
        let quantized = Quantized::read(fields);
        let lora = fields.lora();
        let terms = match fields.take("equation") {
            Some(value) => {
                let terms = value.as_str().and_then(Terms::parse);
                if terms.is_none() {
                    fields.invalid("equation", value, "the form ab,bc->ac, ...b,bc->...c or ab...,bc->ac...");
                }
                terms
            }
            None => {
                fields.wrong("equation is missing");
                None
            }
        };
        let bias_axes = fields.take("bias_axes").and_then(|axes| match axes.as_str() {
            Some(letters) => Some(letters.chars().collect()),
            None => {
                fields.invalid("bias_axes", axes, "letters of the output");
                None
            }
        });
        let output_shape = match fields.take("output_shape") {
            Some(kandle_format::json::Value::Array(axes)) => {
                let axis = |axis: &kandle_format::json::Value| match axis.as_u64() {
                    Some(size) => usize::try_from(size).ok().map(Some),
                    None => axis.is_null().then_some(None),
                };
                let read = axes.iter().map(axis).collect::<Option<Vec<_>>>();
                if read.is_none() {
                    fields.wrong("output_shape: expected sizes or null");
                }
                read.unwrap_or_default()
            }
            Some(_) => fields.axes("output_shape", false),
            None => {
                fields.wrong("output_shape is missing");
                Vec::new()
            }
        };
        Self { terms, output_shape, bias_axes, quantized, lora, activation: fields.activation("activation") }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let sizes = self.sizes(&given.input()?.shape)?;
        let bias = sizes.bias.map(|bias| Weight::as_keras("bias", bias));
        let scale = |shape| Weight::as_keras("kernel_scale", shape).not_trained();
        let eight_bits = |weight: Weight| weight.of(Dtype::Int8).not_trained();
        let kernel = |shape| Weight::as_keras("kernel", shape);
        let of_lora = self.lora.zip(sizes.kernel.split_last()).map(|((rank, _), (columns, rows))| {
            let (a, b) = ([rows, &[rank]].concat(), vec![rank, *columns]);
            [Weight::as_keras("lora_kernel_a", a), Weight::as_keras("lora_kernel_b", b)]
        });
        let mut weights = Vec::new();
        match self.quantized.map(|quantized| quantized.mode) {
            None => {
                // Keras: LoRA freezes the kernel.
                let kernel = kernel(sizes.kernel);
                let kernel = if self.lora.is_some() { kernel.not_trained() } else { kernel };
                weights.extend([kernel].into_iter().chain(bias));
            }
            Some(Quantization::Float8 { history }) => {
                weights.extend([kernel(sizes.kernel)].into_iter().chain(bias));
                weights.extend(Quantized::float8_weights(history));
            }
            Some(Quantization::Int4 { block }) => {
                let (rows, columns) = self.flat(&sizes.kernel);
                weights.extend([eight_bits(kernel(vec![rows, columns.div_ceil(2)]))].into_iter().chain(bias));
                match block {
                    None => weights.push(scale(vec![columns])),
                    Some(block) => {
                        let groups = vec![rows.div_ceil(block), columns];
                        weights.push(scale(groups.clone()));
                        weights.push(eight_bits(Weight::as_keras("kernel_zero", groups)));
                        weights.push(Weight::as_keras("g_idx", vec![rows]).of(Dtype::Float32).not_trained());
                    }
                }
            }
            Some(Quantization::Int8) => {
                let of_output = self.scale_shape(&sizes.kernel, sizes.output.rank());
                weights.extend([eight_bits(kernel(sizes.kernel))].into_iter().chain(bias));
                weights.push(scale(of_output));
            }
        }
        weights.extend(of_lora.into_iter().flatten());
        Ok(weights)
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let shape = self.sizes(&one(given)?.shape).map_err(cannot)?.output;
        Ok(vec![self.activation.output(&Spec { shape, dtype: given.policy().arithmetic() })?])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let policy = call.given.policy();
        let Some(terms) = &self.terms else { bail!("no equation") };
        let input = cast(call.input()?, policy.arithmetic())?;
        let (kernel, after) = (call.weight(0)?, 1 + usize::from(self.bias_axes.is_some()));
        let own = call.weights.get(after..).unwrap_or_default();
        let (own, of_lora) = match (self.lora, own) {
            (Some((_, factor)), [own @ .., a, b]) => (own, Some((factor, a, b))),
            (_, own) => (own, None),
        };
        let ys = match (self.quantized, of_lora) {
            (None, None) => einsum(&terms.equation, &[&input.tensor, kernel])?,
            (None, Some((factor, a, b))) => {
                let kernel = (kernel + (matmul(a, b)? * factor)?)?;
                einsum(&terms.equation, &[&input.tensor, &kernel])?
            }
            (Some(quantized), of_lora) => {
                let ys = self.quantized_product(terms, &input.tensor, kernel, own, quantized, policy)?;
                match of_lora {
                    None => ys,
                    Some((factor, a, b)) => {
                        (ys + (einsum(&terms.equation, &[&input.tensor, &matmul(a, b)?])? * factor)?)?
                    }
                }
            }
        };
        let mut ys = rounded(&ys, policy)?;
        if self.bias_axes.is_some() {
            let mut bias = call.weight(1)?.clone();
            let float8 = self.quantized.is_some_and(|quantized| matches!(quantized.mode, Quantization::Float8 { .. }));
            if float8 && policy.compute == Dtype::Float32 {
                // Keras: the bias goes through bfloat16, which the fused kernels of GPUs want.
                bias = bias.to_dtype(DType::BF16)?.to_dtype(bias.dtype())?;
            }
            ys = rounded(&ys.broadcast_add(&bias)?, policy)?;
        }
        Ok(vec![self.activation.apply(&input.with_tensor(ys), policy)?])
    }

    fn keeps_float32(&self, _: &[Dtype]) -> bool {
        self.activation.keeps_float32()
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        match self.product(lowered)? {
            Some(chain) => self.activation.after(chain, lowered),
            None => Ok(None),
        }
    }

    fn quantizes(&self) -> bool {
        true
    }
}

impl Terms {
    /// The integers that stand for the input, and their scale with the axes of the output.
    fn quantize(&self, xs: &Tensor, inputs: AbsMax, policy: &Policy) -> candle_core::Result<(Tensor, Tensor)> {
        let hidden = xs.rank().saturating_sub(self.input.len());
        let ahead = if self.ellipsis == Ellipsis::Left { hidden } else { 0 };
        let place = |letter: &char| self.input.iter().position(|other| other == letter).map(|at| at + ahead);
        let summed: Vec<usize> =
            self.input.iter().filter(|letter| !self.output.contains(letter)).filter_map(place).collect();
        let (integers, scale) = inputs.quantize_along(xs, &summed, policy)?;
        // The axes of the input that the output has, in the output's order, then those of size 1 where it has others.
        let under = (0..hidden).map(|at| Some(if ahead > 0 { at } else { self.input.len() + at }));
        let letters = self.output.iter().map(place);
        let order: Vec<Option<usize>> = match self.ellipsis {
            Ellipsis::Left => under.chain(letters).collect(),
            _ => letters.chain(under).collect(),
        };
        let kept: Vec<usize> = order.iter().copied().flatten().chain(summed.iter().copied()).collect();
        let shape = order.iter().map(|at| at.map_or(Ok(1), |at| scale.dim(at)));
        let shape = shape.collect::<candle_core::Result<Vec<usize>>>()?;
        Ok((integers, scale.permute(kept)?.contiguous()?.reshape(shape)?))
    }

    fn parse(text: &str) -> Option<Self> {
        let (inputs, output) = text.split_once("->")?;
        let (input, kernel) = inputs.split_once(',')?;
        let letters = |text: &str| -> Option<Vec<char>> {
            let all = !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphabetic());
            all.then(|| text.chars().collect())
        };
        let (of_input, of_output) = (input.replace("...", ""), output.replace("...", ""));
        let ellipsis = match (input.contains("..."), output.contains("...")) {
            (false, false) => Ellipsis::None,
            _ if input.starts_with("...") && output.starts_with("...") => Ellipsis::Left,
            _ if input.ends_with("...") && output.ends_with("...") && of_input.len() > 1 => Ellipsis::Right,
            _ => return None,
        };
        let (input, kernel, output) = (letters(&of_input)?, letters(kernel)?, letters(&of_output)?);
        Some(Self { equation: Equation::parse(text).ok()?, input, kernel, output, ellipsis })
    }
}

impl EinsumDense {
    /// As a product over the last axis, where the last letters of the input are the first of the kernel, all of them summed
    /// over, and those that are left of the kernel end the output.
    fn product(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let Some(terms) = self.terms.as_ref().filter(|_| self.quantized.is_none() && self.lora.is_none()) else {
            return Ok(None);
        };
        let summed = terms.kernel.iter().take_while(|letter| !terms.output.contains(letter)).count();
        let (sum, made) = terms.kernel.split_at(summed);
        let ahead = terms.input.strip_suffix(sum).filter(|ahead| terms.output == [ahead, made].concat());
        // An ellipsis may stand for no axis, but then the batch is a letter.
        let fits = terms.ellipsis != Ellipsis::Right && summed > 0 && !made.is_empty();
        if ahead.is_none() || !fits || !lowered.is_called_on_one() {
            return Ok(None);
        }
        let kernel = lowered.weight(0)?;
        let (rows, columns) = kernel.dims().split_at(summed);
        let bias = match &self.bias_axes {
            Some(axes) if axes != made => return Ok(None),
            axes => lowered.weight_if(axes.is_some(), 1)?.map(|bias| bias.flatten_all()).transpose()?,
        };
        let flat = (rows.iter().product::<usize>(), columns.iter().product::<usize>());
        let product = Primitive::Product { kernel: kernel.contiguous()?.reshape(flat)?, bias };
        // The axes between the batch and those that are summed over; one size may be unknown.
        let axes = &lowered.given.input().map_err(candle_core::Error::msg)?.shape.0;
        let Some(between) = axes.len().checked_sub(summed).and_then(|end| axes.get(1..end)) else { return Ok(None) };
        if (summed > 1 || made.len() > 1) && between.iter().filter(|size| size.is_none()).count() > 1 {
            return Ok(None);
        }
        let view = |last: &[usize]| {
            Primitive::Reshape(between.iter().copied().chain(last.iter().map(|size| Some(*size))).collect())
        };
        let before = (summed > 1).then(|| view(&[flat.0]));
        let after = (made.len() > 1).then(|| view(columns));
        Ok(Some(before.into_iter().chain([product]).chain(after).collect()))
    }

    /// Rows and columns of a kernel as int4 packs it: what is summed over, and what is not.
    fn flat(&self, kernel: &[usize]) -> (usize, usize) {
        let summed = |letter: &char| self.terms.as_ref().is_some_and(|terms| !terms.output.contains(letter));
        let letters = self.terms.iter().flat_map(|terms| terms.kernel.iter());
        letters.zip(kernel).fold((1, 1), |(rows, columns), (letter, size)| match summed(letter) {
            true => (rows.saturating_mul(*size), columns),
            false => (rows, columns.saturating_mul(*size)),
        })
    }

    /// The shape of the scale of an int8 kernel: as the output of `rank` axes, 1 where the kernel has not its letter.
    fn scale_shape(&self, kernel: &[usize], rank: usize) -> Vec<usize> {
        let Some(terms) = &self.terms else { return Vec::new() };
        let size = |letter: &char| terms.kernel.iter().zip(kernel).find(|(other, _)| *other == letter).map(|of| *of.1);
        let of_letters: Vec<usize> = terms.output.iter().map(|letter| size(letter).unwrap_or(1)).collect();
        let hidden = vec![1; rank.saturating_sub(of_letters.len())];
        match terms.ellipsis {
            Ellipsis::Left => [hidden, of_letters].concat(),
            _ => [of_letters, hidden].concat(),
        }
    }

    /// The sum of products of a quantized kernel; `own` are its weights after kernel and bias.
    fn quantized_product(
        &self,
        terms: &Terms,
        xs: &Tensor,
        kernel: &Tensor,
        own: &[Tensor],
        quantized: Quantized,
        policy: &Policy,
    ) -> candle_core::Result<Tensor> {
        let product = |xs: &Tensor, kernel: &Tensor| einsum(&terms.equation, &[xs, kernel]);
        let as_computed = |tensor: &Tensor| tensor.to_dtype(xs.dtype());
        match (quantized.mode, own) {
            (Quantization::Int8, [scale]) => {
                let (integers, scale) = match quantized.inputs {
                    None => return policy.rounded(product(xs, &as_computed(kernel)?)?)?.broadcast_div(scale),
                    Some(inputs) => {
                        let (integers, of_inputs) = terms.quantize(xs, inputs, policy)?;
                        (integers, policy.rounded(of_inputs.broadcast_mul(scale)?)?)
                    }
                };
                // The sum of products of integers is exact, as in Keras.
                let sum = product(&integers.to_dtype(DType::F64)?, &kernel.to_dtype(DType::F64)?)?;
                as_computed(&policy.rounded(sum)?)?.broadcast_div(&scale)
            }
            (Quantization::Int4 { block }, [scale, of_groups @ ..]) => {
                let shape = self.sizes(&Shape(xs.dims().iter().copied().map(Some).collect()));
                let shape = shape.map_err(candle_core::Error::msg)?.kernel;
                let integers = unpack_int4(kernel, self.flat(&shape).1, xs.dtype())?;
                let kernel = match (block, of_groups) {
                    (None, _) => integers.broadcast_div(scale)?,
                    (Some(_), [zero, groups]) => dequantized(&integers, scale, zero, groups, 0)?,
                    _ => bail!("a kernel in groups without its zeros"),
                };
                let kernel = policy.rounded(kernel)?.reshape(shape)?;
                match quantized.inputs.filter(|_| block.is_none()) {
                    None => product(xs, &kernel),
                    Some(inputs) => {
                        let (integers, scale) = terms.quantize(xs, inputs, policy)?;
                        policy.rounded(product(&integers, &kernel)?)?.broadcast_div(&scale)
                    }
                }
            }
            (Quantization::Float8 { .. }, [of_inputs, _, of_kernel, ..]) => {
                product(&through_float8(xs, of_inputs)?, &through_float8(kernel, of_kernel)?)
            }
            _ => bail!("expected other weights of a quantized kernel, found {}", own.len()),
        }
    }

    /// Keras: `_analyze_split_string`.
    pub(crate) fn sizes(&self, input: &Shape) -> Result<Sizes, String> {
        let Some(terms) = &self.terms else { return Err("no equation".to_owned()) };
        let axes = &input.0;
        let elided = axes.len().checked_sub(terms.input.len());
        let elided = elided.filter(|elided| *elided == 0 || terms.ellipsis != Ellipsis::None);
        let elided = elided.ok_or_else(|| format!("{}: an input of {input} has not its axes", terms.equation))?;
        let mut output = vec![axes.first().copied().flatten()];
        if terms.ellipsis == Ellipsis::Left {
            output.extend(axes.iter().take(elided).skip(1));
        }
        output.extend(&self.output_shape);
        if terms.ellipsis != Ellipsis::Left {
            output.extend(axes.iter().skip(axes.len().saturating_sub(elided)));
        }
        let ahead = if terms.ellipsis == Ellipsis::Left { elided } else { 0 };
        // Under the ellipsis before the letters lies the batch axis, if anything does.
        let named = |letters: &[char], sizes: &[Option<usize>], letter: char| {
            letters.iter().position(|other| *other == letter).and_then(|at| sizes.get(at + ahead).copied())
        };
        if output.len() != terms.output.len() + elided {
            let what = format!("{}: output_shape has {} axes", terms.equation, self.output_shape.len());
            return Err(format!(
                "{what}, the output {} beside the batch axis",
                (terms.output.len() + ahead).saturating_sub(1)
            ));
        }
        for letter in &terms.input {
            let (of_input, of_output) = (named(&terms.input, axes, *letter), named(&terms.output, &output, *letter));
            if let (Some(Some(of_input)), Some(Some(of_output))) = (of_input, of_output)
                && of_input != of_output
            {
                return Err(format!(
                    "{}: {letter} is {of_input} in the input and {of_output} in the output",
                    terms.equation
                ));
            }
        }
        let size = |letter: &char| {
            let size = named(&terms.output, &output, *letter).or_else(|| named(&terms.input, axes, *letter)).flatten();
            size.ok_or_else(|| format!("{}: the size of {letter} is not known", terms.equation))
        };
        let kernel = terms.kernel.iter().map(size).collect::<Result<Vec<usize>, String>>()?;
        let bias = match &self.bias_axes {
            None => None,
            Some(letters) => {
                if let Some(letter) = letters.iter().find(|letter| !terms.output.contains(letter)) {
                    return Err(format!("bias_axes: {letter} is not in the output of {}", terms.equation));
                }
                let after = terms.output.iter().skip_while(|letter| !letters.contains(letter));
                let of = |letter: &char| if letters.contains(letter) { size(letter) } else { Ok(1) };
                let mut bias = after.map(of).collect::<Result<Vec<usize>, String>>()?;
                if terms.ellipsis != Ellipsis::Left {
                    bias.extend(std::iter::repeat_n(1, elided));
                }
                Some(bias)
            }
        };
        Ok(Sizes { kernel, bias, output: Shape(output) })
    }
}
