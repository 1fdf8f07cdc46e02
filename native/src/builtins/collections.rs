//! Small ones over arrays and texts, after OPA's `topdown/array.go` and `strings.go`.

use anyhow::{bail, Result};
use regorus::Value;

use super::text;
use crate::bounds;

/// One level of nested arrays is dissolved.
pub fn array_flatten(params: &[Value]) -> Result<Value> {
    let [Value::Array(items)] = params else { bail!("an array is taken") };
    let lengths = items.iter().map(|item| if let Value::Array(inner) = item { inner.len() } else { 1 });
    bounds::items_of(lengths.fold(0, usize::saturating_add))?;
    let mut flat = Vec::with_capacity(items.len());
    for item in items.iter() {
        match item {
            Value::Array(inner) => flat.extend(inner.iter().cloned()),
            other => flat.push(other.clone()),
        }
    }
    Ok(Value::from(flat))
}

/// The first `n` parts, or the last `-n`. An empty delimiter separates all characters.
pub fn split_n(params: &[Value]) -> Result<Value> {
    let (whole, delimiter) = (text(params, 0)?, text(params, 1)?);
    let Some(count) = params.get(2).and_then(|n| n.as_i64().ok()) else { bail!("the count is an integer") };
    bounds::parts_of(whole, delimiter)?;
    let parts: Vec<Value> = if delimiter.is_empty() {
        whole.chars().map(|c| Value::from(c.to_string())).collect()
    } else {
        whole.split(delimiter).map(Value::from).collect()
    };
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX).min(parts.len());
    let start = if count < 0 { parts.len().saturating_sub(wanted) } else { 0 };
    Ok(Value::from(parts[start..].iter().take(wanted).cloned().collect::<Vec<_>>()))
}

/// How often the second text stands in the first, without overlaps.
pub fn strings_count(params: &[Value]) -> Result<Value> {
    Ok(Value::from(text(params, 0)?.matches(text(params, 1)?).count()))
}
