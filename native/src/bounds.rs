//! What one built-in call may make. regorus looks at the memory between statements only, so a call whose result is much
//! larger than its arguments is refused before it is made; and so is one with an argument of the wrong kind, which regorus
//! would write out whole in its error. A value may hold one part many times: what is written out is counted, not what is
//! held.

use std::cell::RefCell;

use anyhow::{bail, Result};
use regorus::Value;

/// Bytes of a text that a built-in makes.
pub const MAX_TEXT: usize = 16 << 20;
/// Elements of a collection that a built-in makes.
pub const MAX_ITEMS: usize = 1_000_000;
/// Bytes of JSON that are read: a document takes some thirty times as much as its shortest text.
pub const MAX_JSON: usize = 1 << 20;
/// Bytes and elements of an answer.
pub const MAX_ANSWER: usize = 4 << 20;
/// The result of a multiplication grows with every factor, and one call cannot be interrupted.
const MAX_FACTORS: usize = 10_000;
/// regorus prints each element to a text of its own before it joins them.
const PRINTED: usize = 32;
const MAX_NESTED: usize = 256;

thread_local! {
    /// Why the evaluation of this thread was refused a result, even where its error gets lost.
    static TOO_LARGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What was refused in this thread since this was last asked.
pub fn taken_too_large() -> Option<String> {
    TOO_LARGE.take()
}

fn too_large<T>(what: String) -> Result<T> {
    TOO_LARGE.set(Some(what.clone()));
    bail!(what)
}

/// Refuse a text of more than `MAX_TEXT` bytes.
pub fn text_of(bytes: usize) -> Result<()> {
    if bytes > MAX_TEXT {
        return too_large(format!("the result would be a text of more than {} MiB", MAX_TEXT >> 20));
    }
    Ok(())
}

/// Refuse a collection of more than `MAX_ITEMS` elements.
pub fn items_of(count: usize) -> Result<()> {
    if count > MAX_ITEMS {
        return too_large(format!("the result would have more than {MAX_ITEMS} elements"));
    }
    Ok(())
}

/// Refuse to read a long document out of a text.
pub fn json_of(text: &str) -> Result<()> {
    if text.len() > MAX_JSON {
        return too_large(format!("a document of more than {} MiB is not read", MAX_JSON >> 20));
    }
    Ok(())
}

/// Refuse to take a text apart into too many.
pub fn parts_of(text: &str, delimiter: &str) -> Result<()> {
    // Not counted where even one part for each byte would do.
    if text.len() <= MAX_ITEMS {
        return Ok(());
    }
    items_of(text.matches(delimiter).take(MAX_ITEMS).count().saturating_add(1))
}

/// Refuse to put a longer text in place of another too often.
pub fn replaced(text: &str, old: &str, new: &str) -> Result<()> {
    let grows = new.len().saturating_sub(old.len());
    let most = text.len() / old.len().max(1);
    if text.len().saturating_add(most.saturating_mul(grows)) <= MAX_TEXT {
        return Ok(());
    }
    text_of(text.len().saturating_add(text.matches(old).count().saturating_mul(grows)))
}

/// Whether a value, written out, takes at most so many bytes, with `each` for every element; `left` becomes what remains.
pub fn fits(value: &Value, left: &mut usize, each: usize, depth: usize) -> bool {
    let own = match value {
        Value::String(text) => text.len().saturating_add(each),
        Value::Number(number) if number.as_i64().is_none() => {
            number.as_big().map_or(32, |big| usize::try_from(big.bits() / 3).unwrap_or(usize::MAX).saturating_add(each))
        }
        _ => each,
    };
    if own > *left || depth > MAX_NESTED {
        return false;
    }
    *left -= own;
    match value {
        Value::Array(items) => items.iter().all(|item| fits(item, left, each, depth + 1)),
        Value::Set(items) => items.iter().all(|item| fits(item, left, each, depth + 1)),
        Value::Object(entries) => {
            entries.iter().all(|(key, item)| fits(key, left, each, depth + 1) && fits(item, left, each, depth + 1))
        }
        _ => true,
    }
}

const TEXT: u8 = 1;
const NUMBER: u8 = 2;
const ARRAY: u8 = 4;
const OBJECT: u8 = 8;
const SET: u8 = 16;
const ANY: u8 = 255;
const LIST: u8 = ARRAY | SET;
const KEYS: u8 = ARRAY | SET | OBJECT;
const WORDS: u8 = TEXT | ARRAY | SET;

fn kind(value: &Value) -> u8 {
    match value {
        Value::String(_) => TEXT,
        Value::Number(_) => NUMBER,
        Value::Array(_) => ARRAY,
        Value::Object(_) => OBJECT,
        Value::Set(_) => SET,
        Value::Null | Value::Bool(_) | Value::Undefined => 0,
    }
}

fn elements(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Set(items) => Box::new(items.iter()),
        _ => Box::new(std::iter::empty()),
    }
}

fn all_of(value: &Value, wanted: u8) -> Result<()> {
    if elements(value).all(|item| kind(item) & wanted != 0) {
        return Ok(());
    }
    bail!("an element is of the wrong type")
}

type Bound = fn(&[Value]) -> Result<()>;

fn unbounded(_: &[Value]) -> Result<()> {
    Ok(())
}

fn numbers(params: &[Value]) -> Result<()> {
    all_of(&params[0], NUMBER)
}

fn factors(params: &[Value]) -> Result<()> {
    if elements(&params[0]).count() > MAX_FACTORS {
        return too_large(format!("more than {MAX_FACTORS} factors are not multiplied"));
    }
    numbers(params)
}

fn sets(params: &[Value]) -> Result<()> {
    all_of(&params[0], SET)?;
    items_of(elements(&params[0]).map(|set| elements(set).count()).fold(0, usize::saturating_add))
}

fn scalars(params: &[Value]) -> Result<()> {
    all_of(&params[0], NUMBER | TEXT)
}

fn joined_arrays(params: &[Value]) -> Result<()> {
    items_of(params.iter().map(|array| elements(array).count()).fold(0, usize::saturating_add))
}

fn joined_texts(params: &[Value]) -> Result<()> {
    let Value::String(delimiter) = &params[0] else { return Ok(()) };
    let lengths = elements(&params[1]).map(|item| match item {
        Value::String(text) => text.len().saturating_add(delimiter.len()),
        _ => 0,
    });
    text_of(lengths.fold(0, usize::saturating_add))
}

/// Objects are merged part by part, and parts that were shared no longer are.
fn merged(params: &[Value]) -> Result<()> {
    let mut left = MAX_ITEMS;
    if params.iter().all(|object| spread(object, &mut left)) {
        return Ok(());
    }
    too_large(format!("the objects have more than {MAX_ITEMS} entries"))
}

fn spread(value: &Value, left: &mut usize) -> bool {
    let Value::Object(entries) = value else { return true };
    match left.checked_sub(entries.len()) {
        Some(rest) => *left = rest,
        None => return false,
    }
    entries.iter().all(|(_, item)| spread(item, left))
}

fn merged_all(params: &[Value]) -> Result<()> {
    all_of(&params[0], OBJECT)?;
    let mut left = MAX_ITEMS;
    if elements(&params[0]).all(|object| spread(object, &mut left)) {
        return Ok(());
    }
    too_large(format!("the objects have more than {MAX_ITEMS} entries"))
}

fn split(params: &[Value]) -> Result<()> {
    match params {
        [Value::String(text), Value::String(delimiter)] => parts_of(text, delimiter),
        _ => Ok(()),
    }
}

fn printed(params: &[Value]) -> Result<()> {
    let mut left = MAX_TEXT;
    if params.iter().all(|value| fits(value, &mut left, PRINTED, 0)) {
        return Ok(());
    }
    text_of(usize::MAX)
}

/// The engine's own built-ins: what their arguments must be, and what bounds the result.
pub const BOUNDED: &[(&str, &[u8], Bound)] = &[
    ("abs", &[NUMBER], unbounded),
    ("array.concat", &[ARRAY, ARRAY], joined_arrays),
    ("array.reverse", &[ARRAY], unbounded),
    ("array.slice", &[ARRAY, NUMBER, NUMBER], unbounded),
    ("concat", &[TEXT, LIST], joined_texts),
    ("contains", &[TEXT, TEXT], unbounded),
    ("count", &[WORDS | OBJECT], unbounded),
    ("endswith", &[TEXT, TEXT], unbounded),
    ("format_int", &[NUMBER, NUMBER], unbounded),
    ("intersection", &[SET], sets),
    ("max", &[LIST], unbounded),
    ("min", &[LIST], unbounded),
    ("numbers.range", &[NUMBER, NUMBER], unbounded),
    ("object.filter", &[OBJECT, KEYS], unbounded),
    ("object.get", &[OBJECT, ANY, ANY], unbounded),
    ("object.keys", &[OBJECT], unbounded),
    ("object.remove", &[OBJECT, KEYS], unbounded),
    ("object.union", &[OBJECT, OBJECT], merged),
    ("object.union_n", &[ARRAY], merged_all),
    ("product", &[LIST], factors),
    ("regex.match", &[TEXT, TEXT], unbounded),
    ("sort", &[LIST], unbounded),
    ("split", &[TEXT, TEXT], split),
    ("sprintf", &[TEXT, ARRAY], printed),
    ("startswith", &[TEXT, TEXT], unbounded),
    ("strings.any_prefix_match", &[WORDS, WORDS], unbounded),
    ("strings.any_suffix_match", &[WORDS, WORDS], unbounded),
    ("strings.reverse", &[TEXT], unbounded),
    ("substring", &[TEXT, NUMBER, NUMBER], unbounded),
    ("sum", &[LIST], numbers),
    ("time.clock", &[NUMBER | ARRAY], scalars),
    ("time.date", &[NUMBER | ARRAY], scalars),
    ("time.weekday", &[NUMBER | ARRAY], scalars),
    ("trim", &[TEXT, TEXT], unbounded),
    ("trim_left", &[TEXT, TEXT], unbounded),
    ("trim_prefix", &[TEXT, TEXT], unbounded),
    ("trim_right", &[TEXT, TEXT], unbounded),
    ("trim_space", &[TEXT], unbounded),
    ("trim_suffix", &[TEXT, TEXT], unbounded),
    ("union", &[SET], sets),
];

/// Check the arguments of a call before it is made.
pub fn check(kinds: &[u8], bound: Bound, params: &[Value]) -> Result<()> {
    if kinds.len() != params.len() {
        bail!("{} arguments are taken", kinds.len());
    }
    for (place, (value, wanted)) in params.iter().zip(kinds).enumerate() {
        if *wanted != ANY && kind(value) & wanted == 0 {
            bail!("argument {} is of the wrong type", place.saturating_add(1));
        }
    }
    bound(params)
}
