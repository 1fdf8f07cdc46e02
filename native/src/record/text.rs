//! JSON strings and numbers, byte for byte as msgspec writes them, and times.

use std::fmt::Display;
use std::io::Write;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A JSON string. Only quotes, backslashes and controls are escaped; the short escapes where there are any.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        let (plain, escaped) = rest.split_at(at);
        out.extend_from_slice(plain);
        if let Some((&byte, behind)) = escaped.split_first() {
            escape(out, byte);
            rest = behind;
        }
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        _ => {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Decimal digits.
pub fn number(out: &mut Vec<u8>, value: impl Display) {
    // Writing to a vector does not fail.
    let _ = write!(out, "{value}");
}

/// RFC 3339 in UTC with microseconds. seconds: since 1970, as `datetime.fromtimestamp` rounds them; before year 10000.
#[pyfunction]
pub fn stamp(seconds: f64) -> PyResult<String> {
    const MILLION: f64 = 1e6;
    let mut whole = seconds.trunc();
    let mut micros = ((seconds - whole) * MILLION).round_ties_even();
    if micros >= MILLION {
        (whole, micros) = (whole + 1.0, micros - MILLION);
    } else if micros < 0.0 {
        (whole, micros) = (whole - 1.0, micros + MILLION);
    }
    if !(FIRST..=LAST).contains(&whole) {
        return Err(PyValueError::new_err("a time outside of the years 1 to 9999"));
    }
    let (whole, micros) = (whole as i64, micros as u32);
    let (days, second) = (whole.div_euclid(DAY), whole.rem_euclid(DAY));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let (year, month, day) = (year.unsigned_abs(), month.unsigned_abs(), day.unsigned_abs());
    let fields = [
        (0..4, year),
        (5..7, month),
        (8..10, day),
        (11..13, hour.unsigned_abs()),
        (14..16, minute.unsigned_abs()),
        (17..19, second.unsigned_abs()),
        (20..26, u64::from(micros)),
    ];
    for (place, mut value) in fields {
        for digit in text.get_mut(place).unwrap_or_default().iter_mut().rev() {
            *digit = b'0' | (value % 10) as u8;
            value /= 10;
        }
    }
    Ok(text.into_iter().map(char::from).collect())
}

const DAY: i64 = 86400;
/// 0001-01-01T00:00:00 and 9999-12-31T23:59:59.
const FIRST: f64 = -62_135_596_800.0;
const LAST: f64 = 253_402_300_799.0;

/// Year, month and day of the proleptic Gregorian calendar, from days since 1970 (Howard Hinnant, `civil_from_days`).
fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}
