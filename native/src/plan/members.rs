//! The members of a compact JSON object, one after the other, without reading what is in them.

/// Where the value ends with which `text` begins, if it is JSON; anything else may be taken for a value, too.
pub fn value_end(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b'"' => string_end(text, 0),
        b'{' | b'[' => nested_end(text),
        _ => text.iter().position(|byte| matches!(byte, b',' | b'}' | b']')),
    }
}

fn nested_end(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0_usize, 0_usize);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                at = string_end(text, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn string_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// A key and the colon after it, as `canonical` writes those of documents: nothing escaped. The key, and where its value is.
pub fn key(text: &[u8]) -> Option<(&str, usize)> {
    let rest = text.strip_prefix(b"\"")?;
    let length = rest.iter().position(|byte| !byte.is_ascii_lowercase() && *byte != b'_')?;
    let (key, rest) = rest.split_at(length);
    let key = std::str::from_utf8(key).ok()?;
    rest.starts_with(b"\":").then_some((key, length + 3))
}
