//! Sizes as people write them, and as the program reads them again.

/// Units, from the largest.
const UNITS: [(&str, u64); 5] =
    [("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// `10GiB`, `1.5GiB`, `512B`: at most one digit behind the point, rounded down.
pub(crate) fn show(bytes: u64) -> String {
    for (unit, unit_bytes) in UNITS {
        if bytes >= unit_bytes {
            let tenths = u128::from(bytes) * 10 / u128::from(unit_bytes);
            return match tenths % 10 {
                0 => format!("{}{unit}", tenths / 10),
                tenth => format!("{}.{tenth}{unit}", tenths / 10),
            };
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0B"),
            (512, "512B"),
            (1 << 20, "1MiB"),
            (10 << 30, "10GiB"),
            (3 << 29, "1.5GiB"),
            ((10 << 30) - 1, "9.9GiB"),
            (u64::MAX, "16383.9PiB"),
        ] {
            assert_eq!(show(bytes), text);
        }
    }
}
