//! Engines made of a file, without a model in between.

use std::sync::Arc;

use kandle::parity::{Case, find_cases};
use kandle::{CompileFile as _, Engine, Options, Plan, Value};

use crate::{CASES, engine, have_same_bytes};

fn on_file(path: &std::path::Path) -> kandle::Result<Engine> {
    Engine::load(path, &Options::default().threads(1))
}

#[test]
fn an_engine_of_a_file_gives_the_same_bytes_as_that_of_its_model() {
    let (mut wrong, mut in_file) = (vec![], 0);
    for folder in find_cases(CASES).unwrap() {
        let case = Case::open(&folder).unwrap();
        let name = folder.strip_prefix(CASES).unwrap().display().to_string();
        let Some(file) = case.files.first().filter(|_| case.expect.is_none()) else { continue };
        let archive = Arc::new(kandle::open_recorded(&case, file).unwrap());
        let of_model = engine(&kandle::load_recorded(&case, file).unwrap());
        let inputs: Vec<Value> = case.input_arrays().iter().map(|array| kandle::value(array).unwrap()).collect();
        let models = of_model.run(&inputs).unwrap();
        for tables_in_file in [false, true] {
            let options = Options::default().threads(1).tables_in_file(tables_in_file);
            let plan = Plan::new(&archive.config().unwrap()).unwrap();
            let of_file = plan.compile(&archive, &options);
            let of_file = of_file.unwrap_or_else(|error| panic!("{name}: {error}"));
            let is_in_file = of_file.compiled().instructions.iter().any(|one| one.work == "rows" && one.bytes == 0);
            assert!(tables_in_file || !is_in_file, "{name}");
            in_file += usize::from(is_in_file);
            let ours = of_file.run(&inputs).unwrap();
            if !ours.iter().zip(&models).all(have_same_bytes) {
                wrong.push(format!("{name}, tables in file: {tables_in_file}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(in_file > 5, "{in_file} engines with a table in the file");
}

#[test]
fn a_damaged_file_is_an_error_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.keras");
    let mut bytes = std::fs::read(format!("{CASES}/example3/2x3/model.keras")).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x40;
    std::fs::write(&path, bytes).unwrap();
    let error = on_file(&path).unwrap_err().to_string();
    assert!(error.contains("damaged.keras"), "{error}");
}

#[test]
fn what_is_left_to_the_model_is_read_from_the_file_then() {
    let path = format!("{CASES}/example3/2x3/model.keras");
    let engine = on_file(path.as_ref()).unwrap();
    let beyond = candle_core::Tensor::new(&[[3_i64, 1000]], &candle_core::Device::Cpu).unwrap();
    let error = engine.forward(&beyond).unwrap_err().to_string();
    assert!(error.contains("id 1000") && error.contains("embedding"), "{error}");
    assert_eq!(engine.handed_over().0, 1);
    assert_eq!(engine.plan().name(), engine.model().unwrap().plan().name());
}
