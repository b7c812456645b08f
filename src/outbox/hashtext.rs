//! PostgreSQL's hash of a text, by which shards divide the keys: row filters ask the server for it,
//! logical messages pass no filter and are judged here.

/// What `hashtext(text)` answers on a little-endian server whose encoding is UTF-8, from PostgreSQL 8.4
/// on: Bob Jenkins' lookup3 of the bytes, with PostgreSQL's start value.
#[must_use]
pub fn hashtext(text: &str) -> i32 {
    let bytes = text.as_bytes();
    // PostgreSQL's lengths are 32 bits wide: no text is longer.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let start = 0x9e37_79b9_u32.wrapping_add(length).wrapping_add(3_923_095);
    let mut state = [start; 3];
    let (blocks, rest) = bytes.as_chunks::<12>();
    for block in blocks {
        add(&mut state, block);
        mix(&mut state);
    }
    // The last word leaves its lowest byte to the length.
    let mut last = [0; 12];
    for (at, byte) in rest.iter().enumerate() {
        if let Some(place) = last.get_mut(if at < 8 { at } else { at + 1 }) {
            *place = *byte;
        }
    }
    add(&mut state, &last);
    finish(&mut state).cast_signed()
}

/// Adds three little-endian words.
fn add(state: &mut [u32; 3], block: &[u8; 12]) {
    let (words, _) = block.as_chunks::<4>();
    for (part, word) in state.iter_mut().zip(words) {
        *part = part.wrapping_add(u32::from_le_bytes(*word));
    }
}

fn mix([a, b, c]: &mut [u32; 3]) {
    let step = |x: &mut u32, y: &mut u32, z: u32, rotation: u32| {
        *x = x.wrapping_sub(*y) ^ y.rotate_left(rotation);
        *y = y.wrapping_add(z);
    };
    step(a, c, *b, 4);
    step(b, a, *c, 6);
    step(c, b, *a, 8);
    step(a, c, *b, 16);
    step(b, a, *c, 19);
    step(c, b, *a, 4);
}

fn finish([a, b, c]: &mut [u32; 3]) -> u32 {
    let step = |x: &mut u32, y: u32, rotation: u32| {
        *x = (*x ^ y).wrapping_sub(y.rotate_left(rotation));
    };
    step(c, *b, 14);
    step(a, *c, 11);
    step(b, *a, 25);
    step(c, *b, 16);
    step(a, *c, 4);
    step(b, *a, 14);
    step(c, *b, 24);
    *c
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of PostgreSQL 15. `tests/it/shards.rs` asks the server at hand for thousands.
    #[test]
    fn as_postgresql_answers() {
        for (text, hash) in [
            ("", -1_477_818_771),
            ("a", 1_075_015_857),
            ("ab", 1_718_550_461),
            ("abc", -785_388_649),
            ("abcd", -393_934_804),
            ("abcdefg", 501_636_814),
            ("abcdefgh", -1_960_928_205),
            ("abcdefghi", -92_131_489),
            ("abcdefghij", 1_948_051_852),
            ("abcdefghijk", -1_483_803_693),
            ("abcdefghijkl", -1_586_087_212),
            ("abcdefghijklm", 405_849_808),
            ("/queue/orders", 1_675_504_276),
            ("Grüße, 東京 🚀", 830_824_467),
            ("customer-4711-of-the-northern-branch", 843_621_495),
        ] {
            assert_eq!(hashtext(text), hash, "{text:?}");
        }
    }
}
