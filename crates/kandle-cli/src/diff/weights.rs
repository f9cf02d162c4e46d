//! How the weights of two files differ.

use std::collections::BTreeMap;

use kandle::parity::Array;
use kandle::{Archive, Plan};

use super::side::{Side, SideFile, Tensor, of_safetensors};
use crate::Failure;

/// What was compared, and what is different.
#[derive(Default)]
pub(crate) struct Weights {
    /// Why nothing was compared.
    pub(crate) not_compared: Option<String>,
    /// Tensors that B lacks: name, shape, dtype.
    pub(crate) missing: Vec<Described>,
    /// Tensors that only B has.
    pub(crate) extra: Vec<Described>,
    pub(crate) differing: Vec<Differing>,
    /// Tensors that are the same bit for bit, and their numbers.
    pub(crate) equal: usize,
    pub(crate) equal_numbers: usize,
}

pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: String,
}

pub(crate) struct Differing {
    pub(crate) name: String,
    pub(crate) how: How,
}

pub(crate) enum How {
    Shape(Vec<usize>, Vec<usize>),
    Dtype(String, String),
    Numbers(Numbers),
}

/// Numbers that are not the same bit for bit.
pub(crate) struct Numbers {
    pub(crate) differing: usize,
    pub(crate) of: usize,
    /// Where the largest difference is.
    pub(crate) at: Vec<usize>,
    pub(crate) a: f64,
    pub(crate) b: f64,
}

impl Numbers {
    /// The largest difference; infinite where one of the two is NaN.
    pub(crate) fn distance(&self) -> f64 {
        distance(self.a, self.b)
    }
}

fn distance(a: f64, b: f64) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => 0.0,
        (true, false) | (false, true) => f64::INFINITY,
        // Infinities of the same sign.
        _ if a == b => 0.0,
        _ => (a - b).abs(),
    }
}

impl Weights {
    /// Compares the tensors of both files; `names` has for each layer of A its name in B.
    pub(crate) fn new(a: &Side, b: &Side, names: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let mut found = Self::default();
        let Pair { a: of_a, b: of_b, renamed } = match pair(a, b, names)? {
            Ok(pair) => pair,
            Err(why) => return Ok(Self { not_compared: Some(why), ..found }),
        };
        let mut others: BTreeMap<&str, &Tensor<'_>> =
            of_b.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        for tensor in &of_a {
            let name = renamed.get(&tensor.name).map_or(tensor.name.as_str(), String::as_str);
            match others.remove(name) {
                Some(other) => found.compare(tensor, other)?,
                None => found.missing.push(described(tensor)),
            }
        }
        // In the order of the file.
        found.extra = of_b.iter().filter(|tensor| others.contains_key(tensor.name.as_str())).map(described).collect();
        Ok(found)
    }

    pub(crate) fn differences(&self) -> usize {
        self.missing.len() + self.extra.len() + self.differing.len()
    }

    fn compare(&mut self, a: &Tensor<'_>, b: &Tensor<'_>) -> Result<(), Failure> {
        let how = if a.shape != b.shape {
            How::Shape(a.shape.clone(), b.shape.clone())
        } else if a.dtype != b.dtype || a.dtype.is_none() {
            How::Dtype(described(a).dtype, described(b).dtype)
        } else {
            match compare(&a.array()?, &b.array()?) {
                Some(numbers) => How::Numbers(numbers),
                None => {
                    self.equal += 1;
                    self.equal_numbers = self.equal_numbers.saturating_add(crate::rows::numbers(&a.shape));
                    return Ok(());
                }
            }
        };
        self.differing.push(Differing { name: a.name.clone(), how });
        Ok(())
    }
}

/// How the numbers differ; `None` where they are the same bit for bit.
fn compare(a: &Array, b: &Array) -> Option<Numbers> {
    if a.bytes() == b.bytes() {
        return None;
    }
    let size = a.bytes().len() / a.len().max(1);
    let (mut differing, mut worst) = (0, (0, -1.0));
    for (place, (one, other)) in a.bytes().chunks(size.max(1)).zip(b.bytes().chunks(size.max(1))).enumerate() {
        if one == other {
            continue;
        }
        differing += 1;
        let far = distance(a.value(place).unwrap_or(f64::NAN), b.value(place).unwrap_or(f64::NAN));
        if far > worst.1 {
            worst = (place, far);
        }
    }
    let mut rest = worst.0;
    let mut at: Vec<usize> = a
        .shape()
        .iter()
        .rev()
        .map(|axis| {
            let index = rest % (*axis).max(1);
            rest /= (*axis).max(1);
            index
        })
        .collect();
    at.reverse();
    let value = |array: &Array| array.value(worst.0).unwrap_or(f64::NAN);
    Some(Numbers { differing, of: a.len(), at, a: value(a), b: value(b) })
}

fn described(tensor: &Tensor<'_>) -> Described {
    let dtype = tensor.dtype.map_or_else(|| "a dtype that is not read".to_owned(), |dtype| dtype.to_string());
    Described { name: tensor.name.clone(), shape: tensor.shape.clone(), dtype }
}

/// The tensors of both files under comparable names.
struct Pair<'a> {
    a: Vec<Tensor<'a>>,
    b: Vec<Tensor<'a>>,
    /// For each name of A that is another in B that one.
    renamed: BTreeMap<String, String>,
}

impl<'a> Pair<'a> {
    fn new(a: Vec<Tensor<'a>>, b: Vec<Tensor<'a>>) -> Self {
        Self { a, b, renamed: BTreeMap::new() }
    }
}

/// The tensors of both files, or why they cannot be compared.
fn pair<'a>(a: &'a Side, b: &'a Side, names: &BTreeMap<String, String>) -> Result<Result<Pair<'a>, String>, Failure> {
    if let (Some(plan_a), Some(plan_b)) = (a.fitting_plan(), b.fitting_plan()) {
        return Ok(match (by_plan(a, plan_a)?, by_plan(b, plan_b)?) {
            (Some(a), Some(b)) => Ok(Pair { a, b, renamed: renamed(plan_a, plan_b, names) }),
            _ => Err(without_weights(a, b)),
        });
    }
    // The one file says what the other's weights are.
    let plan = match (a.fitting_plan(), b.fitting_plan()) {
        (Some(plan), None) if b.config.is_none() => Some(plan),
        (None, Some(plan)) if a.config.is_none() => Some(plan),
        _ => None,
    };
    if let Some(plan) = plan {
        match (by_plan(a, plan), by_plan(b, plan)) {
            (Ok(Some(a)), Ok(Some(b))) => return Ok(Ok(Pair::new(a, b))),
            // Weights of another model can still be compared by path.
            (Err(error), _) | (_, Err(error)) if by_path(a, b)?.is_none() => return Err(error),
            _ => {}
        }
    }
    Ok(by_path(a, b)?.ok_or_else(|| without_weights(a, b)))
}

fn without_weights(a: &Side, b: &Side) -> String {
    let has = |side: &Side| side.archive().is_none_or(Archive::has_weights);
    match (has(a), has(b)) {
        (true, true) => {
            "the files name their weights in two ways, and no configuration that runs says which is which".to_owned()
        }
        (false, false) => "neither file has any".to_owned(),
        (true, false) => format!("{} has none", b.name),
        (false, true) => format!("{} has none", a.name),
    }
}

/// The weights of `side` under the names of `plan`.
fn by_plan<'a>(side: &'a Side, plan: &'a Plan) -> Result<Option<Vec<Tensor<'a>>>, Failure> {
    Ok(match (&side.file, side.archive()) {
        (_, Some(archive)) if archive.has_weights() => {
            Some(plan.weights().tensors(archive)?.into_iter().map(Tensor::of_weight).collect())
        }
        (SideFile::Safetensors(bytes), _) => Some(of_safetensors(bytes)?),
        _ => None,
    })
}

/// The arrays of both files by path, where both are of one kind.
fn by_path<'a>(a: &'a Side, b: &'a Side) -> Result<Option<Pair<'a>>, Failure> {
    let arrays = |archive: &'a Archive| -> Vec<Tensor<'a>> {
        let arrays = archive.arrays();
        // What the optimizer left is no weight of the model.
        let weights = arrays.paths().filter(|path| match archive.weights_are_legacy() {
            true => path.starts_with(archive.legacy_root()),
            false => !path.starts_with("optimizer/"),
        });
        weights.filter_map(|path| arrays.array(path)).map(Tensor::of_array).collect()
    };
    Ok(match (a.archive(), b.archive(), &a.file, &b.file) {
        (Some(one), Some(other), ..) if stores_alike(one, other) => Some(Pair::new(arrays(one), arrays(other))),
        (_, _, SideFile::Safetensors(one), SideFile::Safetensors(other)) => {
            Some(Pair::new(of_safetensors(one)?, of_safetensors(other)?))
        }
        _ => None,
    })
}

/// Whether both name their arrays by the same rule.
fn stores_alike(a: &Archive, b: &Archive) -> bool {
    [a, b].iter().all(|archive| archive.has_weights())
        && (a.weights_are_legacy(), a.legacy_root()) == (b.weights_are_legacy(), b.legacy_root())
}

/// The names in B of the weights whose layer is called otherwise there.
fn renamed(a: &Plan, b: &Plan, names: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut renamed = BTreeMap::new();
    for layer in a.weights().layers() {
        let Some(other) = names.get(&layer.layer) else { continue };
        let Some(other) = b.weights().layers().iter().find(|candidate| candidate.layer == *other) else { continue };
        for weight in &layer.weights {
            renamed.insert(layer.name(weight), other.name(weight));
            if let (Some(zeros), Some(others)) = (layer.zeros_beside(weight), other.zeros_beside(weight)) {
                renamed.insert(zeros, others);
            }
        }
    }
    renamed
}
