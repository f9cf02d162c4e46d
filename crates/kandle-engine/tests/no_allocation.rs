//! After the first run of a shape `run_into` asks for no memory. One test, since whoever counts counts all threads.

#![allow(unsafe_code, reason = "an allocator that counts is one that is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Device;
use kandle_engine::{Compile, Options, View};
use kandle_model::{Input, Model, Value};

static ASKED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// Safety: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        // Safety: by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // Safety: by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        // Safety: by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        // Safety: by the caller.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn run_into_asks_for_no_memory_after_the_first_run_of_a_shape() {
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/../../reference_outputs");
    for file in FILES {
        let model = Model::load(format!("{cases}/{file}"), &Device::Cpu).unwrap();
        let engine = model.compile(&Options::default().threads(1)).unwrap();
        assert_eq!(engine.compiled().calls, 0, "{file} has layers without a kernel");
        for batch in [2, 5, 2] {
            let shape_of = |input: &Input| -> Vec<usize> {
                let axes = input.spec.shape.0.iter().skip(1).map(|axis| axis.unwrap_or(7));
                [batch].into_iter().chain(axes).collect()
            };
            let inputs = model.plan().inputs();
            let shapes: Vec<Vec<usize>> = inputs.iter().map(shape_of).collect();
            let most = shapes.iter().map(|shape| shape.iter().product()).max().unwrap();
            let (floats, ids): (Vec<f32>, Vec<i32>) = (vec![0.5; most], vec![1; most]);
            let views = inputs.iter().zip(&shapes).map(|(input, shape)| {
                let count = shape.iter().product();
                match input.spec.dtype.is_float() {
                    true => View::f32(shape, &floats[..count]),
                    false => View::i32(shape, &ids[..count]),
                }
            });
            let views: Vec<View<'_>> = views.collect();
            let values: Vec<Value> = views.iter().map(|view| view.value().unwrap()).collect();
            let mut out = vec![0.0; engine.run(&values).unwrap()[0].tensor.elem_count()];
            engine.run_into(&views, &mut [&mut out]).unwrap();
            let before = ASKED.load(Ordering::Relaxed);
            for _ in 0..3 {
                engine.run_into(&views, &mut [&mut out]).unwrap();
            }
            assert_eq!(ASKED.load(Ordering::Relaxed) - before, 0, "{file}, batch {batch}");
        }
        assert_eq!(engine.handed_over().0, 0, "{file}");
    }
}

/// A table, a stack of Dense, convolutions with pooling, recurrent layers, and others with kernels of their own.
const FILES: &[&str] = &[
    "example3/2x3/model.keras",
    "models/Sequential/stack/model.keras",
    "convolutional/Conv2D/same_stride/model.keras",
    "convolutional/Conv2D/groups/model.keras",
    "convolutional/DepthwiseConv2D/dilation/model.keras",
    "convolutional/DepthwiseConv2D/multiplier/model.keras",
    "rnn/LSTM/backwards/model.keras",
    "rnn/Bidirectional/merge_concat/model.keras",
    "attention/Attention/dot/model.keras",
    "attention/AdditiveAttention/scale/model.keras",
    "normalization/GroupNormalization/two/model.keras",
    "merging/Maximum/two/model.keras",
    "merging/Dot/vectors/model.keras",
    "pooling/MaxPooling3D/valid/model.keras",
    "reshaping/UpSampling2D/nearest/model.keras",
    "reshaping/RepeatVector/wide/model.keras",
    "by_record/images/images.keras",
];
