//! Numbers as people read them.

/// Three significant digits with an SI prefix: `4.21 M`, `812`, `0.52`.
pub(crate) fn short(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let steps = [(1e9, " G"), (1e6, " M"), (1e3, " k")];
    let found = steps.iter().find(|(step, _)| value.abs() >= *step * 0.9995);
    let (scaled, prefix) = found.map_or((value, ""), |(step, prefix)| (value / step, *prefix));
    format!("{}{prefix}", digits(scaled))
}

/// As [`short`] without zeros at the end: for the round numbers of an axis.
pub(crate) fn round(value: f64) -> String {
    let text = short(value);
    let (digits, prefix) = text.split_once(' ').unwrap_or((&text, ""));
    let digits = match digits.split_once('.') {
        Some(_) => digits.trim_end_matches('0').trim_end_matches('.'),
        None => digits,
    };
    if prefix.is_empty() {
        digits.to_owned()
    } else {
        format!("{digits} {prefix}")
    }
}

/// Three significant digits, whole numbers above a hundred.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".to_owned(),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size < 5e-4 => "0".to_owned(),
        _ => format!("{value:.2}"),
    }
}

/// A count with spaces between thousands.
pub(crate) fn count(value: u64) -> String {
    let text = value.to_string();
    let mut spaced = String::new();
    for (index, digit) in text.chars().enumerate() {
        if index > 0 && (text.len() - index).is_multiple_of(3) {
            spaced.push('\u{202f}');
        }
        spaced.push(digit);
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_enough() {
        for (value, text) in [
            (4_213_000.0, "4.21 M"),
            (999_900.0, "1.00 M"),
            (812.4, "812"),
            (0.523, "0.52"),
            (19.55e9, "19.6 G"),
            (0.0, "0"),
            (f64::NAN, "–"),
            (-52.34, "-52.3"),
        ] {
            assert_eq!(short(value), text);
        }
        for (value, text) in [
            (1e3, "1 k"),
            (2500.0, "2.5 k"),
            (10.0, "10"),
            (0.5, "0.5"),
            (200.0, "200"),
        ] {
            assert_eq!(round(value), text);
        }
        assert_eq!(count(1_000_000), "1\u{202f}000\u{202f}000");
        assert_eq!(count(12), "12");
    }
}
