//! Instants as text.

const SECONDS_PER_DAY: i64 = 86_400;
const NANOSECONDS: i64 = 1_000_000_000;

/// Nanoseconds since 1970 of an instant written as `2026-01-31T10:00:00Z`, of the years 1700 to 2199. `None` for every other
/// text, among them instants written otherwise: whoever asks reads those with the engine's own function.
pub fn plain_instant(text: &str) -> Option<i64> {
    let bytes: &[u8; 20] = text.as_bytes().try_into().ok()?;
    if [bytes[4], bytes[7], bytes[10], bytes[13], bytes[16], bytes[19]] != *b"--T::Z" {
        return None;
    }
    let digits = |places: std::ops::Range<usize>| {
        bytes[places]
            .iter()
            .try_fold(0_i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let within = (1700..2200).contains(&year) && (1..=12).contains(&month) && (1..=longest).contains(&day);
    if !within || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Years that begin in March: the day that comes and goes is their last.
    let (of_year, of_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        of_year * 365 + of_year / 4 - of_year / 100 + of_year / 400 + (of_month * 153 + 2) / 5 + day - 1 - 719_468;
    let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
    Some(seconds * NANOSECONDS)
}
