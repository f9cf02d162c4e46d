//! Numbers that go to memory past the caches.

#![allow(unsafe_code, reason = "stores past the caches are there as intrinsics alone")]

/// Copies past the caches. What was copied is seen by other threads once this is dropped.
#[derive(Debug)]
pub(crate) struct Streams(());

impl Streams {
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// # Panics
    /// Where the two are of different lengths: a caller's error.
    #[inline]
    pub(crate) fn copy(&mut self, from: &[f32], to: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{__m128, _mm_loadu_ps, _mm_stream_ps};
            assert_eq!(from.len(), to.len(), "what is copied is as long as where it goes");
            // Safety: four numbers are a vector, whatever they are.
            let (first, vectors, last) = unsafe { to.align_to_mut::<__m128>() };
            let (before, rest) = from.split_at(first.len());
            let (between, behind) = rest.split_at(vectors.len() * 4);
            first.copy_from_slice(before);
            for (to, from) in vectors.iter_mut().zip(between.chunks_exact(4)) {
                // Safety: every processor of this kind has these; four numbers are read, and `to` is on a vector's boundary.
                unsafe { _mm_stream_ps(std::ptr::from_mut(to).cast(), _mm_loadu_ps(from.as_ptr())) };
            }
            last.copy_from_slice(behind);
        }
        #[cfg(not(target_arch = "x86_64"))]
        to.copy_from_slice(from);
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        // Safety: every processor of this kind has it, and it touches no memory.
        unsafe {
            std::arch::x86_64::_mm_sfence();
        };
    }
}

#[cfg(test)]
mod tests {
    use super::Streams;

    #[test]
    fn copies_are_whole_wherever_they_begin() {
        let from: Vec<f32> = (0..40u8).map(f32::from).collect();
        for first in 0..5 {
            for length in 0..20 {
                let mut to = [-1.0; 40];
                Streams::new().copy(&from[3..3 + length], &mut to[first..first + length]);
                let expected: Vec<f32> = (0..40)
                    .map(|at| if (first..first + length).contains(&at) { from[at - first + 3] } else { -1.0 })
                    .collect();
                assert_eq!(to[..], expected, "{length} from {first} on");
            }
        }
    }
}
