//! Sizes as people write them.

/// Bytes of `4096`, `256KiB`, `10g` and the like: units are powers of 1024.
///
/// # Errors
/// What is wrong with the text.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err("units are KiB, MiB, GiB and TiB".into()),
    };
    let number: u64 = number.parse().map_err(|error| format!("{error}"))?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024_and_others_are_refused() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("3KiB", 3072), ("1m", 1 << 20), ("2TiB", 2 << 40)] {
            assert_eq!(parse(text), Ok(bytes));
        }
        for text in ["", "KiB", "1KB", "-1", "1.5GiB", "99999999999TiB"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
