//! Identifiers that sort by time.

use crate::clock::Timestamp;

/// Crockford's base 32.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A new identifier that sorts by time: 48 bits of milliseconds, 80 random bits, in Crockford's
/// base 32 (the ULID format).
///
/// # Errors
/// When the operating system gives no randomness.
pub fn new_id(now: Timestamp) -> Result<String, getrandom::Error> {
    let mut random = [0; 10];
    getrandom::fill(&mut random)?;
    let time = u128::from(now.millis().unsigned_abs() & 0xFFFF_FFFF_FFFF);
    let bits = random
        .iter()
        .fold(time, |bits, &byte| bits << 8 | u128::from(byte));
    let digit = |at: u32| char::from(ALPHABET[(bits >> (5 * at) & 31) as usize]);
    Ok((0..26).rev().map(digit).collect())
}

/// The number that an identifier writes; `None` for any other text.
pub fn number(id: &str) -> Option<u128> {
    // 26 digits hold two bits more than a number.
    if id.len() != 26 || id.as_bytes()[0] > b'7' {
        return None;
    }
    id.bytes().try_fold(0, |number, digit| {
        let value = ALPHABET.iter().position(|&known| known == digit)?;
        Some(number << 5 | value as u128)
    })
}

/// The time with which an identifier begins; `None` for any other text.
pub fn time(id: &str) -> Option<Timestamp> {
    let millis = i64::try_from(number(id)? >> 80).ok()?;
    Some(Timestamp::from_millis(millis))
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
        assert!(number(&early) < number(&late));
        assert_eq!(
            time(&early),
            Some(Timestamp::from_millis(1_469_918_176_385))
        );
        assert_eq!(number("00000000000000000000000010"), Some(32));
        for bad in [
            "",
            "01ARYZ6S41",
            "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "0000000000000000000000000u",
        ] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
