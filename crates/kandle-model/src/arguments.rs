use std::collections::BTreeMap;

use candle_core::Tensor;
use kandle_format::json::Value as Json;

use crate::{Policy, Spec, Value};

/// One argument of a call, as Keras's `call` method would get it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Argument {
    /// A tensor: its number among the tensors of the call.
    Tensor(usize),
    /// A list that holds a tensor somewhere.
    List(Vec<Argument>),
    /// A dict that holds a tensor somewhere, sorted by key.
    Mapping(BTreeMap<String, Argument>),
    /// Anything else, null included, as it stands in the file.
    Constant(Json),
}

impl Argument {
    /// The tensors it holds, in Keras's flattened order; null leaves are `None`.
    fn leaves(&self, found: &mut Vec<Option<usize>>) {
        match self {
            Self::Tensor(number) => found.push(Some(*number)),
            Self::List(items) => items.iter().for_each(|item| item.leaves(found)),
            Self::Mapping(items) => items.values().for_each(|item| item.leaves(found)),
            Self::Constant(_) => found.push(None),
        }
    }

    /// The numbers of its tensors, in Keras's flattened order; null leaves are `None`.
    #[must_use]
    pub fn tensors(&self) -> Vec<Option<usize>> {
        let mut found = Vec::new();
        self.leaves(&mut found);
        found
    }

    /// Whether Keras counts it among the tensor arguments: a tensor, or a nest of tensors.
    fn is_tensor(&self) -> bool {
        !matches!(self, Self::Constant(_))
    }
}

/// The arguments of one call, under the names that the layer's `call` method has for them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Arguments {
    parameters: &'static [&'static str],
    named: BTreeMap<&'static str, Argument>,
}

impl Arguments {
    /// Binds `positional` and `named` to `parameters`, as Python would.
    ///
    /// Keras: `training` is always false here, whatever a node recorded.
    ///
    /// # Errors
    /// What does not bind.
    pub(crate) fn bind(
        parameters: &'static [&'static str],
        positional: Vec<Argument>,
        named: BTreeMap<String, Argument>,
    ) -> Result<Self, String> {
        let (mut bound, mut others) = (BTreeMap::new(), BTreeMap::new());
        // The one parameter `*xs` takes them all.
        if let ([all], true) = (parameters, named.is_empty())
            && all.starts_with('*')
        {
            bound.insert(*all, Argument::List(positional));
            return Ok(Self { parameters, named: bound });
        }
        if positional.len() > parameters.len() {
            return Err(format!("takes {} arguments, called with {}", parameters.len(), positional.len()));
        }
        for (name, argument) in parameters.iter().zip(positional) {
            bound.insert(*name, argument);
        }
        for (name, argument) in named {
            match parameters.iter().find(|parameter| **parameter == name) {
                Some(parameter) => {
                    if bound.insert(parameter, argument).is_some() {
                        return Err(format!("called with two values for {name}"));
                    }
                }
                None if name == "training" => {}
                // The last parameter `**xs` takes what no other is called.
                None if parameters.last().is_some_and(|last| last.starts_with("**")) => {
                    others.insert(name, argument);
                }
                // Keras: a layer without a mask parameter never gets one; a recorded null means the same.
                None if argument == Argument::Constant(Json::Null) => {}
                None => {
                    return Err(format!("called with {}, which is not supported", kandle_format::shown(&name)));
                }
            }
        }
        if let Some(last) = parameters.last().filter(|last| last.starts_with("**")) {
            bound.insert(last, Argument::Mapping(others));
        }
        Ok(Self { parameters, named: bound })
    }

    /// The arguments of a call on `count` tensors: the first parameter is the tensor, or the list of them.
    pub(crate) fn of_first(parameters: &'static [&'static str], count: usize) -> Self {
        let first = match count {
            1 => Argument::Tensor(0),
            count => Argument::List((0..count).map(Argument::Tensor).collect()),
        };
        Self { parameters, named: parameters.first().map(|name| (*name, first)).into_iter().collect() }
    }

    /// The same call with `argument` for `name`.
    pub(crate) fn with(mut self, name: &'static str, argument: Argument) -> Self {
        self.named.insert(name, argument);
        self
    }

    /// The argument for the parameter `name`, unless it is null or not given.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Argument> {
        self.named.get(name).filter(|argument| **argument != Argument::Constant(Json::Null))
    }

    /// The number of the one tensor that the layer is called on, if it is one.
    pub(crate) fn only_input(&self) -> Option<usize> {
        match self.first()? {
            Argument::Tensor(number) => Some(*number),
            _ => None,
        }
    }

    /// The first parameter's argument: what the layer is called on.
    fn first(&self) -> Option<&Argument> {
        self.get(self.parameters.first()?)
    }

    /// The same call without the tensors for which `absent` holds, as if null had been given; and what is left of them.
    pub(crate) fn without(&self, absent: &dyn Fn(usize) -> bool) -> Self {
        fn replace(argument: &Argument, absent: &dyn Fn(usize) -> bool, kept: &dyn Fn(usize) -> usize) -> Argument {
            match argument {
                Argument::Tensor(number) if absent(*number) => Argument::Constant(Json::Null),
                Argument::Tensor(number) => Argument::Tensor(kept(*number)),
                Argument::List(items) => Argument::List(items.iter().map(|item| replace(item, absent, kept)).collect()),
                Argument::Mapping(items) => Argument::Mapping(
                    items.iter().map(|(key, item)| (key.clone(), replace(item, absent, kept))).collect(),
                ),
                Argument::Constant(value) => Argument::Constant(value.clone()),
            }
        }
        let kept = |number: usize| (0..number).filter(|before| !absent(*before)).count();
        let named = self.named.iter().map(|(name, argument)| (*name, replace(argument, absent, &kept))).collect();
        Self { parameters: self.parameters, named }
    }
}

/// What a layer is called with: tensors ([`Value`]) when it runs, what is known of them ([`Spec`]) when it is planned.
#[derive(Debug)]
pub struct Given<'a, T> {
    pub(crate) arguments: &'a Arguments,
    pub(crate) tensors: &'a [T],
    pub(crate) policy: &'a Policy,
}

impl<T> Clone for Given<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Given<'_, T> {}

impl<'a, T> Given<'a, T> {
    /// The one tensor that a layer of one input is called on.
    ///
    /// # Errors
    /// A text where there is none, or several.
    pub fn input(&self) -> Result<&'a T, String> {
        match self.inputs().as_slice() {
            [input] => Ok(input),
            inputs => Err(format!("expected one input, found {}", inputs.len())),
        }
    }

    /// The tensors of the first parameter, in Keras's flattened order.
    #[must_use]
    pub fn inputs(&self) -> Vec<&'a T> {
        self.arguments.first().map(|argument| self.tensors_of(argument)).unwrap_or_default()
    }

    /// The tensor given for `name`, if there is one.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&'a T> {
        match self.arguments.get(name)? {
            Argument::Tensor(number) => self.tensors.get(*number),
            _ => None,
        }
    }

    /// All tensors of the call, in Keras's flattened order.
    #[must_use]
    pub(crate) fn all(&self) -> &'a [T] {
        self.tensors
    }

    /// The tensors given for `name`, in Keras's flattened order.
    #[must_use]
    pub fn tensors(&self, name: &str) -> Vec<&'a T> {
        self.arguments.get(name).map(|argument| self.tensors_of(argument)).unwrap_or_default()
    }

    fn tensors_of(&self, argument: &Argument) -> Vec<&'a T> {
        argument.tensors().into_iter().flatten().filter_map(|number| self.tensors.get(number)).collect()
    }

    /// The tensor that an argument is, if it is one.
    #[must_use]
    pub fn at(&self, argument: &Argument) -> Option<&'a T> {
        match argument {
            Argument::Tensor(number) => self.tensors.get(*number),
            _ => None,
        }
    }

    /// The argument for `name`, unless it is null or not given.
    #[must_use]
    pub fn argument(&self, name: &str) -> Option<&'a Argument> {
        self.arguments.get(name)
    }

    /// The value given for `name` where it holds no tensor, unless it is null or not given.
    #[must_use]
    pub fn constant(&self, name: &str) -> Option<&'a Json> {
        match self.arguments.get(name)? {
            Argument::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// The truth value given for `name`, false where it is null or not given.
    ///
    /// # Errors
    /// A text where it is something else.
    pub fn flag(&self, name: &str) -> Result<bool, String> {
        match self.arguments.get(name) {
            None => Ok(false),
            Some(Argument::Constant(Json::Bool(flag))) => Ok(*flag),
            Some(_) => Err(format!("{name}: expected true or false")),
        }
    }

    /// The layer's dtype policy.
    #[must_use]
    pub fn policy(&self) -> &'a Policy {
        self.policy
    }

    /// How many arguments are tensors, as Keras counts them: a list of tensors is one.
    fn tensor_arguments(&self) -> usize {
        self.arguments.named.values().filter(|argument| argument.is_tensor()).count()
    }
}

impl<'a> Given<'a, Spec> {
    /// Sizes of the last axis of the one input, where it is known.
    ///
    /// # Errors
    /// A text that says what is missing.
    pub fn features(&self) -> Result<usize, String> {
        let unknown = "the size of its input's last axis is not known: give the model a fixed one in Keras, or FileLayer its `of`";
        self.input()?.shape.last().ok_or_else(|| unknown.to_owned())
    }
}

impl<'a> Given<'a, Value> {
    /// The mask that the parameter `mask` gets: the one given, or else the mask that came with the layer's only tensor
    /// argument. One entry for each tensor of that argument.
    ///
    /// Source: keras/src/layers/layer.py (`Layer.__call__`, step 6).
    #[must_use]
    pub fn masks(&self) -> Vec<Option<&'a Tensor>> {
        if let Some(argument) = self.arguments.get("mask") {
            return self.explicit(argument);
        }
        if self.arguments.parameters.contains(&"mask") && self.tensor_arguments() == 1 {
            let only = self.arguments.named.values().find(|argument| argument.is_tensor());
            return only.map(|argument| self.carried(argument)).unwrap_or_default();
        }
        Vec::new()
    }

    /// The mask of a layer that takes one.
    #[must_use]
    pub fn mask(&self) -> Option<&'a Tensor> {
        self.masks().into_iter().next().flatten()
    }

    /// The mask that the parameter `<name>_mask` gets: the one given, or else the mask that came with `name`, where the
    /// layer has several tensor arguments.
    #[must_use]
    pub fn mask_of(&self, name: &str) -> Option<&'a Tensor> {
        let parameter = format!("{name}_mask");
        if let Some(argument) = self.arguments.get(&parameter) {
            return self.explicit(argument).into_iter().next().flatten();
        }
        let argument = self.arguments.get(name).filter(|_| self.tensor_arguments() > 1)?;
        self.carried(argument).into_iter().next().flatten()
    }

    /// The masks that the layer's outputs inherit: those for `mask`, or those that came with the first argument.
    pub(crate) fn previous_masks(&self) -> Vec<Option<&'a Tensor>> {
        let masks = self.masks();
        if !masks.is_empty() {
            return masks;
        }
        self.arguments.first().map(|argument| self.carried(argument)).unwrap_or_default()
    }

    fn explicit(&self, argument: &Argument) -> Vec<Option<&'a Tensor>> {
        let tensor = |number: Option<usize>| self.tensors.get(number?).map(|value| &value.tensor);
        argument.tensors().into_iter().map(tensor).collect()
    }

    fn carried(&self, argument: &Argument) -> Vec<Option<&'a Tensor>> {
        let mask = |number: Option<usize>| self.tensors.get(number?)?.mask.as_ref();
        argument.tensors().into_iter().map(mask).collect()
    }
}
