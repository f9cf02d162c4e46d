//! How fast a model is loaded and its weights are digested, beside reading the same file:
//! `cargo run --release --bin load [FILE]`.
//!
//! Without a file, a model of 1 GB (an Embedding and four Dense) is written to the temporary folder first. Reading, loading
//! and the digest, which `Model::load_verified` needs beside a run, take turns in one process, the file in the page cache;
//! the median of 7 turns counts. Memory is the most that the process had of its own (`RssAnon`) while it loaded, above what
//! it had before: the mapped file is none of it.

use std::{
    env, error, fs,
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use candle_core::Device;
use kandle::{Archive, Limits, Model};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

type Result<T> = std::result::Result<T, Box<dyn error::Error>>;

const TURNS: usize = 7;

fn main() -> Result<()> {
    let given = env::args_os().nth(1).map(PathBuf::from);
    let path = match &given {
        Some(path) => path.clone(),
        None => {
            let path = env::temp_dir().join("kandle-load.keras");
            write_model(&path)?;
            path
        }
    };
    let outcome = measure(&path);
    if given.is_none() {
        fs::remove_file(&path)?;
    }
    outcome
}

fn measure(path: &Path) -> Result<()> {
    let size = fs::metadata(path)?.len();
    let (mut read, mut load, mut digest, mut most) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for turn in 0..=TURNS {
        let (reading, bytes) = timed(|| fs::read(path));
        drop(std::hint::black_box(bytes?));
        let task = || timed(|| Model::load(path, &Device::Cpu));
        // The first turn fills the page cache, and is watched, which the others are not for the time it takes.
        if turn == 0 {
            let ((_, model), memory) = watched(task);
            drop(model?);
            most = memory;
        } else {
            let (loading, model) = task();
            drop(std::hint::black_box(model?));
            let (digesting, text) = timed(|| Archive::open(path, &Limits::default())?.weights_digest());
            std::hint::black_box(text?);
            read.push(reading);
            load.push(loading);
            digest.push(digesting);
        }
    }
    println!("{}: {:.0} MB, {} threads", path.display(), size as f64 / 1e6, thread::available_parallelism()?);
    let speed = |what: &str, times: &[(f64, f64)]| {
        let wall = median(times.iter().map(|time| time.0));
        let processor = median(times.iter().map(|time| time.1));
        let speed = size as f64 / wall / 1e9;
        println!("{what:<6}  {:5.0} ms, {speed:.2} GB/s, {:5.0} ms of processor", wall * 1e3, processor * 1e3);
        speed
    };
    let (read, load, _) = (speed("read", &read), speed("load", &load), speed("digest", &digest));
    println!(
        "load is {:.0} % as fast as read, and takes {:.2} of the file in memory",
        100. * load / read,
        most as f64 / size as f64
    );
    Ok(())
}

/// Runs `task` and gives the seconds that it took, on the clock and of all processors.
fn timed<T>(task: impl FnOnce() -> T) -> ((f64, f64), T) {
    let (start, processor) = (Instant::now(), processor_seconds());
    let result = task();
    ((start.elapsed().as_secs_f64(), processor_seconds() - processor), result)
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// What the process has used of the processors, in hundredths of a second; 0 where the system does not say.
fn processor_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    ticks / 100.
}

/// Runs `task`, and gives the most memory of its own that the process took meanwhile.
fn watched<T>(task: impl FnOnce() -> T) -> (T, u64) {
    let (before, most, done) = (anonymous(), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(anonymous(), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        let result = task();
        done.store(true, Ordering::Relaxed);
        (result, most.load(Ordering::Relaxed).max(anonymous()).saturating_sub(before))
    })
}

/// Bytes of memory that are no file's; 0 where the system does not say.
fn anonymous() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// Writes a `.keras` of 1 GB.
fn write_model(path: &Path) -> Result<()> {
    const WORDS: usize = 50_000;
    const SIZES: [usize; 5] = [1000, 8192, 8192, 8192, 7000];
    let input = r#"{"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_shape": [null, 4], "dtype": "int32", "sparse": false, "name": "ids"}, "registered_name": null}"#;
    let embedding = format!(
        r#"{{"module": "keras.layers", "class_name": "Embedding", "config": {{"name": "embedding", "trainable": true, "dtype": "float32", "input_dim": {WORDS}, "output_dim": {}, "mask_zero": false}}, "registered_name": null}}"#,
        SIZES[0]
    );
    let mut layers = vec![input.to_owned(), embedding];
    let mut file = hdf5::FileBuilder::new();
    let name = |number: usize| if number == 0 { "dense".to_owned() } else { format!("dense_{number}") };
    let numbers = |count: usize| (0..count).map(|number| number as f32).collect::<Vec<f32>>();
    let mut root = file.create_group("layers");
    let mut group = root.create_group("embedding");
    let mut vars = group.create_group("vars");
    vars.create_dataset("0").with_f32_data(&numbers(WORDS * SIZES[0])).with_shape(&[WORDS as u64, SIZES[0] as u64]);
    group.add_group(vars.finish());
    root.add_group(group.finish());
    for (number, pair) in SIZES.windows(2).enumerate() {
        let [inputs, units] = [pair[0], pair[1]];
        let mut group = root.create_group(&name(number));
        let mut vars = group.create_group("vars");
        vars.create_dataset("0").with_f32_data(&numbers(inputs * units)).with_shape(&[inputs as u64, units as u64]);
        vars.create_dataset("1").with_f32_data(&numbers(units)).with_shape(&[units as u64]);
        group.add_group(vars.finish());
        root.add_group(group.finish());
        layers.push(format!(
            r#"{{"module": "keras.layers", "class_name": "Dense", "config": {{"name": "{}", "trainable": true, "dtype": "float32", "units": {units}, "activation": "linear", "use_bias": true}}, "registered_name": null}}"#,
            name(number)
        ));
    }
    file.add_group(root.finish());
    let weights = file.finish()?;
    let config = format!(
        r#"{{"module": "keras", "class_name": "Sequential", "config": {{"name": "load", "trainable": true, "dtype": "float32", "layers": [{}]}}, "registered_name": null}}"#,
        layers.join(", ")
    );
    let mut zip = ZipWriter::new(fs::File::create(path)?);
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    let metadata = r#"{"keras_version": "3.15.1"}"#;
    for (name, bytes) in
        [("metadata.json", metadata.as_bytes()), ("config.json", config.as_bytes()), ("model.weights.h5", &weights)]
    {
        zip.start_file(name, options)?;
        zip.write_all(bytes)?;
    }
    zip.finish()?;
    Ok(())
}
