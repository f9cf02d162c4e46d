//! Weights that are still in the file, read layer by layer: what compiles a model needs each only once.

use std::{collections::HashMap, sync::Arc};

use candle_core::{Device, Tensor};
use kandle_format::{Archive, Error, ErrorKind, Result};

use crate::{
    Model, Plan, PlannedLayer, Primitive,
    load::{Found, find_all},
    model::{prepared, primitives},
    primitive::{StoredRows, Table},
};

/// Numbers of a weight whose pages of the file are let go once it is read.
const LARGE: usize = 1 << 14;

/// A plan on an open file: every weight found and checked, none read yet.
pub struct InFile<'a> {
    plan: &'a Arc<Plan>,
    found: HashMap<String, Found<'a>>,
    archive: &'a Archive,
}

impl<'a> InFile<'a> {
    /// Finds every weight of `plan` in `archive`.
    ///
    /// # Errors
    /// As [`Plan::load`], but for what shows in the numbers themselves.
    pub fn new(plan: &'a Arc<Plan>, archive: &'a Archive) -> Result<Self> {
        let found = find_all(plan.weights(), archive)?;
        let found = found.into_iter().map(|weight| (weight.name.clone(), weight)).collect();
        Ok(Self { plan, found, archive })
    }

    /// As [`Model::primitives`], with weights that are read for it.
    ///
    /// # Errors
    /// As [`Model::primitives`], and where the file is damaged, with its name.
    pub fn primitives(&self, step: usize) -> Result<Option<Vec<Primitive>>> {
        let layer = self.plan.steps().get(step).and_then(|step| self.plan.layers().get(step.layer));
        let Some(layer) = layer else { return Ok(None) };
        let rows = self.table(layer).and_then(|table| layer.layer.rows_of(table));
        // Read first: what is wrong with the file is no error of candle's.
        let tensors = if rows.is_some() { Vec::new() } else { self.tensors(layer, Found::tensor)? };
        let chain = primitives(self.plan, step, rows, |_| prepared(self.plan, layer, &tensors));
        chain.map_err(|error| self.failed(layer, error))
    }

    /// The one weight of a layer where it lies in the file, if it is a matrix.
    fn table(&self, layer: &PlannedLayer) -> Option<Table> {
        let entries = self.plan.weights_of(layer);
        let mut names = entries.iter().flat_map(|entry| entry.weights.iter().map(|weight| entry.name(weight)));
        let (Some(name), None) = (names.next(), names.next()) else { return None };
        let found = self.found.get(&name)?;
        let [rows, features] = *found.weight.shape.as_slice() else { return None };
        StoredRows::new(found.in_file()?, rows, features).map(Table::InFile)
    }

    /// The model of the plan with the weights of some of its steps alone: others cannot be run.
    ///
    /// # Errors
    /// Where the file is damaged, with its name.
    pub fn with_weights_of(&self, steps: &[usize]) -> Result<Model> {
        let layers: Vec<usize> =
            steps.iter().filter_map(|step| self.plan.steps().get(*step)).map(|step| step.layer).collect();
        let weights = self.plan.layers().iter().enumerate().map(|(number, layer)| match layers.contains(&number) {
            true => self.tensors(layer, |found, device| Ok(found.read(device)?.as_detached_tensor())),
            false => Ok(Vec::new()),
        });
        Ok(Model::in_part(Arc::clone(self.plan), weights.collect::<Result<_>>()?))
    }

    /// The whole model, on variables of its own.
    ///
    /// # Errors
    /// As [`Plan::load`].
    pub fn model(&self) -> Result<Model> {
        let (vars, _) = self.plan.load(self.archive, &Device::Cpu)?;
        Model::of(Arc::clone(self.plan), &vars)
    }

    /// The weights of a layer, each by `read`.
    fn tensors(
        &self,
        layer: &PlannedLayer,
        read: impl Fn(&Found<'a>, &Device) -> Result<Tensor>,
    ) -> Result<Vec<Tensor>> {
        let entries = self.plan.weights_of(layer);
        let names = entries.iter().flat_map(|entry| entry.weights.iter().map(|weight| entry.name(weight)));
        let found = names.filter_map(|name| self.found.get(&name));
        let read = |found: &Found<'a>| {
            let tensor = read(found, &Device::Cpu).map_err(|error| error.in_file(self.archive.name()))?;
            // Large weights are not in memory twice.
            if tensor.elem_count() >= LARGE {
                found.let_go();
            }
            Ok(tensor)
        };
        found.map(read).collect()
    }

    fn failed(&self, layer: &PlannedLayer, error: candle_core::Error) -> Error {
        Error::new(ErrorKind::Invalid, layer.place(), error.to_string()).in_file(self.archive.name()).caused_by(error)
    }
}

impl std::fmt::Debug for InFile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InFile({:?}, {} weights)", self.archive.name(), self.found.len())
    }
}
