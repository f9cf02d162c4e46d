//! The two hashes that TensorFlow puts strings into buckets with: FarmHash's Fingerprint64, and SipHash-2-4 where there is a
//! salt. Both are fixed for ever, so that a bucket means the same in every version.
//!
//! Sources: tensorflow/core/platform/fingerprint.h, github.com/google/farmhash (`farmhashna`), and Aumasson and Bernstein,
//! "SipHash: a fast short-input PRF" (2012).

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;

/// The bucket of `text` among `buckets` (at least 1), as `tf.strings.to_hash_bucket_fast`, or with a salt as
/// `tf.strings.to_hash_bucket_strong`.
pub(crate) fn bucket(text: &[u8], buckets: u64, salt: Option<[u64; 2]>) -> i64 {
    let hash = salt.map_or_else(|| fingerprint(text), |salt| siphash(text, salt));
    i64::try_from(hash % buckets.max(1)).unwrap_or(i64::MAX)
}

/// What `tf.sparse.cross_hashed` makes of one more feature.
pub(crate) fn concatenated(hash: u64, feature: u64) -> u64 {
    const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
    let mixed = shift_mix(feature.wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
    let sum = (hash ^ MULTIPLIER ^ mixed).wrapping_mul(MULTIPLIER);
    shift_mix(shift_mix(sum).wrapping_mul(MULTIPLIER))
}

/// The eight bytes at `at`, little-endian; missing ones are 0.
fn word(text: &[u8], at: usize) -> u64 {
    text.iter().skip(at).take(8).rev().fold(0, |word, byte| (word << 8) | u64::from(*byte))
}

/// The four bytes at `at`.
fn half_word(text: &[u8], at: usize) -> u64 {
    word(text, at) & 0xffff_ffff
}

fn shift_mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

fn mixed(u: u64, v: u64, multiplier: u64) -> u64 {
    let a = shift_mix((u ^ v).wrapping_mul(multiplier));
    shift_mix((v ^ a).wrapping_mul(multiplier)).wrapping_mul(multiplier)
}

/// FarmHash's Fingerprint64.
pub(crate) fn fingerprint(text: &[u8]) -> u64 {
    let length = text.len() as u64;
    let multiplier = K2.wrapping_add(length.wrapping_mul(2));
    let end = |before: usize| word(text, text.len().saturating_sub(before));
    match text.len() {
        0 => K2,
        1..=3 => {
            let byte = |at: usize| text.get(at).copied().map_or(0, u64::from);
            let y = byte(0) + (byte(text.len() / 2) << 8);
            let z = length + (byte(text.len() - 1) << 2);
            shift_mix(y.wrapping_mul(K2) ^ z.wrapping_mul(K0)).wrapping_mul(K2)
        }
        4..=7 => {
            let a = half_word(text, 0);
            mixed(length.wrapping_add(a << 3), half_word(text, text.len() - 4), multiplier)
        }
        8..=16 => {
            let a = word(text, 0).wrapping_add(K2);
            let b = end(8);
            let c = b.rotate_right(37).wrapping_mul(multiplier).wrapping_add(a);
            let d = a.rotate_right(25).wrapping_add(b).wrapping_mul(multiplier);
            mixed(c, d, multiplier)
        }
        17..=32 => {
            let (a, b) = (word(text, 0).wrapping_mul(K1), word(text, 8));
            let (c, d) = (end(8).wrapping_mul(multiplier), end(16).wrapping_mul(K2));
            let (u, v) = pair(a, b, c, d, K2);
            mixed(u, v, multiplier)
        }
        33..=64 => {
            let (a, b) = (word(text, 0).wrapping_mul(K2), word(text, 8));
            let (c, d) = (end(8).wrapping_mul(multiplier), end(16).wrapping_mul(K2));
            let (y, v) = pair(a, b, c, d, K2);
            let z = mixed(y, v, multiplier);
            let (e, f) = (word(text, 16).wrapping_mul(multiplier), word(text, 24));
            let g = y.wrapping_add(end(32)).wrapping_mul(multiplier);
            let h = z.wrapping_add(end(24)).wrapping_mul(multiplier);
            let (u, v) = pair(e, f, g, h, a);
            mixed(u, v, multiplier)
        }
        _ => long(text),
    }
}

fn pair(a: u64, b: u64, c: u64, d: u64, added: u64) -> (u64, u64) {
    let u = a.wrapping_add(b).rotate_right(43).wrapping_add(c.rotate_right(30)).wrapping_add(d);
    let v = a.wrapping_add(b.wrapping_add(added).rotate_right(18)).wrapping_add(c);
    (u, v)
}

/// Of more than 64 bytes: blocks of 64, then the last 64 bytes once more.
fn long(text: &[u8]) -> u64 {
    const SEED: u64 = 81;
    let y = SEED.wrapping_mul(K1).wrapping_add(113);
    let z = shift_mix(y.wrapping_mul(K2).wrapping_add(113)).wrapping_mul(K2);
    let x = SEED.wrapping_mul(K2).wrapping_add(word(text, 0));
    let mut state = State { x, y, z, v: (0, 0), w: (0, 0) };
    let blocks = (text.len() - 1) / 64;
    for block in 0..blocks {
        state.block(text, block * 64, K1, 1);
    }
    let multiplier = K1.wrapping_add((state.z & 0xff) << 1);
    let rest = (text.len() - 1) % 64;
    state.w.0 = state.w.0.wrapping_add(rest as u64);
    state.v.0 = state.v.0.wrapping_add(state.w.0);
    state.w.0 = state.w.0.wrapping_add(state.v.0);
    state.block(text, text.len() - 64, multiplier, 9);
    let State { x, y, z, v, w } = state;
    let first = mixed(v.0, w.0, multiplier).wrapping_add(shift_mix(y).wrapping_mul(K0)).wrapping_add(z);
    mixed(first, mixed(v.1, w.1, multiplier).wrapping_add(x), multiplier)
}

struct State {
    x: u64,
    y: u64,
    z: u64,
    v: (u64, u64),
    w: (u64, u64),
}

impl State {
    fn block(&mut self, text: &[u8], at: usize, multiplier: u64, weight: u64) {
        let Self { mut x, mut y, mut z, mut v, mut w } = *self;
        x = x.wrapping_add(y).wrapping_add(v.0).wrapping_add(word(text, at + 8));
        x = x.rotate_right(37).wrapping_mul(multiplier);
        y = y.wrapping_add(v.1).wrapping_add(word(text, at + 48)).rotate_right(42).wrapping_mul(multiplier);
        x ^= w.1.wrapping_mul(weight);
        y = y.wrapping_add(v.0.wrapping_mul(weight)).wrapping_add(word(text, at + 40));
        z = z.wrapping_add(w.0).rotate_right(33).wrapping_mul(multiplier);
        v = weak(text, at, v.1.wrapping_mul(multiplier), x.wrapping_add(w.0));
        w = weak(text, at + 32, z.wrapping_add(w.1), y.wrapping_add(word(text, at + 16)));
        *self = Self { x: z, y, z: x, v, w };
    }
}

/// Of 32 bytes.
fn weak(text: &[u8], at: usize, a: u64, b: u64) -> (u64, u64) {
    let z = word(text, at + 24);
    let a = a.wrapping_add(word(text, at));
    let b = b.wrapping_add(a).wrapping_add(z).rotate_right(21);
    let sum = a.wrapping_add(word(text, at + 8)).wrapping_add(word(text, at + 16));
    (sum.wrapping_add(z), b.wrapping_add(sum.rotate_right(44)).wrapping_add(a))
}

/// SipHash-2-4 under the key `salt`.
fn siphash(text: &[u8], salt: [u64; 2]) -> u64 {
    let [k0, k1] = salt;
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let last = (text.len() as u64) << 56 | word(text, text.len() - text.len() % 8);
    for block in text.chunks_exact(8).map(|block| word(block, 0)).chain([last]) {
        v = absorb(v, block, 2);
    }
    let [a, b, c, d] = v;
    let [a, b, c, d] = absorb([a, b, c ^ 0xff, d], 0, 4);
    a ^ b ^ c ^ d
}

fn absorb([mut a, mut b, mut c, mut d]: [u64; 4], block: u64, rounds: usize) -> [u64; 4] {
    d ^= block;
    for _ in 0..rounds {
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
    }
    [a ^ block, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::bucket;

    /// Texts of 0 to 200 bytes in the largest number of buckets there is, as TensorFlow 2.21 hashes them:
    /// `tf.strings.to_hash_bucket_fast(text, 2**63 - 1)` and `tf.strings.to_hash_bucket_strong(…, key=[133, 2**40 + 7])`
    /// of the texts `bytes((31 * i + 7 * n * n) % 256 for i in range(n))`.
    const RECORDED: &str = include_str!("fingerprint.txt");

    #[test]
    fn hashes_are_those_of_tensorflow() {
        let mut lines = 0;
        for (n, line) in RECORDED.lines().enumerate() {
            let text: Vec<u8> = (0..n).map(|i| ((31 * i + 7 * n * n) % 256) as u8).collect();
            let (fast, strong) = line.split_once(' ').unwrap();
            assert_eq!(bucket(&text, i64::MAX as u64, None).to_string(), fast, "{n} bytes");
            assert_eq!(bucket(&text, i64::MAX as u64, Some([133, (1 << 40) + 7])).to_string(), strong, "{n} bytes");
            lines += 1;
        }
        assert_eq!(lines, 201);
    }
}
