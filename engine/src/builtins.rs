//! Built-ins repaired: registered under the name of the engine's own, they are found first. Where
//! OPA fails or would answer something else, they fail; an error refuses the call.

use anyhow::{anyhow, bail, Result};
use regorus::unstable::{Expr, ExprRef, Ref, Source, Span, BUILTINS};
use regorus::{Engine, Value};

/// Beyond ASCII, Go maps letters one to one and Rust by the full Unicode tables.
fn ascii<'v>(name: &'static str, params: &'v [Value]) -> Result<&'v str> {
    match params {
        [Value::String(text)] if text.is_ascii() => Ok(text),
        [Value::String(_)] => bail!("`{name}` takes ASCII text only: other letters fold differently in OPA"),
        _ => bail!("`{name}` takes a string"),
    }
}

/// OPA fails on an empty search text.
fn index_of(params: &[Value]) -> Result<Value> {
    match params {
        [Value::String(text), Value::String(part)] if !part.is_empty() => {
            Ok(text.find(part.as_ref()).map_or(Value::from(-1), |byte| Value::from(text[..byte].chars().count())))
        }
        _ => bail!("`indexof` takes two strings, the second not empty"),
    }
}

/// OPA puts the new text between bytes when the old one is empty, cutting letters apart.
fn replace(params: &[Value]) -> Result<Value> {
    match params {
        [Value::String(text), Value::String(old), Value::String(new)] if !old.is_empty() => {
            Ok(Value::from(text.replace(old.as_ref(), new)))
        }
        _ => bail!("`replace` takes three strings, the second not empty"),
    }
}

/// OPA knows no leap seconds and no lower-case or missing `T` and `Z`.
fn parse_rfc3339(params: &[Value], place: &ExprRef) -> Result<Value> {
    let name = "time.parse_rfc3339_ns";
    let strict = |text: &str| text.get(10..11) == Some("T") && text.get(17..19) != Some("60") && !text.ends_with('z');
    if !matches!(params, [Value::String(text)] if strict(text)) {
        bail!("`{name}` takes a time as in 2026-01-31T10:00:00Z, seconds up to 59");
    }
    let (own, _) = BUILTINS.get(name).ok_or_else(|| anyhow!("`{name}` is missing"))?;
    own(place.span(), std::slice::from_ref(place), params, true)
}

pub fn repair(engine: &mut Engine) -> Result<()> {
    let lower = |params: Vec<Value>| Ok(Value::from(ascii("lower", &params)?.to_ascii_lowercase()));
    let upper = |params: Vec<Value>| Ok(Value::from(ascii("upper", &params)?.to_ascii_uppercase()));
    let source = Source::from_contents("built-in".to_string(), String::new())?;
    let span = Span { source, line: 1, col: 1, start: 0, end: 0 };
    let place = Ref::new(Expr::Null { span, value: Value::Null, eidx: 0 });
    engine.add_extension("lower".to_string(), 1, Box::new(lower))?;
    engine.add_extension("upper".to_string(), 1, Box::new(upper))?;
    engine.add_extension("indexof".to_string(), 2, Box::new(|params: Vec<Value>| index_of(&params)))?;
    engine.add_extension("replace".to_string(), 3, Box::new(|params: Vec<Value>| replace(&params)))?;
    let parse = move |params: Vec<Value>| parse_rfc3339(&params, &place);
    engine.add_extension("time.parse_rfc3339_ns".to_string(), 1, Box::new(parse))
}
