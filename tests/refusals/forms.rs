//! The same weights in every form that HDF5 has for them (reference_outputs/hdf5_forms.py) give the same numbers, bit for bit.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use candle_core::Device;
use kandle::{Archive, Container, Limits, Model};
use serde_json::json;

use crate::{
    files::*,
    harm::{Lcg, mutated},
};

/// The files of hdf5_forms.zip by name.
fn forms() -> BTreeMap<String, Vec<u8>> {
    members(recorded("hdf5_forms.zip")).into_iter().collect()
}

/// The kernel is 0, 1, 2, …, the bias 100, 101, ….
fn expected() -> BTreeMap<String, Vec<u64>> {
    let bits = |number: usize| u64::from((number as f32).to_bits());
    let kernel = (0..5).flat_map(|unit| (0..6).map(move |feature| bits(feature * 5 + unit))).collect();
    let bias = (100..105).map(bits).collect();
    BTreeMap::from([("dense.weight".to_owned(), kernel), ("dense.bias".to_owned(), bias)])
}

/// The numbers that the model of [`DENSE`] has with the weights in `bytes`.
fn loaded(bytes: Vec<u8>) -> kandle::Result<BTreeMap<String, Vec<u64>>> {
    let archive = open(keras(DENSE))?.with_weights(open(bytes)?)?;
    Model::from_archive(&archive, &Device::Cpu).map(|(model, _)| bits(model.var_map()))
}

#[test]
fn every_form_of_a_weight_store_gives_the_same_numbers() {
    let (expected, mut wrong, mut count) = (expected(), Vec::new(), 0);
    for (name, bytes) in forms() {
        let apart = ["arrays", "bfloat16_untagged", "sharded_", "sharded.", "tensorflow_2_12", "refused"];
        if !name.ends_with(".weights.h5") || apart.iter().any(|apart| name.starts_with(apart)) {
            continue;
        }
        count += 1;
        assert_eq!(open(bytes.clone()).unwrap().container(), Container::Weights, "{name}");
        if name.ends_with("growing_both_new.weights.h5") {
            let what = "chunks indexed by a version 2 B-tree; save the file again with Keras or h5py's defaults";
            let error = loaded(bytes).unwrap_err().to_string();
            assert_eq!(error, format!("model with model › layers/dense/vars/0: {what}"), "{name}");
            continue;
        }
        match loaded(bytes.clone()) {
            Ok(found) if found == expected => {}
            Ok(found) => wrong.push(format!("{name}: {found:?}")),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
        // And so inside a .keras file.
        match load(with_member(DENSE, "model.weights.h5", |_| Some(bytes.clone()))) {
            Ok(model) if bits(model.var_map()) == expected => {}
            Ok(_) => wrong.push(format!("{name} in a .keras: other numbers")),
            Err(error) => wrong.push(format!("{name} in a .keras: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 50, "{count}");
}

#[test]
fn every_form_of_legacy_weights_gives_the_same_numbers() {
    let (expected, mut wrong, mut count) = (expected(), Vec::new(), 0);
    for (name, bytes) in forms().into_iter().filter(|(name, _)| name.ends_with(".legacy.h5")) {
        count += 1;
        let archive = open(bytes.clone()).unwrap();
        let long = name.starts_with("long");
        assert_eq!(archive.container(), if long { Container::Legacy } else { Container::LegacyWeights }, "{name}");
        let root = if long || name.starts_with("in_a_group") { "model_weights/" } else { "" };
        assert_eq!((archive.weights_are_legacy(), archive.legacy_root()), (true, root), "{name}");
        assert_eq!(
            archive.arrays().text_list_attribute(root.trim_end_matches('/'), "layer_names").unwrap().unwrap(),
            ["input_layer", "dense"]
        );
        if long {
            assert_eq!(archive.config().unwrap().layers.len(), 2, "{name}");
        }
        match loaded(bytes) {
            Ok(found) if found == expected => {}
            Ok(found) => wrong.push(format!("{name}: {found:?}")),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(count, 11);
}

#[test]
fn every_form_of_shards_gives_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in forms() {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let model = folder.path().join("model.keras");
    std::fs::write(&model, keras(DENSE)).unwrap();
    for name in ["sharded.weights.json", "sharded_whole.weights.json"] {
        let weights = folder.path().join(name);
        let archive = Archive::open(&weights, &Limits::default()).unwrap();
        assert_eq!((archive.container(), archive.has_weights()), (Container::Weights, true));
        let model = Model::load_with_weights(&model, &weights, &Device::Cpu).unwrap();
        assert_eq!(bits(model.var_map()), expected(), "{name}");
    }
}

/// Legacy files do not say which two opaque bytes are a bfloat16, so the layer's own dtype must.
#[test]
fn two_untagged_bytes_are_bfloat16_only_where_the_layer_is() {
    let bytes = forms().remove("bfloat16_untagged.weights.h5").unwrap();
    assert_eq!(
        loaded(bytes.clone()).unwrap_err().to_string(),
        "model with model: 2 problems\n  layer \"dense\" (Dense): kernel: expected float32, found layers/dense/vars/0: two opaque bytes, which do not say what they are\n  layer \"dense\" (Dense): bias: expected float32, found layers/dense/vars/1: two opaque bytes, which do not say what they are"
    );
    let half = with_layer(DENSE, 1, |layer| layer["dtype"] = json!("bfloat16"));
    let archive = open(half).unwrap().with_weights(open(bytes).unwrap()).unwrap();
    let (model, report) = Model::from_archive(&archive, &Device::Cpu).unwrap();
    assert!(report.loaded.iter().all(|weight| weight.stored == kandle::Dtype::Bfloat16));
    let vars = model.var_map().data().lock().unwrap();
    assert_eq!(vars["dense.bias"].dtype(), candle_core::DType::BF16);
    let bias = vars["dense.bias"].to_dtype(candle_core::DType::F32).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(bias, [100., 101., 102., 103., 104.]);
}

#[test]
fn dtypes_and_shapes_are_read_as_they_are() {
    let archive = open(forms().remove("arrays.weights.h5").unwrap()).unwrap();
    let read = |name: &str| {
        let array = archive.arrays().array(&format!("layers/all/vars/{name}")).unwrap_or_else(|| panic!("{name}"));
        (array.dtype().unwrap().to_string(), array.shape().to_vec(), array.bytes().unwrap().into_owned())
    };
    assert_eq!(read("bool"), ("bool".to_owned(), vec![1, 3], vec![1, 0, 1]));
    assert_eq!(read("scalar"), ("float32".to_owned(), vec![], 7_f32.to_le_bytes().to_vec()));
    assert_eq!(read("scalar_bool"), ("bool".to_owned(), vec![], vec![1]));
    assert_eq!(read("empty"), ("float32".to_owned(), vec![0, 5], vec![]));
    assert_eq!(read("empty_middle"), ("int64".to_owned(), vec![2, 0, 3], vec![]));
    assert_eq!(read("empty_chunked"), ("float32".to_owned(), vec![0, 5], vec![]));
    assert_eq!(read("one"), ("float64".to_owned(), vec![1], 1.5_f64.to_le_bytes().to_vec()));
    for (kind, dtype) in [("i", "int"), ("u", "uint")] {
        for size in [1, 2, 4, 8] {
            let numbers: Vec<u8> =
                [0_u64, 1, 2, 100].iter().flat_map(|number| number.to_le_bytes()[..size].to_vec()).collect();
            let expected = (format!("{dtype}{}", size * 8), vec![4], numbers);
            for order in ["little", "big"] {
                assert_eq!(read(&format!("{order}_{kind}{size}")), expected);
            }
        }
    }
}

#[test]
fn filters_that_are_not_read_are_refused_by_name() {
    let mut forms = forms();
    for (file, filter) in [("refused_scale_offset", "scale-offset"), ("refused_szip", "szip")] {
        let error = loaded(forms.remove(&format!("{file}.weights.h5")).unwrap()).unwrap_err().to_string();
        let what = format!("HDF5 filter {filter} (deflate, shuffle, fletcher32 and lzf are read)");
        assert_eq!(error, format!("model with model › layers/dense/vars/0: {what}"));
    }
}

#[test]
fn mutated_forms_never_panic_and_never_take_long() {
    const LONG: Duration = Duration::from_secs(2);
    let (mut random, mut whole, mut broken) = (Lcg(73), 0, 0);
    for (name, original) in forms() {
        for number in 0..60 {
            let bytes = mutated(&original, &mut random);
            let start = Instant::now();
            match loaded(bytes) {
                Ok(_) => whole += 1,
                Err(error) => {
                    assert!(!error.to_string().contains("gave up"), "mutation {number} of {name} panics");
                    broken += 1;
                }
            }
            assert!(start.elapsed() < LONG, "mutation {number} of {name} took {:?}", start.elapsed());
        }
    }
    assert!(whole > 1000 && broken > 500, "{whole} {broken}");
}

/// A checksum of chunks that was stored is compared: no bit of them may flip unseen.
#[test]
fn a_flipped_bit_under_a_checksum_is_found() {
    let original = forms().remove("fletcher32.weights.h5").unwrap();
    // Where the kernel's first row begins in the first chunk: 0, 1, 2.
    let row: Vec<u8> = [0_f32, 1., 2.].iter().flat_map(|number| number.to_le_bytes()).collect();
    let at = (0..original.len()).find(|at| original[*at..].starts_with(&row)).unwrap();
    for byte in at..at + 48 {
        let mut bytes = original.clone();
        bytes[byte] ^= 4;
        let error = loaded(bytes).unwrap_err().to_string();
        assert!(error.starts_with("model with model › layers/dense/vars/0: damaged HDF5: "), "{error}");
    }
}
