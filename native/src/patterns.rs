//! Texts with a language of their own (regular expressions, formats), accepted only as literals
//! and only in the part where the libraries behind both engines mean the same.

/// Go's RE2 and Rust's regex agree on literals, `.`, anchors, groups, alternation, greedy and lazy
/// repetition and plain character classes. They differ on `\d \w \s \b` (ASCII in Go, Unicode in
/// Rust), nested classes, class operators, flags and everything rarer.
pub fn regex_differs(pattern: &str) -> Option<String> {
    if !pattern.is_ascii() {
        return Some("characters beyond ASCII".to_string());
    }
    let mut rest = pattern;
    // Can a repetition follow here?
    let mut item = false;
    while let Some(c) = rest.chars().next() {
        rest = &rest[1..];
        item = match c {
            '\\' => match rest.chars().next() {
                Some(e) if e.is_ascii_punctuation() && !matches!(e, '<' | '>') => {
                    rest = &rest[1..];
                    true
                }
                Some(e) => {
                    return Some(format!(
                        "`\\{e}`, which means other characters in OPA: write a class such as [0-9A-Za-z_]"
                    ))
                }
                None => return Some("a backslash at its end".to_string()),
            },
            '[' => match class(rest) {
                Ok(after) => {
                    rest = after;
                    true
                }
                Err(why) => return Some(why),
            },
            '(' => {
                if rest.starts_with('?') && !rest.starts_with("?:") {
                    return Some("groups other than (…) and (?:…)".to_string());
                }
                rest = rest.strip_prefix("?:").unwrap_or(rest);
                false
            }
            '*' | '+' | '?' | '{' => {
                if !item {
                    return Some(format!("`{c}` without something to repeat"));
                }
                if c == '{' {
                    match repetition(rest) {
                        Some(after) => rest = after,
                        None => return Some("`{` other than {n}, {n,} or {n,m} with n and m up to 999".to_string()),
                    }
                }
                rest = rest.strip_prefix('?').unwrap_or(rest);
                false
            }
            '^' | '$' | '|' => false,
            ']' | '}' => return Some(format!("a lone `{c}`: escape it")),
            _ => true,
        };
    }
    None
}

/// The text after a plain class, whose `[` was read.
fn class(text: &str) -> Result<&str, String> {
    let body = text.strip_prefix('^').unwrap_or(text);
    let end = body.find(']').ok_or_else(|| "a class without its `]`".to_string())?;
    let inside = &body[..end];
    let plain = |c: char| c.is_ascii_alphanumeric() || " _.:@/,;=!#%'\"<>()*+?{}|$".contains(c);
    let chars: Vec<char> = inside.chars().collect();
    let mut index = 0;
    while index < chars.len() {
        let range = chars.get(index + 1) == Some(&'-') && index + 2 < chars.len();
        // A hyphen stands for itself only at the end.
        if !(plain(chars[index]) || (chars[index] == '-' && index + 1 == chars.len())) {
            return Err(format!("`{}` in a class", chars[index]));
        }
        if range && !(chars[index].is_ascii_alphanumeric() && chars[index + 2].is_ascii_alphanumeric()) {
            return Err("a range of other than letters and digits in a class".to_string());
        }
        index += if range { 3 } else { 1 };
    }
    if inside.is_empty() {
        return Err("an empty class".to_string());
    }
    Ok(&body[end + 1..])
}

/// The text after `n}`, `n,}` or `n,m}`.
fn repetition(text: &str) -> Option<&str> {
    let (inside, after) = text.split_once('}')?;
    let number = |s: &str| !s.is_empty() && s.len() <= 3 && s.chars().all(|b| b.is_ascii_digit());
    let fits = match inside.split_once(',') {
        None => number(inside),
        Some((low, "")) => number(low),
        Some((low, high)) => number(low) && number(high) && low.parse::<u32>().ok()? <= high.parse::<u32>().ok()?,
    };
    fits.then_some(after)
}

/// Formats take `%v` and `%%` only: every other verb prints some values differently.
/// Returns the number of values the format takes.
pub fn format_verbs(format: &str) -> Result<usize, String> {
    let mut chars = format.chars();
    let mut verbs = 0_usize;
    while let Some(c) = chars.next() {
        if c == '%' {
            match chars.next() {
                Some('%') => {}
                Some('v') => verbs = verbs.saturating_add(1),
                Some(other) => return Err(format!("`%{other}`")),
                None => return Err("a lone `%`".to_string()),
            }
        }
    }
    Ok(verbs)
}
