//! Built-ins of our own: in place of the engine's where it answers otherwise than OPA, or where it has
//! none. Each answers as OPA does or fails, which refuses the call; what OPA fails on, fails here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{anyhow, bail, Result};
use regorus::unstable::{Expr, ExprRef, Ref, Source, Span, BUILTINS};
use regorus::{Engine, Value};

use crate::bounds;

mod addresses;
mod collections;
mod digests;
mod encodings;
mod times;

type Function = fn(&[Value]) -> Result<Value>;

/// Name, number of arguments, and the function. Registered under the name of the engine's own, it is found first.
const OWN: &[(&str, u8, Function)] = &[
    ("array.flatten", 1, collections::array_flatten),
    ("base64.decode", 1, encodings::base64_decode),
    ("base64.encode", 1, encodings::base64_encode),
    ("base64.is_valid", 1, encodings::base64_is_valid),
    ("base64url.decode", 1, encodings::base64url_decode),
    ("base64url.encode", 1, encodings::base64url_encode),
    ("base64url.encode_no_pad", 1, encodings::base64url_encode_no_pad),
    ("crypto.hmac.equal", 2, digests::hmac_equal),
    ("crypto.hmac.sha256", 2, digests::hmac_sha256),
    ("crypto.hmac.sha512", 2, digests::hmac_sha512),
    ("crypto.sha256", 1, digests::sha256),
    ("hex.decode", 1, encodings::hex_decode),
    ("hex.encode", 1, encodings::hex_encode),
    ("indexof", 2, index_of),
    ("io.jwt.decode", 1, encodings::jwt_decode),
    ("json.unmarshal", 1, encodings::json_unmarshal),
    ("lower", 1, lower),
    ("net.cidr_contains", 2, addresses::cidr_contains),
    ("net.cidr_contains_matches", 2, addresses::cidr_contains_matches),
    ("net.cidr_intersects", 2, addresses::cidr_intersects),
    ("net.cidr_is_valid", 1, addresses::cidr_is_valid),
    ("net.cidr_merge", 1, addresses::cidr_merge),
    ("replace", 3, replace),
    ("strings.count", 2, collections::strings_count),
    ("strings.split_n", 3, collections::split_n),
    ("upper", 1, upper),
];
const PARSE_RFC3339: &str = "time.parse_rfc3339_ns";
/// With nothing to join, the engine would copy all the same.
const CONCAT: &str = "array.concat";

fn text(params: &[Value], index: usize) -> Result<&str> {
    match params.get(index) {
        Some(Value::String(text)) => Ok(text),
        _ => bail!("argument {} is not a string", index.saturating_add(1)),
    }
}

/// Beyond ASCII, Go maps letters one to one and Rust by the full Unicode tables.
fn ascii(params: &[Value]) -> Result<&str> {
    match text(params, 0)? {
        text if text.is_ascii() => Ok(text),
        _ => bail!("only ASCII text is taken: other letters fold differently in OPA"),
    }
}

fn lower(params: &[Value]) -> Result<Value> {
    Ok(Value::from(ascii(params)?.to_ascii_lowercase()))
}

fn upper(params: &[Value]) -> Result<Value> {
    Ok(Value::from(ascii(params)?.to_ascii_uppercase()))
}

/// OPA fails on an empty search text.
fn index_of(params: &[Value]) -> Result<Value> {
    match params {
        [Value::String(text), Value::String(part)] if !part.is_empty() => {
            Ok(text.find(part.as_ref()).map_or(Value::from(-1), |byte| Value::from(text[..byte].chars().count())))
        }
        _ => bail!("two strings are taken, the second not empty"),
    }
}

/// OPA puts the new text between bytes when the old one is empty, cutting letters apart.
fn replace(params: &[Value]) -> Result<Value> {
    match params {
        [Value::String(text), Value::String(old), Value::String(new)] if !old.is_empty() => {
            bounds::replaced(text, old, new)?;
            Ok(Value::from(text.replace(old.as_ref(), new)))
        }
        _ => bail!("three strings are taken, the second not empty"),
    }
}

/// OPA knows no leap seconds and no lower-case or missing `T` and `Z`.
fn parse_rfc3339(params: &[Value], place: &ExprRef) -> Result<Value> {
    let strict = |text: &str| text.get(10..11) == Some("T") && text.get(17..19) != Some("60") && !text.ends_with('z');
    if !matches!(params, [Value::String(text)] if strict(text)) {
        bail!("`{PARSE_RFC3339}` takes a time as in 2026-01-31T10:00:00Z, seconds up to 59");
    }
    if let Some(nanoseconds) = text(params, 0).ok().and_then(times::plain_instant) {
        return Ok(Value::from(nanoseconds));
    }
    let (own, _) = BUILTINS.get(PARSE_RFC3339).ok_or_else(|| anyhow!("`{PARSE_RFC3339}` is missing"))?;
    own(place.span(), std::slice::from_ref(place), params, true)
}

/// A place for the engine's own built-ins to name in their errors; that of the call is put before it.
fn nowhere() -> Result<ExprRef> {
    let source = Source::from_contents("built-in".to_string(), String::new())?;
    let span = Span { source, line: 1, col: 1, start: 0, end: 0 };
    Ok(Ref::new(Expr::Null { span, value: Value::Null, eidx: 0 }))
}

/// A built-in of ours, or one of the engine's that we bound.
pub type Callable = Arc<dyn Fn(&[Value]) -> Result<Value> + Send + Sync>;
/// By name, with the number of arguments.
pub type Callables = BTreeMap<&'static str, (Callable, u8)>;

/// Those of them that the policies call.
pub fn callables(called: &BTreeSet<&'static str>) -> Result<Callables> {
    let mut found = Callables::new();
    for &(name, arguments, function) in OWN.iter().filter(|(name, ..)| called.contains(name)) {
        let named = move |params: &[Value]| function(params).map_err(|why| anyhow!("`{name}`: {why}"));
        found.insert(name, (Arc::new(named), arguments));
    }
    let place = nowhere()?;
    for &(name, kinds, bound) in bounds::BOUNDED.iter().filter(|(name, ..)| called.contains(name)) {
        let (own, arguments) = *BUILTINS.get(name).ok_or_else(|| anyhow!("`{name}` is missing"))?;
        let places = vec![place.clone(); kinds.len()];
        let joins = name == CONCAT;
        let bounded = move |params: &[Value]| {
            bounds::check(kinds, bound, params).map_err(|why| anyhow!("`{name}`: {why}"))?;
            match params {
                [one, Value::Array(other)] if joins && other.is_empty() => return Ok(one.clone()),
                [Value::Array(one), other] if joins && one.is_empty() => return Ok(other.clone()),
                _ => {}
            }
            own(places[0].span(), &places, params, true)
        };
        found.insert(name, (Arc::new(bounded), arguments));
    }
    if called.contains(PARSE_RFC3339) {
        let parse = move |params: &[Value]| parse_rfc3339(params, &place);
        found.insert(PARSE_RFC3339, (Arc::new(parse), 1));
    }
    Ok(found)
}

/// Register them: each costs time in every evaluation.
pub fn register(engine: &mut Engine, callables: &Callables) -> Result<()> {
    for (name, (callable, arguments)) in callables {
        let callable = callable.clone();
        engine.add_extension((*name).to_string(), *arguments, Box::new(move |params: Vec<Value>| callable(&params)))?;
    }
    Ok(())
}
