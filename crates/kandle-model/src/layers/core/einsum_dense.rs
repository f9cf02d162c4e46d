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

use candle_core::bail;
use kandle_format::Problem;

use crate::{
    Activation, Call, Fields, Given, KerasLayer, Layout, Shape, Spec, Value, Weight,
    layers::{cannot, one},
    math::einsum::{Equation, einsum},
    numeric::{cast, rounded},
};

#[derive(Debug)]
pub(crate) struct EinsumDense {
    /// `None` where the equation is not understood.
    terms: Option<Terms>,
    /// The sizes of one sample of the output, `None` for one that xs has.
    output_shape: Vec<Option<usize>>,
    bias_axes: Option<Vec<char>>,
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
            // Keras: LoRA weights are merged into the kernel when the model is saved.
            "lora_rank",
            "lora_alpha",
            "gptq_unpacked_column_size",
        ]);
        fields.only_null("quantization_config");
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
        Self { terms, output_shape, bias_axes, activation: fields.activation("activation") }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let sizes = self.sizes(&given.input()?.shape)?;
        let mut weights = vec![Weight::new("kernel", sizes.kernel, "kernel", Layout::AsIs)];
        if let Some(bias) = sizes.bias {
            weights.push(Weight::new("bias", bias, "bias", Layout::AsIs));
        }
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
        let mut ys = rounded(&einsum(&terms.equation, &[&input.tensor, call.weight(0)?])?, policy)?;
        if self.bias_axes.is_some() {
            ys = rounded(&ys.broadcast_add(call.weight(1)?)?, policy)?;
        }
        Ok(vec![self.activation.apply(&input.with_tensor(ys))?])
    }
}

impl Terms {
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
