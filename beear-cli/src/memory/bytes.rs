//! Amounts of memory as people write and read them.

const KIB: u64 = 1024;

/// Units, the powers of 1024 first, each kind from the largest to the smallest.
const UNITS: [(&str, u64); 8] = [
    ("TiB", KIB * KIB * KIB * KIB),
    ("GiB", KIB * KIB * KIB),
    ("MiB", KIB * KIB),
    ("KiB", KIB),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    // Every other unit ends with this one, so it is last.
    ("B", 1),
];

/// Parses `24GiB`, `24 GB` or `1000B`.
///
/// # Errors
///
/// A sentence that says what was expected.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let expected = || format!("`{text}` is no amount of memory, such as 24GiB or 80GB");
    let Some((name, factor)) = UNITS.iter().find(|(name, _)| text.ends_with(name)) else {
        // A person who writes 80 does not mean 80 bytes.
        return Err(match text.trim().parse::<f64>() {
            Ok(_) => format!("`{text}` has no unit: write {0}GiB, or {0}B for bytes", text.trim()),
            Err(_) => expected(),
        });
    };
    let number: f64 = text[..text.len() - name.len()].trim().parse().map_err(|_| expected())?;
    let bytes = number * *factor as f64;
    if (0.0..=u64::MAX as f64).contains(&bytes) { Ok(bytes as u64) } else { Err(expected()) }
}

/// Formats `bytes` with three digits and a unit of 1024.
pub(crate) fn show(bytes: u64) -> String {
    let units = UNITS[..4].iter();
    let (unit, size) = units.rev().rfind(|(_, size)| bytes >= *size).unwrap_or(&("B", 1));
    let number = bytes as f64 / *size as f64;
    let n_decimals = match number {
        _ if *size == 1 => 0,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{number:.n_decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_1024_and_of_1000_are_told_apart() {
        assert_eq!(parse("24GiB"), Ok(24 << 30));
        assert_eq!(parse("80 GB"), Ok(80_000_000_000));
        assert_eq!(parse("1.5KiB"), Ok(1536));
        assert_eq!(parse("100B"), Ok(100));
        for wrong in ["", "GiB", "24 gigs", "-1GiB", "nanMiB", "1e300TiB"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_number_without_a_unit_is_a_mistake_that_names_the_unit() {
        assert_eq!(parse("80").unwrap_err(), "`80` has no unit: write 80GiB, or 80B for bytes");
    }

    #[test]
    fn amounts_are_shown_with_three_digits() {
        let shown = [17, 1 << 10, 1_572_864, 99 << 20, 640 << 20, 25_000_000_000].map(show);
        assert_eq!(shown, ["17 B", "1.00 KiB", "1.50 MiB", "99.0 MiB", "640 MiB", "23.3 GiB"]);
    }
}
