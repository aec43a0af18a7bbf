use proptest::prelude::*;

use super::*;

fn parse(json: &str) -> Result<Joules, String> {
    let value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    joules_of(&value)
}

#[test]
fn joules_are_read_by_their_digits() {
    for (json, microjoules) in [
        ("12.5", 12_500_000),
        ("5.0", 5_000_000),
        ("0.000001", 1),
        ("-3", -3_000_000),
        ("0.1", 100_000),
        ("\"7.25\"", 7_250_000),
    ] {
        assert_eq!(
            parse(json),
            Ok(Joules::from_smallest(microjoules)),
            "{json}"
        );
    }
    for json in [
        "1e-7",
        "0.0000001",
        "1e300",
        "\"NaN\"",
        "\"inf\"",
        "NaN",
        "null",
        "[1]",
        "true",
        "\"\"",
        "1000000001",
        "99999999999999999999",
        "{}",
    ] {
        assert!(parse(json).is_err(), "{json} was taken");
    }
}

proptest! {
    #[test]
    fn a_joule_survives_the_socket(microjoules in -4_000_000_000_000_000_i64..4_000_000_000_000_000) {
        let body = GrantedBody {
            ok: true,
            granted_j: Joules::from_smallest(microjoules),
            remaining_j: Joules::ZERO,
        };
        let text = serde_json::to_string(&body).unwrap();
        let back: GrantedBody = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(back.granted_j, body.granted_j);
    }

    /// Whatever is sent as joules: no panic, and what is taken is what the digits say.
    #[test]
    fn any_number_is_exact_or_refused(number in any::<f64>()) {
        if let Some(json) = serde_json::Number::from_f64(number)
            && let Ok(joules) = joules_of(&serde_json::Value::Number(json))
        {
            prop_assert!((joules.as_f64() - number).abs() <= number.abs() * 1e-15);
        }
    }
}
