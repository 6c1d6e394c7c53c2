//! Amounts of memory as people write them.

/// Reads `4GiB`, `512MiB`, `1.5GB` or a number of bytes; for clap.
pub fn parse(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: f64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024f64.powi(2),
        "g" | "gib" => 1024f64.powi(3),
        "t" | "tib" => 1024f64.powi(4),
        other => return Err(format!("'{other}' is no unit; use B, KiB, MiB, GiB, KB, MB or GB")),
    };
    match digits.trim().parse::<f64>() {
        Ok(amount) if amount >= 0.0 && amount * unit < 1e18 => Ok((amount * unit) as usize),
        _ => Err("give a number and a unit, such as 4GiB".to_owned()),
    }
}

/// `bytes` in the largest unit that leaves a number over 1.
pub fn show(bytes: usize) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            return format!("{amount:.1} {unit}");
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        assert_eq!(parse("4GiB"), Ok(4 << 30));
        assert_eq!(parse("1.5kb"), Ok(1500));
        assert_eq!(parse("123"), Ok(123));
        for bad in ["", "GiB", "4 parsecs", "-1", "1e99", "nan"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(show(1536), "1.5 KiB");
    }
}
