//! Hash of a text that is independent of library, version and machine.

/// Hashes a text with FNV-1a and a final mix; the high bits are the best.
///
/// Fowler, Noll, Vo, [FNV](http://www.isthe.com/chongo/tech/comp/fnv/), 64 bits. The mix is the
/// golden ratio's multiplier, because the high bits of FNV-1a change little on short texts.
#[must_use]
pub fn text_hash(text: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one_before_the_mix() {
        // FNV-1a of "a" is 0xaf63dc4c8601ec8c.
        let hash = 0xaf63_dc4c_8601_ec8c_u64;
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        assert_eq!(text_hash("a"), mixed);
    }
}
