//! Numbers as people read them.

/// Where there is no figure.
pub(super) const NONE: &str = "–";

/// `12,345`.
pub(super) fn count(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    let negative = value < 0.0 && digits != "0";
    if negative { format!("-{text}") } else { text }
}

/// Three digits that say something: `1,234`, `123`, `12.3`, `1.23`, `0.123`.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        100.0.. => count(value),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.3}"),
    }
}

/// As short as an axis wants it: `0.5`, `20`, `40k`, `1.5M`.
pub(super) fn axis(value: f64) -> String {
    /// Nine digits behind the point are none that a person would see.
    const CLEAN: f64 = 1e9;
    let (scaled, unit) = match value.abs() {
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    format!("{}{unit}", (scaled * CLEAN).round() / CLEAN)
}

/// A figure, or that there is none.
pub(super) fn figure_or_none(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), figure)
}

/// `0.57×`.
pub(super) fn ratio(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}×") } else { format!("{}×", figure(value)) }
}

/// `4 GiB`, `1.5 GiB`, `300 MiB`.
pub(super) fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0x4000_0000.. => (1u64 << 30, "GiB"),
        0x10_0000.. => (1 << 20, "MiB"),
        0x400.. => (1 << 10, "KiB"),
        _ => (1, "B"),
    };
    let value = bytes as f64 / unit as f64;
    let text = if value.fract() == 0.0 { count(value) } else { format!("{value:.1}") };
    format!("{text} {name}")
}

/// Universal time: `2026-11-20 21:03`.
pub(super) fn time(unix_s: u64) -> String {
    const MINUTE: u64 = 60;
    const DAY: u64 = 24 * 60 * MINUTE;
    let (mut days, second) = (unix_s / DAY, unix_s % DAY);
    let is_leap = |year: u64| {
        (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
    };
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let minute = second / MINUTE;
    format!("{year}-{month:02}-{:02} {:02}:{:02}", days + 1, minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_commas() {
        let texts = [0.0, 999.4, 999.5, 12_345.0, 1_234_567.0, -1_000.0].map(count);
        assert_eq!(texts, ["0", "999", "1,000", "12,345", "1,234,567", "-1,000"]);
    }

    #[test]
    fn figures_have_three_digits() {
        let texts = [0.0, 0.1234, 1.234, 12.34, 123.4, 1_234.0].map(figure);
        assert_eq!(texts, ["0", "0.123", "1.23", "12.3", "123", "1,234"]);
    }

    #[test]
    fn axes_have_short_numbers() {
        let texts = [0.0, 0.1 + 0.2, 20.0, 40_000.0, 1_500_000.0].map(axis);
        assert_eq!(texts, ["0", "0.3", "20", "40k", "1.5M"]);
    }

    #[test]
    fn sizes_have_units() {
        let texts = [12, 4 << 10, 300 << 20, 3 << 29, 4 << 30].map(size);
        assert_eq!(texts, ["12 B", "4 KiB", "300 MiB", "1.5 GiB", "4 GiB"]);
    }

    #[test]
    fn times_know_the_calendar() {
        // As `date -u -d @…` has them: a leap day, the last of a year, the first of another.
        let texts = [951_782_400, 1_704_067_199, 1_704_067_200, 0].map(time);
        assert_eq!(
            texts,
            ["2000-02-29 00:00", "2023-12-31 23:59", "2024-01-01 00:00", "1970-01-01 00:00"]
        );
    }
}
