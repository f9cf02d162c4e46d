//! Bytes made to harm: HDF5 that Keras does not write, and thousands of mutations of what it does.

use std::{
    collections::BTreeMap,
    io::Cursor,
    time::{Duration, Instant},
};

use candle_core::Device;
use kandle::{Archive, Container, Plan};

use zip::ZipArchive;

use crate::files::*;

/// What reading the kernel in a file of `hostile/` fails with.
fn refused_array(name: &str) -> String {
    let read = open(hostile(name)).and_then(|archive| {
        archive.arrays().array("layers/dense/vars/0").expect("the kernel is listed").bytes().map(|bytes| bytes.len())
    });
    read.expect_err("this must be refused").to_string()
}

#[test]
fn hostile_hdf5_is_refused_quickly() {
    let start = Instant::now();
    check(&[
        Case {
            is: "a soft link, old groups",
            error: || refused_weights(DENSE, hostile("soft_link")),
            says: "model › layers/dense/vars: damaged HDF5, or a soft link, which is not followed: something here has no address",
        },
        Case {
            is: "a soft link, new groups",
            error: || refused_weights(DENSE, hostile("soft_link_new")),
            says: "model › layer \"dense\" (Dense): kernel: missing: expected [6, 5] in layers/dense/vars/0, the nearest is layers/dense/vars/1",
        },
        Case {
            is: "an external link",
            error: || refused_weights(DENSE, hostile("external_link")),
            says: "model › layer \"dense\" (Dense): kernel: missing: expected [6, 5] in layers/dense/vars/0, the nearest is layers/dense/vars/1",
        },
        Case {
            is: "a circle of hard links",
            error: || refused_weights(DENSE, hostile("hard_link_cycle")),
            says: "model › layers/dense/vars/again/dense/vars/again/dense/vars/again/dense/vars/again/dense/vars/again/dense/vars/again/dense/vars/…: groups nest more than 64 deep, or in a circle",
        },
        Case {
            is: "2^40 ways to a group",
            error: || refused_weights(DENSE, hostile("diamond")),
            says: "model › left/left/left/left/left/left/left/left/left/left/left/left/left/left/left/left/left/left/left/left/left/left/left/left/…: links or indexes that lead to the same place over and over: more to read than the file holds",
        },
        Case {
            is: "numbers in another file",
            error: || refused_weights(DENSE, hostile("virtual")),
            says: "model › layers/dense/vars/0: a virtual dataset: its numbers lie in other files",
        },
        Case {
            is: "numbers in a plain file",
            error: || refused_weights(DENSE, hostile("external_storage")),
            says: "model › layers/dense/vars/0: external storage: its numbers lie in another file, which is never opened",
        },
        Case {
            is: "no numbers",
            error: || refused_weights(DENSE, hostile("never_written")),
            says: "model › layers/dense/vars/0: declared but never written: the numbers are not in this file",
        },
        Case {
            is: "a huge shape",
            error: || refused_weights(DENSE, hostile("shape_bomb")),
            says: "model › layer \"dense\" (Dense): kernel: expected [6, 5], found [1048576, 1048576] in layers/dense/vars/0",
        },
        Case {
            is: "a huge shape, read",
            error: || refused_array("shape_bomb"),
            says: "layers/dense/vars/0: its shape [1048576, 1048576] is more than the file can hold",
        },
        Case {
            is: "a huge shape without an index, read",
            error: || refused_array("implicit_bomb"),
            says: "layers/dense/vars/0: its shape [1099511627776, 5] is more than the file can hold",
        },
        Case {
            is: "a chunk that is not there",
            error: || refused_weights(DENSE, hostile("chunk_missing")),
            says: "model › layers/dense/vars/0: expected 2 chunks, found 1: numbers are missing",
        },
        Case {
            is: "a chunk that is there twice",
            error: || refused_weights(DENSE, hostile("chunk_twice")),
            says: "model › layers/dense/vars/0: expected 2 chunks, found 1: numbers are missing",
        },
        Case {
            is: "2^40 ways to a chunk",
            error: || refused_weights(DENSE, hostile("chunk_tree_diamond")),
            says: "model › layers/dense/vars/0: links or indexes that lead to the same place over and over: more to read than the file holds",
        },
        Case {
            is: "types 8000 deep",
            error: || refused_weights(DENSE, hostile("bottomless_type")),
            says: "model › layer \"dense\" (Dense): kernel: expected float32, found layers/dense/vars/0: a type that Keras does not write (lists of any length)",
        },
    ]);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// Files that Keras does not write and h5py reads without a word.
#[test]
fn unusual_hdf5_loads_with_the_right_numbers() {
    let kernel: Vec<u64> = (0..5)
        .flat_map(|unit| (0..6).map(move |feature| (feature * 5 + unit) as f32))
        .map(|x| x.to_bits().into())
        .collect();
    let bias: Vec<u64> = (100..105).map(|number| (number as f32).to_bits().into()).collect();
    let expected = BTreeMap::from([("dense.weight".to_owned(), kernel), ("dense.bias".to_owned(), bias)]);
    let plan = plan(&open(keras(DENSE)).unwrap()).unwrap();
    for name in ["big_endian", "gzip_shuffle", "implicit", "superblock_3", "user_block"] {
        let archive = open(hostile(name)).unwrap();
        assert_eq!(archive.container(), Container::Weights, "{name}");
        let (vars, _) = plan.load(&archive, &Device::Cpu).unwrap();
        assert_eq!(bits(&vars), expected, "{name}");
        // And so inside a .keras file.
        let model = load(with_member(DENSE, "model.weights.h5", |_| Some(hostile(name)))).unwrap();
        assert_eq!(bits(model.var_map()), expected, "{name}");
    }
}

// ---- Mutations ----

/// Knuth's 64-bit linear congruential generator.
pub struct Lcg(pub u64);

impl Lcg {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most.max(1)
    }
}

/// `bytes` damaged in one of the ways files are damaged, or attacked; never the same as before.
pub fn mutated(bytes: &[u8], random: &mut Lcg) -> Vec<u8> {
    loop {
        let mut out = bytes.to_vec();
        let start = random.below(out.len());
        let end = (start + 1 + random.below(64)).min(out.len());
        match random.below(8) {
            0 => out[start] ^= 1 << random.below(8),
            1 => out[start] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][random.below(6)],
            2 => out.truncate(start),
            3 => out[start..end].fill(0),
            4 => out[start..end].fill(0xff),
            5 => {
                let from = random.below(out.len() - (end - start));
                out.copy_within(from..from + (end - start), start);
            }
            6 => drop(out.drain(start..end)),
            _ => {
                for _ in 0..1 + random.below(8) {
                    let at = random.below(out.len());
                    out[at] = u8::try_from(random.below(256)).unwrap();
                }
            }
        }
        if out != bytes {
            return out;
        }
    }
}

/// What the file itself holds, by the names of the `VarMap`, read anew and laid out by hand.
fn held(archive: &Archive, plan: &Plan) -> BTreeMap<String, Vec<u64>> {
    let mut held = BTreeMap::new();
    for layer in plan.weights().layers() {
        for (index, weight) in layer.weights.iter().enumerate() {
            let path = match archive.container() {
                Container::Legacy => {
                    let group = format!("model_weights/{}", layer.layer);
                    let names = archive.arrays().text_list_attribute(&group, "weight_names").unwrap().unwrap();
                    format!("{group}/{}", names[index])
                }
                _ => format!("{}/vars/{index}", layer.group),
            };
            let array = archive.arrays().array(&path).expect("what was loaded is there");
            assert_eq!(array.shape(), weight.shape);
            let numbers: Vec<u64> = array
                .bytes()
                .unwrap()
                .chunks_exact(4)
                .map(|number| f32::from_le_bytes(number.try_into().unwrap()).to_bits().into())
                .collect();
            let numbers = match weight.shape.as_slice() {
                [rows, columns] if weight.candle_shape() == [*columns, *rows] => {
                    (0..rows * columns).map(|at| numbers[at % rows * columns + at / rows]).collect()
                }
                _ => numbers,
            };
            held.insert(layer.name(weight), numbers);
        }
    }
    held
}

/// Runs `count` mutations of `file` of `case`; gives how many loaded, and how many of those with other numbers.
fn mutate(case: &str, file: &str, count: usize) -> (usize, usize) {
    const LONG: Duration = Duration::from_secs(2);
    let original = recorded(&format!("{case}/{file}"));
    let whole = plan(&open(keras(case)).unwrap()).unwrap();
    let expected = bits(load(keras(case)).unwrap().var_map());
    let mut random = Lcg(u64::try_from(original.len()).unwrap());
    let (mut loaded, mut other) = (0, 0);
    for number in 0..count {
        let bytes = mutated(&original, &mut random);
        let start = Instant::now();
        let outcome = open(bytes).and_then(|archive| {
            let own = if archive.container() == Container::Weights { None } else { Some(plan(&archive)?) };
            let plan = own.as_ref().unwrap_or(&whole);
            let (vars, _) = plan.load(&archive, &Device::Cpu)?;
            Ok((bits(&vars), held(&archive, plan)))
        });
        assert!(start.elapsed() < LONG, "mutation {number} of {file} took {:?}", start.elapsed());
        match outcome {
            Ok((vars, held)) => {
                assert_eq!(vars, held, "mutation {number} of {file} loads what it does not hold");
                loaded += 1;
                other += usize::from(vars != expected);
            }
            Err(error) => assert!(!error.to_string().contains("gave up"), "mutation {number} of {file} panics"),
        }
    }
    (loaded, other)
}

#[test]
fn mutated_keras_files_are_refused_or_exact() {
    for case in [DENSE, STACK] {
        let (_, other) = mutate(case, "model.keras", 1500);
        assert_eq!(other, 0, "{case}: numbers that differ from the original's");
    }
}

#[test]
fn mutated_weight_stores_load_what_they_hold() {
    for case in [DENSE, STACK] {
        let (loaded, other) = mutate(case, "model.weights.h5", 1500);
        assert!(0 < other && other < loaded && loaded < 1500, "{case}: {loaded} {other}");
    }
}

#[test]
fn mutated_legacy_files_load_what_they_hold() {
    for case in [DENSE, STACK] {
        let (loaded, other) = mutate(case, "model.h5", 1500);
        assert!(0 < other && other < loaded && loaded < 1500, "{case}: {loaded} {other}");
    }
}

#[test]
fn every_byte_of_a_stored_member_is_guarded() {
    let original = keras(DENSE);
    let mut zip = ZipArchive::new(Cursor::new(original.clone())).unwrap();
    let mut random = Lcg(1);
    let mut flipped = 0;
    for index in 0..zip.len() {
        let member = zip.by_index(index).unwrap();
        let start = usize::try_from(member.data_start().unwrap()).unwrap();
        for at in (start..start + usize::try_from(member.size()).unwrap()).step_by(3) {
            let mut bytes = original.clone();
            bytes[at] ^= 1 << random.below(8);
            let error = open(bytes).expect_err("a flipped bit must be caught").to_string();
            let what = "the bytes do not match their checksum: the file is damaged or was not fully copied";
            assert_eq!(error, format!("model › {}: {what}", member.name().unwrap()), "byte {at}");
            flipped += 1;
        }
    }
    assert!(flipped > 3000);
}
