//! Values between Python, JSON and the engine. One rule for all three: null, booleans, strings,
//! integers, lists and objects with text keys; nothing else, and no deeper than a bound.

use std::borrow::Cow;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt;
use std::marker::PhantomData;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyList, PyString, PyTuple};
use regorus::Value;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

pub const MAX_DEPTH: usize = 64;
const DEEP: &str = "nested deeper than 64 levels";
const NO_FLOAT: &str =
    "a number that is not an integer of 64 bits: write it as an integer in a smaller unit, or as text";

/// Read one JSON document.
pub fn from_json(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Element::default().deserialize(&mut reader).map_err(|e| e.to_string())?;
    reader.end().map_err(|e| e.to_string())?;
    Ok(value)
}

/// Reads one value.
#[derive(Clone, Copy, Default)]
pub struct Element {
    depth: usize,
}

impl Element {
    /// For what stands inside it.
    pub fn inner<E: Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(DEEP));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Element {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value).map(Value::from).map_err(|_| E::custom(NO_FLOAT))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Value, E> {
        Err(E::custom(NO_FLOAT))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::with_capacity(items.size_hint().unwrap_or(0));
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::from(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = BTreeMap::new();
        while let Some(key) = entries.next_key_seed(Key::<Value>::default())? {
            let value = entries.next_value_seed(inner)?;
            match object.entry(key) {
                Entry::Vacant(place) => place.insert(value),
                Entry::Occupied(place) => return Err(twice(place.key())),
            };
        }
        Ok(Value::from(object))
    }
}

pub fn twice<E: Error>(key: impl fmt::Display) -> E {
    E::custom(format!("the key {key} stands twice in one object"))
}

/// A key of an object: straight to the form the engine keeps, or as it stands in the document.
pub struct Key<T>(PhantomData<T>);

impl<T> Default for Key<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T> DeserializeSeed<'de> for Key<T>
where
    Self: Visitor<'de>,
{
    type Value = <Self as Visitor<'de>>::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<Value> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }
}

impl<'de> Visitor<'de> for Key<Cow<'de, str>> {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_string()))
    }
}

/// Python to engine. Raises TypeError for any other type, ValueError for a value out of bounds.
pub fn from_python(object: &Bound<'_, PyAny>, depth: usize) -> PyResult<Value> {
    if depth > MAX_DEPTH {
        return Err(PyValueError::new_err(DEEP));
    }
    if object.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(text) = object.cast_exact::<PyString>() {
        return Ok(Value::String(text.to_cow()?.as_ref().into()));
    }
    if let Ok(flag) = object.cast_exact::<PyBool>() {
        return Ok(Value::Bool(flag.is_true()));
    }
    if object.is_exact_instance_of::<PyInt>() {
        return object.extract::<i64>().map(Value::from).map_err(|_| PyValueError::new_err(NO_FLOAT));
    }
    if let Ok(dict) = object.cast_exact::<PyDict>() {
        let mut map = BTreeMap::new();
        for (key, value) in dict.iter() {
            let Ok(key) = key.cast_exact::<PyString>() else {
                return Err(PyTypeError::new_err("the keys of the input are strings"));
            };
            map.insert(Value::String(key.to_cow()?.as_ref().into()), from_python(&value, depth + 1)?);
        }
        return Ok(Value::from(map));
    }
    if let Ok(list) = object.cast_exact::<PyList>() {
        return list.iter().map(|item| from_python(&item, depth + 1)).collect::<PyResult<Vec<_>>>().map(Value::from);
    }
    if let Ok(tuple) = object.cast_exact::<PyTuple>() {
        return tuple.iter().map(|item| from_python(&item, depth + 1)).collect::<PyResult<Vec<_>>>().map(Value::from);
    }
    let name = object.get_type().name().map_or_else(|_| "?".to_string(), |n| n.to_string());
    Err(PyTypeError::new_err(format!(
        "{name} in the input: only None, bool, int, str, list, tuple and dict are accepted"
    )))
}

/// Why a result cannot leave the engine: it holds what JSON or the other engine would change.
pub fn unfit(value: &Value, depth: usize) -> Option<&'static str> {
    if depth > MAX_DEPTH {
        return Some(DEEP);
    }
    match value {
        Value::Number(number) => number.as_i64().is_none().then_some(NO_FLOAT),
        Value::Array(items) => items.iter().find_map(|item| unfit(item, depth + 1)),
        Value::Set(items) => items.iter().find_map(|item| unfit(item, depth + 1)),
        Value::Object(entries) => entries.iter().find_map(|(key, value)| match key {
            Value::String(_) => unfit(value, depth + 1),
            _ => Some("an object key that is not text"),
        }),
        Value::Undefined => Some("an undefined part"),
        Value::Null | Value::Bool(_) | Value::String(_) => None,
    }
}

/// Engine to Python; sets become sorted lists. The value was checked by `unfit`.
pub fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null | Value::Undefined => py.None().into_bound(py),
        Value::Bool(flag) => PyBool::new(py, *flag).to_owned().into_any(),
        Value::Number(number) => number.as_i64().into_pyobject(py)?,
        Value::String(text) => PyString::new(py, text).into_any(),
        Value::Array(items) => list(py, items.iter())?,
        Value::Set(items) => list(py, items.iter())?,
        Value::Object(entries) => {
            let dict = PyDict::new(py);
            for (key, value) in entries.iter() {
                dict.set_item(to_python(py, key)?, to_python(py, value)?)?;
            }
            dict.into_any()
        }
    })
}

fn list<'py, 'v>(py: Python<'py>, items: impl Iterator<Item = &'v Value>) -> PyResult<Bound<'py, PyAny>> {
    let list = PyList::empty(py);
    for item in items {
        list.append(to_python(py, item)?)?;
    }
    Ok(list.into_any())
}
