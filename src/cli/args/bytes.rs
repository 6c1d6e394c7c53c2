//! Amounts of memory as people write them.

use bytesize::ByteSize;

/// More bytes than any machine has.
const MOST: f64 = 1e18;
/// Fewer bytes than anybody means by a number without a unit.
const LEAST: f64 = (1 << 20) as f64;

/// Reads `4GiB`, `512MiB`, `1.5GB`, `4G` (binary) or a number of bytes; for clap.
pub fn parse(text: &str) -> Result<usize, String> {
    if let Some(number) =
        text.parse::<f64>().ok().filter(|number| (f64::MIN_POSITIVE..LEAST).contains(number))
    {
        let unit = if number < 1024.0 { "GiB" } else { "MiB" };
        return Err(format!("{text} bytes; write {text}{unit}"));
    }
    let is_prefix = |c: char| matches!(c.to_ascii_lowercase(), 'k' | 'm' | 'g' | 't');
    let bytes = match text.parse::<f64>() {
        Ok(bytes) => Ok(bytes),
        // The library takes a prefix alone as decimal.
        Err(_) if text.ends_with(is_prefix) => format!("{text}iB").parse().map(as_number),
        Err(_) => text.parse().map(as_number),
    };
    match bytes {
        Ok(bytes) if (1.0..MOST).contains(&bytes) => Ok(bytes as usize),
        _ => Err("give a number and a unit (B, KiB, MiB, GiB, KB, MB or GB), such as 4GiB".to_owned()),
    }
}

fn as_number(size: ByteSize) -> f64 {
    size.as_u64() as f64
}

/// `bytes` in the largest unit that leaves a number over 1.
pub fn show(bytes: usize) -> String {
    ByteSize::b(bytes as u64).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        assert_eq!(parse("4GiB"), Ok(4 << 30));
        assert_eq!(parse("1.5kb"), Ok(1500));
        assert_eq!(parse("8589934592"), Ok(8 << 30));
        assert_eq!(parse("24B"), Ok(24));
        assert_eq!(parse("24"), Err("24 bytes; write 24GiB".to_owned()));
        assert_eq!(parse("81920"), Err("81920 bytes; write 81920MiB".to_owned()));
        for bad in ["", "0", "0GiB", "GiB", "4 parsecs", "-1", "1e99", "nan"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(show(1536), "1.5 KiB");
    }
}
