//! What the programs that time an ONNX file under another runtime have in common: `PROGRAM FILE.onnx io.safetensors SECONDS TENSOR…`,
//! for each input of the file, in its order, the name of a tensor in `io.safetensors`. The caller compares the outputs, for
//! whom they are written to `FILE.onnx.out`, float32 one behind the other. The last line is a JSON object.

use std::{
    env, error, fs,
    time::{Duration, Instant},
};

use safetensors::SafeTensors;
pub use safetensors::{Dtype, tensor::TensorView};

pub type Result<T> = std::result::Result<T, Box<dyn error::Error>>;

/// What was asked for.
pub struct Task {
    /// The ONNX file.
    pub file: String,
    io: Vec<u8>,
    seconds: f64,
    names: Vec<String>,
}

impl Task {
    /// # Errors
    /// Where arguments are missing, or the tensors cannot be read.
    pub fn of_arguments() -> Result<Self> {
        let mut arguments = env::args().skip(1);
        let mut next = || arguments.next().ok_or("FILE.onnx io.safetensors SECONDS TENSOR…");
        let (file, io, seconds) = (next()?, fs::read(next()?)?, next()?.parse()?);
        Ok(Self { file, io, seconds, names: arguments.collect() })
    }

    /// The input tensors, in the order of the file's inputs.
    ///
    /// # Errors
    /// Where one is missing.
    pub fn inputs(&self) -> Result<Vec<TensorView<'_>>> {
        let tensors = SafeTensors::deserialize(&self.io)?;
        self.names.iter().map(|name| Ok(tensors.tensor(name)?)).collect()
    }

    /// Writes what the first run gives, times more of them, and says so. `load` is how long it took to be ready.
    ///
    /// # Errors
    /// What a run reports.
    pub fn time<T>(&self, load: Duration, run: impl Fn() -> Result<T>, numbers: impl Fn(T) -> Result<Vec<f32>>) -> Result<()> {
        let out: Vec<u8> = numbers(run()?)?.into_iter().flat_map(f32::to_le_bytes).collect();
        fs::write(format!("{}.out", self.file), out)?;
        let begun = Instant::now();
        run()?;
        let together = (50e-6 / begun.elapsed().as_secs_f64().max(1e-9)) as u32 + 1;
        let (mut times, end) = (Vec::<Duration>::new(), Instant::now() + Duration::from_secs_f64(self.seconds));
        while Instant::now() < end || times.len() < 3 {
            let begun = Instant::now();
            for _ in 0..together {
                std::hint::black_box(run()?);
            }
            times.push(begun.elapsed() / together);
        }
        times.sort_unstable();
        let median = times[times.len() / 2].as_secs_f64() * 1e3;
        println!("{{\"median_ms\": {median}, \"load_s\": {}}}", load.as_secs_f64());
        Ok(())
    }
}
