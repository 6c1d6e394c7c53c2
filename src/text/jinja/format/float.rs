//! Floats as `%e`, `%f` and `%g` write them.

/// `%f` of a finite number.
pub(in crate::text::jinja) fn fixed(number: f64, digits: usize) -> String {
    format!("{number:.digits$}")
}

/// `%e` of a finite number.
pub(super) fn exponential(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// `%g` of a finite number. `keeps_zeros` is the flag `#`; `as_float` is the form without a type, which has a digit
/// after the point.
pub(super) fn general(number: f64, precision: usize, keeps_zeros: bool, as_float: bool) -> String {
    let precision = precision.max(1);
    let text = exponential(number, precision - 1);
    let exponent: i32 = text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let highest = i32::try_from(precision).unwrap_or(i32::MAX) - i32::from(as_float);
    if (-4..highest).contains(&exponent) {
        let decimals =
            usize::try_from(i64::try_from(precision).unwrap_or(i64::MAX) - 1 - i64::from(exponent));
        let text = fixed(number, decimals.unwrap_or(0));
        let text = if keeps_zeros { with_point(text) } else { without_zeros(&text) };
        return if as_float && !text.contains('.') { text + ".0" } else { text };
    }
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let digits = if keeps_zeros { with_point(digits.to_owned()) } else { without_zeros(digits) };
    format!("{digits}e{exponent}")
}

/// The text with a point, which the flag `#` asks for.
pub(super) fn with_point(text: String) -> String {
    if text.contains('.') {
        return text;
    }
    match text.split_once('e') {
        Some((digits, exponent)) => format!("{digits}.e{exponent}"),
        None => text + ".",
    }
}

fn without_zeros(text: &str) -> String {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text.to_owned()
    }
}
