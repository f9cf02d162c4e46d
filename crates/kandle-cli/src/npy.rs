//! One array in a `.npy` file: little-endian, C order, nothing after it.
//!
//! candle's own reader takes bool as uint8, knows neither int8 nor uint16 nor uint64, allocates what the header claims
//! and passes over bytes that are too many; so this is a strict one.
//! Source: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use kandle::parity::{Array, Dtype};

use crate::Failure;

const MAGIC: &[u8] = b"\x93NUMPY";

/// numpy's names for the dtypes: `<` is little-endian, `|` a single byte.
const DTYPES: [(&str, Dtype); 12] = [
    ("|b1", Dtype::BOOL),
    ("|i1", Dtype::I8),
    ("|u1", Dtype::U8),
    ("<i2", Dtype::I16),
    ("<u2", Dtype::U16),
    ("<i4", Dtype::I32),
    ("<u4", Dtype::U32),
    ("<i8", Dtype::I64),
    ("<u8", Dtype::U64),
    ("<f2", Dtype::F16),
    ("<f4", Dtype::F32),
    ("<f8", Dtype::F64),
];

/// What a header says.
#[derive(Debug, PartialEq)]
struct Header<'a> {
    descr: &'a str,
    fortran_order: bool,
    shape: Vec<usize>,
}

pub(crate) fn read(bytes: &[u8]) -> Result<Array, Failure> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("not a .npy file: it does not begin with \\x93NUMPY")?;
    let cut_short = || "cut short: the header is not all there";
    let (version, rest) = rest.split_first_chunk().ok_or_else(cut_short)?;
    let (length, rest) = match *version {
        [1, 0] => rest.split_first_chunk().map(|(length, rest)| (u32::from(u16::from_le_bytes(*length)), rest)),
        [2, 0] => rest.split_first_chunk().map(|(length, rest)| (u32::from_le_bytes(*length), rest)),
        [major, minor] => return Err(format!("expected format 1.0 or 2.0, found {major}.{minor}").into()),
    }
    .ok_or_else(cut_short)?;
    let (header, numbers) = rest.split_at_checked(usize::try_from(length)?).ok_or_else(cut_short)?;
    let header = std::str::from_utf8(header).ok().and_then(Header::parse).ok_or_else(|| {
        format!(
            "expected a header such as {{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }}, found {}",
            kandle::shown(String::from_utf8_lossy(header).trim())
        )
    })?;
    if header.fortran_order {
        return Err("expected C order, found Fortran order: save numpy.ascontiguousarray(xs) instead".into());
    }
    let dtype = DTYPES.iter().find(|known| known.0 == header.descr).map(|known| known.1);
    let dtype = dtype.ok_or_else(|| {
        let known: Vec<&str> = DTYPES.iter().map(|known| known.0).collect();
        format!("dtype: expected one of {}, found {}", known.join(" "), kandle::shown(header.descr))
    })?;
    Ok(Array::new(dtype, header.shape, numbers.to_vec())?)
}

pub(crate) fn write(array: &Array) -> Result<Vec<u8>, Failure> {
    let descr = DTYPES.iter().find(|known| known.1 == array.dtype()).map(|known| known.0);
    let descr = descr.ok_or_else(|| format!("numpy has no dtype {}: write .safetensors instead", array.dtype()))?;
    let shape = crate::terminal::shape(array.shape());
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // With spaces and a line end, so that the numbers begin at a multiple of 64 bytes.
    let before = MAGIC.len() + 4;
    let length = (before + header.len() + 1).next_multiple_of(64) - before;
    let mut bytes = [MAGIC, &[1, 0], &u16::try_from(length)?.to_le_bytes()].concat();
    bytes.extend_from_slice(format!("{header:<width$}\n", width = length - 1).as_bytes());
    bytes.extend_from_slice(array.bytes());
    Ok(bytes)
}

impl<'a> Header<'a> {
    /// Reads the Python dict with exactly the three keys, each once.
    fn parse(text: &'a str) -> Option<Self> {
        let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim_start();
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            rest = after.trim_start().strip_prefix(':')?.trim_start();
            let repeated;
            (repeated, rest) = match key {
                "descr" => {
                    let (text, after) = quoted(rest)?;
                    (descr.replace(text).is_some(), after)
                }
                "fortran_order" => match rest.strip_prefix("False") {
                    Some(after) => (fortran_order.replace(false).is_some(), after),
                    None => (fortran_order.replace(true).is_some(), rest.strip_prefix("True")?),
                },
                "shape" => {
                    let (axes, after) = rest.strip_prefix('(')?.split_once(')')?;
                    (shape.replace(tuple(axes)?).is_some(), after)
                }
                _ => return None,
            };
            rest = rest.trim_start();
            match rest.strip_prefix(',') {
                Some(after) => rest = after.trim_start(),
                None if rest.is_empty() => {}
                None => return None,
            }
            if repeated {
                return None;
            }
        }
        Some(Self { descr: descr?, fortran_order: fortran_order?, shape: shape? })
    }
}

/// `'text'…` as the text and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('\'')?.split_once('\'')
}

/// `2, 3`, `2,` or nothing: what stands between the parentheses of a Python tuple.
fn tuple(axes: &str) -> Option<Vec<usize>> {
    let axes = axes.trim();
    if axes.is_empty() {
        return Some(Vec::new());
    }
    // `(2)` is no tuple, `(2,)` is.
    let axes = match axes.strip_suffix(',') {
        Some(axes) => axes,
        None if axes.contains(',') => axes,
        None => return None,
    };
    axes.split(',').map(|axis| axis.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: [u8; 2], header: &str, numbers: &[u8]) -> Vec<u8> {
        let length = match version {
            [1, _] => u16::try_from(header.len()).unwrap().to_le_bytes().to_vec(),
            _ => u32::try_from(header.len()).unwrap().to_le_bytes().to_vec(),
        };
        [MAGIC, &version, &length, header.as_bytes(), numbers].concat()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let arrays = [
            Array::from_slice(&[true, false], &[2, 1]),
            Array::from_slice(&[-1i8, 2, 3], &[3]),
            Array::from_slice(&[u16::MAX], &[]),
            Array::from_slice(&[u64::MAX], &[1]),
            Array::from_slice(&[f32::NAN, -0.0], &[1, 2]),
            Array::from_slice::<f64>(&[], &[0, 3]),
        ];
        for array in arrays {
            let array = array.unwrap();
            let bytes = write(&array).unwrap();
            assert_eq!((bytes.len() - array.bytes().len()) % 64, 0);
            assert_eq!(read(&bytes).unwrap(), array);
        }
    }

    #[test]
    fn numpys_own_headers_are_read() {
        for (version, header) in [
            ([1, 0], "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }                  \n"),
            ([2, 0], "{'descr': '<i4', 'fortran_order': False, 'shape': (2,)}"),
            ([1, 0], "{'shape': (2,), 'fortran_order': False, 'descr': '<i4'}"),
        ] {
            let array = read(&file(version, header, &[1, 0, 0, 0, 2, 0, 0, 0])).unwrap();
            assert_eq!(array, Array::from_slice(&[1i32, 2], &[2]).unwrap(), "{header}");
        }
    }

    #[test]
    fn what_is_not_exactly_right_is_an_error() {
        let good = "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }";
        let all = file([1, 0], good, &[0; 8]);
        for cut in 0..all.len() {
            assert!(read(&all[..cut]).is_err(), "cut at {cut}");
        }
        assert!(read(&[&all[..], &[0]].concat()).unwrap_err().to_string().contains("expected 8 bytes"));
        let huge = format!("{{'descr': '<i4', 'fortran_order': False, 'shape': ({}, 8), }}", usize::MAX);
        for (header, says) in [
            ("{'descr': '<i4', 'fortran_order': True, 'shape': (2,), }", "Fortran order"),
            ("{'descr': '>i4', 'fortran_order': False, 'shape': (2,), }", "found >i4"),
            ("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", "found <c8"),
            ("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (2,), }", "expected a header"),
            ("{'descr': '<i4', 'fortran_order': 0, 'shape': (2,), }", "expected a header"),
            ("{'descr': '<i4', 'fortran_order': False, 'shape': (2), }", "expected a header"),
            ("{'descr': '<i4', 'fortran_order': False, 'shape': (-2,), }", "expected a header"),
            ("{'descr': '<i4', 'fortran_order': False, }", "expected a header"),
            ("{'descr': '<i4', 'descr': '<i4', 'fortran_order': False, 'shape': (2,), }", "expected a header"),
            ("{'descr': '<i4', 'fortran_order': False, 'shape': (2,), 'more': 1}", "expected a header"),
            ("", "expected a header"),
            (&*huge, "size: expected fewer bytes"),
        ] {
            let error = read(&file([1, 0], header, &[0; 8])).unwrap_err().to_string();
            assert!(error.contains(says), "{header}: {error}");
        }
        assert!(read(&file([3, 0], good, &[0; 8])).unwrap_err().to_string().contains("found 3.0"));
        assert!(read(b"PK").unwrap_err().to_string().contains("not a .npy file"));
    }
}
