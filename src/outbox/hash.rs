//! The hash that spreads ordering keys over the lanes.

/// FNV-1a with 64 bits: the same in every process and version, so that a key stays on its lane.
///
/// It is not the hash that shards use; that one is PostgreSQL's, see `hashtext.rs`.
pub(super) fn key_hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_published() {
        assert_eq!(key_hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(key_hash(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(key_hash(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn keys_spread_over_lanes() {
        for lanes in [2usize, 3, 4, 7] {
            let mut count = vec![0usize; lanes];
            for key in 0..1_000 * lanes {
                count[(key_hash(format!("customer-{key}").as_bytes()) % lanes as u64) as usize] +=
                    1;
            }
            assert!(count.iter().all(|&count| (800..1_200).contains(&count)), "{count:?}");
        }
    }
}
