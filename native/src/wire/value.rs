//! Values as they stand in the bytes, in the one form in which the runtime writes them.

use std::borrow::Cow;

use super::shape::{Field, Form};

/// A number in its shortest form, and where it ends.
pub fn varint(data: &[u8], at: usize) -> Option<(u64, usize)> {
    let first = *data.get(at)?;
    if first < 0x80 {
        return Some((u64::from(first), at + 1));
    }
    let mut value = u64::from(first & 0x7f);
    for (place, byte) in data.get(at + 1..)?.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * (place + 1));
        if *byte < 0x80 {
            let shortest = *byte != 0 && (place < 8 || *byte == 1);
            return shortest.then_some((value, at + place + 2));
        }
    }
    None
}

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Where the content behind a length stands.
pub fn content(data: &[u8], at: usize) -> Option<(usize, usize)> {
    let (size, body) = varint(data, at)?;
    let end = body.checked_add(usize::try_from(size).ok()?)?;
    (end <= data.len()).then_some((body, end))
}

/// Where the value ends that begins here, and whether it is other than the default. Not for messages.
pub fn value(form: Form, data: &[u8], at: usize) -> Option<(usize, bool)> {
    let fixed = |size: usize| {
        let bytes = data.get(at..at + size)?;
        Some((at + size, bytes.iter().any(|byte| *byte != 0)))
    };
    match form {
        Form::Hard | Form::Message => None,
        Form::Fixed32 | Form::SFixed32 => fixed(4),
        Form::Fixed64 | Form::SFixed64 => fixed(8),
        Form::Text | Form::Bytes => {
            let (body, end) = content(data, at)?;
            if form == Form::Text && std::str::from_utf8(&data[body..end]).is_err() {
                return None;
            }
            Some((end, end > body))
        }
        _ => {
            let (number, end) = varint(data, at)?;
            let fits = match form {
                Form::Int32 => i32::try_from(number as i64).is_ok(),
                Form::UInt32 | Form::SInt32 => u32::try_from(number).is_ok(),
                Form::Bool => number <= 1,
                _ => true,
            };
            fits.then_some((end, number != 0))
        }
    }
}

/// An id or country: text, or a number as decimal. Empty for the default, which names nobody.
fn text(form: Form, data: &[u8], at: usize) -> Option<(Cow<'_, str>, usize)> {
    let (end, given) = value(form, data, at)?;
    if !given {
        return Some((Cow::Borrowed(""), end));
    }
    let bytes = &data[at..end];
    let number = || varint(data, at).map(|(number, _)| number);
    let four = || bytes.try_into().map(u32::from_le_bytes).ok();
    let eight = || bytes.try_into().map(u64::from_le_bytes).ok();
    let text = match form {
        Form::Text => {
            let (body, end) = content(data, at)?;
            return Some((Cow::Borrowed(std::str::from_utf8(&data[body..end]).ok()?), end));
        }
        Form::Int32 | Form::Int64 => (number()? as i64).to_string(),
        Form::UInt32 | Form::UInt64 => number()?.to_string(),
        Form::SInt32 | Form::SInt64 => {
            let number = number()?;
            ((number >> 1) as i64 ^ -((number & 1) as i64)).to_string()
        }
        Form::Fixed32 => four()?.to_string(),
        Form::SFixed32 => (four()? as i32).to_string(),
        Form::Fixed64 => eight()?.to_string(),
        Form::SFixed64 => (eight()? as i64).to_string(),
        Form::Hard | Form::Bool | Form::Bytes | Form::Message => return None,
    };
    Some((Cow::Owned(text), end))
}

/// The texts in what one field holds, from the tag of its first value to the end of its last.
pub fn texts<'a>(
    field: &Field,
    data: &'a [u8],
    at: usize,
    end: usize,
    mut each: impl FnMut(Cow<'a, str>) -> Option<()>,
) -> Option<()> {
    let mut at = at;
    while at < end {
        let (_, body) = varint(data, at)?;
        if field.packed {
            let (mut body, end) = content(data, body)?;
            while body < end {
                let (text, next) = text(field.form, data, body)?;
                each(text)?;
                body = next;
            }
            at = end;
        } else {
            let (text, next) = text(field.form, data, body)?;
            each(text)?;
            at = next;
        }
    }
    Some(())
}
