//! Identifiers that sort by time.

use crate::clock::Timestamp;

/// A new identifier that sorts by time: 48 bits of milliseconds, 80 random bits, in Crockford's
/// base 32 (the ULID format).
///
/// # Errors
/// When the operating system gives no randomness.
pub fn new_id(now: Timestamp) -> Result<String, getrandom::Error> {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut random = [0; 10];
    getrandom::fill(&mut random)?;
    let time = u128::from(now.millis().unsigned_abs() & 0xFFFF_FFFF_FFFF);
    let bits = random
        .iter()
        .fold(time, |bits, &byte| bits << 8 | u128::from(byte));
    let digit = |at: u32| char::from(ALPHABET[(bits >> (5 * at) & 31) as usize]);
    Ok((0..26).rev().map(digit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_differ() {
        let early = new_id(Timestamp::from_millis(1_469_918_176_385)).unwrap();
        let late = new_id(Timestamp::from_millis(1_469_918_176_386)).unwrap();
        // The time part is the example of the ULID specification.
        assert!(early.starts_with("01ARYZ6S41"), "{early}");
        assert_eq!(early.len(), 26);
        assert!(early < late);
    }
}
