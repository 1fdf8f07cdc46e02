//! The parts of the input document that a plan reads: only they are kept when a document is read, each in its place.
//!
//! Whatever a plan says of a document it says of these parts, so two documents in which they are equal have one answer.
//! The rest of a document is read as strictly as these are, and forgotten.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use regorus::Value;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::convert::{self, Element, Key};

/// Paths below `input`, each with the number of its place.
#[derive(Default)]
pub struct Parts {
    numbers: BTreeMap<Vec<Value>, usize>,
    tree: Node,
}

#[derive(Default)]
struct Node {
    /// Where the whole value here goes.
    place: Option<usize>,
    below: BTreeMap<String, Node>,
    /// Of a value kept whole, or reached by other keys than text: what is read of it, and where that goes.
    inside: Vec<(Vec<Value>, usize)>,
}

impl Parts {
    /// The place of what stands at `path`.
    pub fn place(&mut self, path: Vec<Value>) -> usize {
        let next = self.numbers.len();
        *self.numbers.entry(path).or_insert(next)
    }

    /// To be called once all paths have their places.
    pub fn finish(&mut self) {
        let wholes: Vec<Vec<Value>> = self.numbers.keys().map(|path| whole(path)).collect();
        for (path, place) in &self.numbers {
            // The shortest path that is kept whole and leads here.
            let kept = wholes.iter().filter(|other| path.starts_with(other)).min_by_key(|other| other.len());
            let kept = kept.map_or(&path[..], |other| &other[..]);
            let mut node = &mut self.tree;
            for key in kept {
                if let Value::String(text) = key {
                    node = node.below.entry(text.to_string()).or_default();
                }
            }
            match path.strip_prefix(kept) {
                Some([]) => node.place = Some(*place),
                Some(rest) => node.inside.push((rest.to_vec(), *place)),
                None => {}
            }
        }
    }

    fn empty(&self) -> Vec<Value> {
        vec![Value::Undefined; self.numbers.len()]
    }

    /// The parts of a document that was read before.
    pub fn of(&self, document: &Value) -> Vec<Value> {
        let mut found = self.empty();
        for (path, place) in &self.numbers {
            found[*place] = path.iter().fold(document, |value, key| &value[key]).clone();
        }
        found
    }

    /// The parts of a JSON document, read as `convert::from_json` reads it.
    pub fn read(&self, bytes: &[u8]) -> Result<Vec<Value>, String> {
        let mut found = self.empty();
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        Reader { node: Some(&self.tree), found: &mut found, element: Element::default() }
            .deserialize(&mut reader)
            .map_err(|e| e.to_string())?;
        reader.end().map_err(|e| e.to_string())?;
        Ok(found)
    }
}

/// As much of a path as is reached by text.
fn whole(path: &[Value]) -> Vec<Value> {
    path.iter().take_while(|key| matches!(key, Value::String(_))).cloned().collect()
}

/// Reads a value of which parts are wanted, or none.
struct Reader<'a> {
    node: Option<&'a Node>,
    found: &'a mut Vec<Value>,
    element: Element,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.node {
            Some(node) if node.place.is_some() || !node.inside.is_empty() => {
                let value = self.element.deserialize(deserializer)?;
                for (path, place) in &node.inside {
                    self.found[*place] = path.iter().fold(&value, |value, key| &value[key]).clone();
                }
                if let Some(place) = node.place {
                    self.found[place] = value;
                }
                Ok(())
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.element.visit_u64(value).map(drop)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.element.visit_f64(value).map(drop)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let element = self.element.inner()?;
        let found = self.found;
        while items.next_element_seed(Reader { node: None, found: &mut *found, element })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let element = self.element.inner()?;
        let found = self.found;
        let mut keys: Vec<Cow<'de, str>> = Vec::new();
        let mut ascending = true;
        while let Some(key) = entries.next_key_seed(Key::<Cow<'de, str>>::default())? {
            let node = self.node.and_then(|node| node.below.get(key.as_ref()));
            entries.next_value_seed(Reader { node, found: &mut *found, element })?;
            ascending = ascending && keys.last().is_none_or(|last| *last < key);
            keys.push(key);
        }
        if !ascending {
            keys.sort_unstable();
            if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(convert::twice(&pair[0]));
            }
        }
        Ok(())
    }
}
