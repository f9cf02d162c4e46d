//! Files of tensors: `.safetensors`, `.npy` and `.json`, told apart by their extension.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use kandle::json::{self, Value};
use kandle::parity::{Array, Dtype};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use tempfile::NamedTempFile;

use crate::{Failure, npy};

/// A kind of file of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Named tensors of every dtype.
    Safetensors,
    /// One tensor without a name.
    Npy,
    /// An object from names to nested lists, or one nested list alone.
    Json,
}

impl Format {
    /// The format that the extension of `path` says.
    pub(crate) fn of(path: &Path) -> Result<Self, Failure> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => Ok(Self::Safetensors),
            Some("npy") => Ok(Self::Npy),
            Some("json") => Ok(Self::Json),
            _ => Err(format!("{}: expected a name that ends in .safetensors, .npy or .json", path.display()).into()),
        }
    }
}

/// The tensors of the file at `path` with their names, where they have any, sorted by name.
pub(crate) fn read(path: &Path) -> Result<Vec<(Option<String>, Array)>, Failure> {
    let format = Format::of(path)?;
    let bytes = fs::read(path).map_err(|error| format!("{}: cannot read: {error}", path.display()))?;
    let tensors = match format {
        Format::Safetensors => from_safetensors(&bytes),
        Format::Npy => npy::read(&bytes).map(|array| vec![(None, array)]),
        Format::Json => from_json(&bytes),
    };
    tensors.map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Writes `tensors` to a file at `path`: beside it first, and renamed when all of it is there.
pub(crate) fn write(path: &Path, tensors: &[(String, Array)]) -> Result<(), Failure> {
    let bytes = match (Format::of(path)?, tensors) {
        (Format::Safetensors, _) => to_safetensors(tensors),
        (Format::Npy, [(_, array)]) => npy::write(array),
        (Format::Npy, _) => {
            Err(format!("a .npy file holds one tensor, not {}: write .safetensors or .json", tensors.len()).into())
        }
        (Format::Json, _) => Ok(to_json(tensors).into_bytes()),
    };
    let bytes = bytes.map_err(|error| format!("{}: {error}", path.display()))?;
    write_whole(path, &bytes).map_err(|error| format!("{}: cannot write: {error}", path.display()).into())
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = beside(path)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// A file beside `path`, to be renamed when all of it is there.
pub(crate) fn temporary(path: &Path) -> Result<NamedTempFile, Failure> {
    beside(path).map_err(|error| format!("{}: cannot write: {error}", path.display()).into())
}

fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".kandle-");
    // A temporary file is its owner's alone; the result is for whom the user's umask says.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

fn from_safetensors(bytes: &[u8]) -> Result<Vec<(Option<String>, Array)>, Failure> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| format!("not safetensors: {error}"))?;
    let mut tensors = Vec::new();
    for (name, view) in file.iter() {
        let array = Array::read(&view).map_err(|error| format!("{}: {error}", kandle::shown(name)))?;
        tensors.push((name.to_owned(), array));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let take = |tensors: &mut Vec<(String, Array)>, name: &str| {
        let found = tensors.iter().position(|(other, _)| other == name)?;
        Some(tensors.remove(found).1)
    };
    let of_texts = |(name, _): &(String, Array)| name.strip_suffix(OFFSETS).map(str::to_owned);
    for name in tensors.iter().filter_map(of_texts).collect::<Vec<_>>() {
        let shape = take(&mut tensors, &format!("{name}{SHAPE}"));
        let (Some(bytes), Some(offsets)) = (take(&mut tensors, &name), take(&mut tensors, &format!("{name}{OFFSETS}")))
        else {
            return Err(format!("{}{OFFSETS}: there is no {}", kandle::shown(&name), kandle::shown(&name)).into());
        };
        let texts = bytes.split(&offsets).and_then(|texts| match shape.as_ref().and_then(sizes) {
            Some(shape) => texts.reshaped(&shape),
            None => Ok(texts),
        });
        tensors.push((name.clone(), texts.map_err(|error| format!("{}: {error}", kandle::shown(&name)))?));
    }
    Ok(tensors.into_iter().map(|(name, array)| (Some(name), array)).collect())
}

/// What a tensor of strings has beside its bytes in a .safetensors file: where each string begins and the last ends, and
/// how many there are along each axis. Without the latter there is one axis.
const OFFSETS: &str = ".offsets";
const SHAPE: &str = ".shape";

/// The whole numbers of an int64 tensor.
fn sizes(shape: &Array) -> Option<Vec<usize>> {
    let (sizes, _) = shape.bytes().as_chunks::<8>();
    let size = |bytes: &[u8; 8]| usize::try_from(i64::from_le_bytes(*bytes)).ok();
    if shape.dtype() == Dtype::I64 { sizes.iter().map(size).collect() } else { None }
}

fn to_safetensors(tensors: &[(String, Array)]) -> Result<Vec<u8>, Failure> {
    // safetensors knows no strings: their bytes stand one after another.
    let mut stored: Vec<(String, Array)> = Vec::new();
    for (name, array) in tensors {
        match array.stored_texts() {
            Some((bytes, offsets)) => {
                let shape = array.shape().iter().map(|size| i64::try_from(*size)).collect::<Result<Vec<_>, _>>()?;
                let shape = Array::from_slice(&shape, &[shape.len()])?;
                let beside = [(format!("{name}{OFFSETS}"), offsets), (format!("{name}{SHAPE}"), shape)];
                stored.extend([(name.clone(), bytes)].into_iter().chain(beside));
            }
            None => stored.push((name.clone(), array.clone())),
        }
    }
    let mut views = Vec::new();
    for (name, array) in &stored {
        let dtype = array.dtype().stored().ok_or_else(|| format!("safetensors has no {}", array.dtype()))?;
        views.push((name, TensorView::new(dtype, array.shape().to_vec(), array.bytes())?));
    }
    Ok(safetensors::serialize(views, None)?)
}

fn from_json(bytes: &[u8]) -> Result<Vec<(Option<String>, Array)>, Failure> {
    match json::parse(bytes, "", &kandle::Limits::default())? {
        Value::Object(tensors) => {
            let named = |(name, list): (&String, &Value)| match nested(list) {
                Ok(array) => Ok((Some(name.clone()), array)),
                Err(error) => Err(format!("{}: {error}", kandle::shown(name)).into()),
            };
            tensors.iter().map(named).collect()
        }
        list => Ok(vec![(None, nested(&list)?)]),
    }
}

/// The tensor of a nested list: bool where all is `true` or `false`, strings where all are texts, int64 where all are
/// integers, else float64.
fn nested(list: &Value) -> Result<Array, Failure> {
    let (mut shape, mut first) = (Vec::new(), Some(list));
    while let Some(Value::Array(items)) = first {
        shape.push(items.len());
        first = items.first();
    }
    let mut leaves = Vec::new();
    gather(list, &shape, &mut Vec::new(), &mut leaves)?;
    if !leaves.is_empty()
        && let Some(bools) = leaves.iter().map(|(_, leaf)| leaf.as_bool()).collect::<Option<Vec<_>>>()
    {
        return Ok(Array::from_slice(&bools, &shape)?);
    }
    if !leaves.is_empty()
        && let Some(integers) = leaves.iter().map(|(_, leaf)| leaf.as_i64()).collect::<Option<Vec<_>>>()
    {
        return Ok(Array::from_slice(&integers, &shape)?);
    }
    if !leaves.is_empty()
        && let Some(texts) = leaves.iter().map(|(_, leaf)| leaf.as_str()).collect::<Option<Vec<_>>>()
    {
        return Ok(Array::from_texts(&texts, &shape)?);
    }
    let number = |(at, leaf): &(Vec<usize>, &Value)| {
        json::number(leaf).ok_or_else(|| format!("at {at:?}: expected a number, found {}", json::shown(leaf)))
    };
    Ok(Array::from_slice(&leaves.iter().map(number).collect::<Result<Vec<f64>, _>>()?, &shape)?)
}

/// What stands in the lists of `value`, all of which must be as long as `shape` says.
fn gather<'a>(
    value: &'a Value,
    shape: &[usize],
    at: &mut Vec<usize>,
    leaves: &mut Vec<(Vec<usize>, &'a Value)>,
) -> Result<(), Failure> {
    match (value, shape.split_first()) {
        (Value::Array(items), Some((size, rest))) if items.len() == *size => {
            for (position, item) in items.iter().enumerate() {
                at.push(position);
                gather(item, rest, at, leaves)?;
                at.pop();
            }
            Ok(())
        }
        (Value::Array(items), Some((size, _))) => {
            Err(format!("a ragged list: at {at:?}: expected {size} entries as before, found {}", items.len()).into())
        }
        (Value::Array(_), None) => Err(format!("a ragged list: at {at:?}: expected a number, found a list").into()),
        (leaf, Some(_)) => {
            Err(format!("a ragged list: at {at:?}: expected a list, found {}", json::shown(leaf)).into())
        }
        (leaf, None) => {
            leaves.push((at.clone(), leaf));
            Ok(())
        }
    }
}

/// `{"output_0": [[0.5, 1.0]]}`: every number so that it is read back as the same bits, `NaN` and `Infinity` as Python
/// writes and reads them; texts as far as they are UTF-8.
fn to_json(tensors: &[(String, Array)]) -> String {
    let mut text = String::from("{");
    for (number, (name, array)) in tensors.iter().enumerate() {
        text.push_str(if number == 0 { "" } else { ", " });
        text.push_str(&Value::from(name.as_str()).to_string());
        text.push_str(": ");
        push_nested(&mut text, array, array.shape(), &mut 0);
    }
    text.push_str("}\n");
    text
}

fn push_nested(text: &mut String, array: &Array, shape: &[usize], position: &mut usize) {
    let Some((size, rest)) = shape.split_first() else {
        text.push_str(&number(array, *position));
        *position += 1;
        return;
    };
    text.push('[');
    for item in 0..*size {
        text.push_str(if item == 0 { "" } else { ", " });
        push_nested(text, array, rest, position);
    }
    text.push(']');
}

/// One number in as few digits as tell it from all others of its dtype.
fn number(array: &Array, position: usize) -> String {
    let value = array.value(position).unwrap_or(f64::NAN);
    let eight = || array.bytes().as_chunks::<8>().0.get(position).copied().unwrap_or_default();
    match array.dtype() {
        Dtype::BOOL => (value != 0.0).to_string(),
        // As f64 they would be rounded beyond 2⁵³.
        Dtype::I64 => i64::from_le_bytes(eight()).to_string(),
        Dtype::U64 => u64::from_le_bytes(eight()).to_string(),
        Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16 if value.is_infinite() => {
            if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        }
        Dtype::STRING => Value::from(String::from_utf8_lossy(array.text(position).unwrap_or_default())).to_string(),
        Dtype::F64 => format!("{value:?}"),
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => format!("{:?}", value as f32),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_list_says_its_dtype() {
        for (text, array) in [
            ("[[1, 2], [3, -4]]", Array::from_slice(&[1i64, 2, 3, -4], &[2, 2])),
            ("[1, 2.5]", Array::from_slice(&[1.0f64, 2.5], &[2])),
            ("[[true], [false]]", Array::from_slice(&[true, false], &[2, 1])),
            ("7", Array::from_slice(&[7i64], &[])),
            ("[[\"a\"], [\"\"]]", Array::from_texts(&["a", ""], &[2, 1])),
            ("[[], []]", Array::from_slice::<f64>(&[], &[2, 0])),
            ("[-Infinity, 0.1]", Array::from_slice(&[f64::NEG_INFINITY, 0.1], &[2])),
        ] {
            assert_eq!(from_json(text.as_bytes()).unwrap(), [(None, array.unwrap())], "{text}");
        }
    }

    #[test]
    fn a_list_that_is_no_tensor_is_an_error_with_its_place() {
        for (text, says) in [
            ("[[1, 2], [3]]", "a ragged list: at [1]: expected 2 entries as before, found 1"),
            ("[[1], 2]", "a ragged list: at [1]: expected a list, found 2"),
            ("[1, [2]]", "a ragged list: at [1]: expected a number, found a list"),
            ("[[], [1]]", "a ragged list: at [1]: expected 0 entries as before, found 1"),
            ("{\"ids\": [1, true]}", "ids: at [1]: expected a number, found true"),
            ("[[1], [null]]", "at [1, 0]: expected a number, found null"),
            ("[1, \"a\"]", "at [1]: expected a number, found \"a\""),
            ("{\"a\": {}}", "a: at []: expected a number, found {}"),
            ("[1", "not JSON: EOF while parsing a list at line 1 column 2"),
        ] {
            assert_eq!(from_json(text.as_bytes()).unwrap_err().to_string(), says, "{text}");
        }
    }

    #[test]
    fn json_gives_back_the_same_bits() {
        let floats = [0.1f32, -0.0, 1e-45, f32::MAX, 16_777_216.0, 1.0 / 3.0, f32::INFINITY];
        let text = to_json(&[("output_0".to_owned(), Array::from_slice(&floats, &[1, 7]).unwrap())]);
        assert_eq!(text, "{\"output_0\": [[0.1, -0.0, 1e-45, 3.4028235e38, 16777216.0, 0.33333334, Infinity]]}\n");
        let back = from_json(text.as_bytes()).unwrap();
        let bits: Vec<u32> = (0..7).map(|i| (back[0].1.value(i).unwrap() as f32).to_bits()).collect();
        assert_eq!(bits, floats.map(f32::to_bits));
        let text = |array: Array| to_json(&[("a".to_owned(), array)]);
        assert_eq!(
            text(Array::from_slice(&[i64::MAX, i64::MIN], &[2]).unwrap()),
            format!("{{\"a\": [{}, {}]}}\n", i64::MAX, i64::MIN)
        );
        assert_eq!(text(Array::from_slice(&[u64::MAX], &[]).unwrap()), format!("{{\"a\": {}}}\n", u64::MAX));
        assert_eq!(text(Array::from_slice(&[true, false], &[2]).unwrap()), "{\"a\": [true, false]}\n");
        assert_eq!(text(Array::from_texts(&["b\"", "\u{fc}"], &[2]).unwrap()), "{\"a\": [\"b\\\"\", \"\u{fc}\"]}\n");
        assert_eq!(text(Array::from_slice(&[f64::NAN, 0.1], &[2]).unwrap()), "{\"a\": [NaN, 0.1]}\n");
        assert_eq!(text(Array::from_slice::<u8>(&[], &[2, 0]).unwrap()), "{\"a\": [[], []]}\n");
    }

    #[test]
    fn safetensors_keep_every_dtype() {
        let tensors = [
            ("a".to_owned(), Array::from_slice(&[true, false], &[2]).unwrap()),
            ("b".to_owned(), Array::from_slice(&[-1i8], &[1]).unwrap()),
            ("c".to_owned(), Array::from_slice(&[u16::MAX], &[]).unwrap()),
        ];
        let back = from_safetensors(&to_safetensors(&tensors).unwrap()).unwrap();
        assert_eq!(back, tensors.map(|(name, array)| (Some(name), array)));
        let texts = [("d".to_owned(), Array::from_texts(&["one", "", "zwei"], &[3, 1]).unwrap())];
        let back = from_safetensors(&to_safetensors(&texts).unwrap()).unwrap();
        assert_eq!(back, texts.map(|(name, array)| (Some(name), array)));
        let lonely = [("d.offsets".to_owned(), Array::from_slice(&[0i64, 3], &[2]).unwrap())];
        let error = from_safetensors(&to_safetensors(&lonely).unwrap()).unwrap_err().to_string();
        assert_eq!(error, "d.offsets: there is no d");
    }

    #[test]
    fn a_file_is_written_whole_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let two = ["output_0", "output_1"].map(|name| (name.to_owned(), Array::from_slice(&[1f32], &[1]).unwrap()));
        let error = write(&folder.path().join("two.npy"), &two).unwrap_err().to_string();
        assert!(
            error.ends_with("two.npy: a .npy file holds one tensor, not 2: write .safetensors or .json"),
            "{error}"
        );
        fs::create_dir(folder.path().join("folder.json")).unwrap();
        assert!(write(&folder.path().join("folder.json"), &two).unwrap_err().to_string().contains("cannot write"));
        write(&folder.path().join("two.json"), &two).unwrap();
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["folder.json", "two.json"]);
    }
}
