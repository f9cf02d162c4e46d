//! What an engine made of a model, to be looked at.

/// The instructions of an engine, in the order they run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Compiled {
    /// The instructions; none where the model is run as it is.
    pub instructions: Vec<Instruction>,
    /// How many of them are calls of the model, for layers that have no kernel.
    pub calls: usize,
}

/// One instruction.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Instruction {
    /// What it does: `product + relu`.
    pub work: String,
    /// The layers that it stands for, by path.
    pub layers: Vec<String>,
    /// The memory of its weights.
    pub bytes: usize,
}
