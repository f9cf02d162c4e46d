/// How much a file may ask for before it is refused.
///
/// The defaults let every real Keras file through and stop files made to exhaust memory. Array bytes that lie plain in
/// the file need no limit of their own: they are mapped, and a file cannot hold more of them than it is long.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one JSON text (configuration or metadata). Default 256 MiB.
    pub json_bytes: u64,
    /// Nesting depth of a JSON text. Default 100; the parser itself stops at 127.
    pub json_depth: usize,
    /// Values of a JSON text: each takes some 50 bytes of memory, however short it is written. Default 10,000,000.
    pub json_values: usize,
    /// Bytes that a compressed zip member or a compressed array may unpack to, whatever it claims. Default 4 GiB.
    pub unpacked_bytes: u64,
    /// Unpacked bytes for each stored byte of a compressed zip member or array, above 1 MiB. Default 1000.
    pub expansion: u64,
    /// Members of a zip. Default 65,536.
    pub members: usize,
    /// Groups and arrays of an HDF5 file. Default 1,000,000.
    pub objects: usize,
    /// Nesting depth of HDF5 groups; a cycle of hard links ends here. Default 64.
    pub group_depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            json_bytes: 256 << 20,
            json_depth: 100,
            json_values: 10_000_000,
            unpacked_bytes: 4 << 30,
            expansion: 1000,
            members: 1 << 16,
            objects: 1_000_000,
            group_depth: 64,
        }
    }
}

impl Limits {
    /// Whether `unpacked` bytes out of `stored` bytes are within the limits for compressed data.
    pub(crate) fn allow_unpacking(&self, unpacked: u64, stored: u64) -> bool {
        const ALWAYS_FINE: u64 = 1 << 20;
        unpacked <= self.unpacked_bytes && (unpacked <= ALWAYS_FINE || unpacked / self.expansion.max(1) <= stored)
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;

    #[test]
    fn unpacking_is_bounded_by_size_and_by_ratio() {
        let limits = Limits::default();
        for (unpacked, stored, allowed) in [
            (1 << 20, 1, true),
            ((1 << 20) + 1, 1, false),
            (100 << 20, 1 << 20, true),
            (4 << 30, 4 << 30, true),
            ((4 << 30) + 1, 4 << 30, false),
            (u64::MAX, u64::MAX, false),
        ] {
            assert_eq!(limits.allow_unpacking(unpacked, stored), allowed, "{unpacked} from {stored}");
        }
    }
}
