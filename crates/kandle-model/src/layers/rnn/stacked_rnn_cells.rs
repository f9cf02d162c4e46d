//! `keras.layers.StackedRNNCells`: cells one on the other, each with the output of the one before as its input.
//!
//! The states are those of the first cell, of the second, and so on; the output is that of the last. In the `VarMap` the
//! weights of the first cell lie under `cells.0`.
//!
//! Keras: before 2.2.3 the states of the last cell came first.
//!
//! Source: keras/src/layers/rnn/stacked_rnn_cells.py.

use candle_core::{Result, Tensor, bail};

use super::cell::{Cell, InnerCell, weight};
use crate::{Fields, Shape, Weight, plan::GroupNames};

#[derive(Debug)]
pub(super) struct StackedRnnCells {
    /// At least one.
    cells: Vec<InnerCell>,
    /// Whether the states of the last cell come first.
    last_first: bool,
}

impl Cell for StackedRnnCells {
    fn read(fields: &mut Fields<'_>) -> Self {
        // Keras: in tf.keras it changes what is planned, not what is computed.
        fields.only("reverse_state_order", &false.into());
        let last_first = fields.is_older_than_tensorflows() && !fields.is_from([2, 2, 3]);
        let configs = match fields.take("cells") {
            Some(value) => match value.as_array() {
                Some(configs) if !configs.is_empty() => configs.as_slice(),
                _ => {
                    fields.invalid("cells", value, "a list of cells");
                    &[]
                }
            },
            None => {
                fields.wrong("cells is missing");
                &[]
            }
        };
        Self { cells: configs.iter().map(|config| InnerCell::read_cell(fields, "cells", config)).collect(), last_first }
    }

    fn weights(&self, input: &Shape, suffix: &str) -> std::result::Result<Vec<Weight>, String> {
        let (mut weights, mut groups, mut input) = (Vec::new(), GroupNames::default(), input.clone());
        for (number, cell) in self.cells.iter().enumerate() {
            let owner = format!("cells/{}", groups.next(&cell.class));
            weights.extend(cell.declared(cell.layer.weights(&input, suffix)?, &owner, &format!("cells.{number}")));
            input = output(cell, &input)?;
        }
        Ok(weights)
    }

    fn weight_count(&self) -> usize {
        self.cells.iter().map(Cell::weight_count).sum()
    }

    fn states(&self, input: &Shape) -> std::result::Result<Vec<Shape>, String> {
        let (mut states, mut input) = (Vec::new(), input.clone());
        for cell in &self.cells {
            states.push(cell.states(&input)?);
            input = output(cell, &input)?;
        }
        Ok(self.in_order(states))
    }

    fn state_count(&self) -> usize {
        self.cells.iter().map(Cell::state_count).sum()
    }

    fn output_state(&self) -> usize {
        let others = self.cells.iter().rev().skip(1).map(Cell::state_count).sum::<usize>();
        let before = if self.last_first { 0 } else { others };
        before + self.cells.last().map_or(0, Cell::output_state)
    }

    fn prepare(&self, weights: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut prepared = Vec::new();
        for (cell, weights) in self.cells.iter().zip(split(self.cells.iter(), weights, Cell::weight_count)?) {
            prepared.extend(cell.prepare(weights)?);
        }
        Ok(prepared)
    }

    fn project(&self, xs: &Tensor, weights: &[Tensor]) -> Result<Tensor> {
        match (self.cells.first(), split(self.cells.iter(), weights, Cell::weight_count)?.first()) {
            (Some(cell), Some(weights)) => cell.project(xs, weights),
            _ => bail!("a stack of no cells"),
        }
    }

    fn step(&self, projected: &Tensor, states: &[Tensor], weights: &[Tensor]) -> Result<Vec<Tensor>> {
        let states = if self.last_first {
            split(self.cells.iter().rev(), states, Cell::state_count)?.into_iter().rev().collect()
        } else {
            split(self.cells.iter(), states, Cell::state_count)?
        };
        let weights = split(self.cells.iter(), weights, Cell::weight_count)?;
        let mut new_states: Vec<Vec<Tensor>> = Vec::new();
        let mut below: Option<Tensor> = None;
        for ((cell, states), weights) in self.cells.iter().zip(states).zip(weights) {
            let projected = match &below {
                Some(output) => &cell.project(output, weights)?,
                None => projected,
            };
            let stepped = cell.step(projected, states, weights)?;
            below = Some(weight(&stepped, cell.output_state())?.clone());
            new_states.push(stepped);
        }
        Ok(self.in_order(new_states))
    }
}

impl StackedRnnCells {
    /// What each cell has, as one list in the order of the states.
    fn in_order<T>(&self, mut states: Vec<Vec<T>>) -> Vec<T> {
        if self.last_first {
            states.reverse();
        }
        states.into_iter().flatten().collect()
    }
}

/// What of `tensors` belongs to each of the cells.
fn split<'c, 't>(
    cells: impl Iterator<Item = &'c InnerCell>,
    mut tensors: &'t [Tensor],
    count: impl Fn(&InnerCell) -> usize,
) -> Result<Vec<&'t [Tensor]>> {
    let mut parts = Vec::new();
    for cell in cells {
        let Some((own, rest)) = tensors.split_at_checked(count(cell)) else {
            bail!("the cells have fewer weights or states than they need")
        };
        parts.push(own);
        tensors = rest;
    }
    Ok(parts)
}

/// The shape of a cell's output.
fn output(cell: &InnerCell, input: &Shape) -> std::result::Result<Shape, String> {
    let states = cell.states(input)?;
    states.into_iter().nth(cell.output_state()).ok_or_else(|| "a cell without a state".to_owned())
}
