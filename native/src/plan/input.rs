//! The parts of the input document that a plan reads: only they are kept when a document is read, each in its place.
//!
//! Whatever a plan says of a document it says of these parts, so two documents in which they are equal have one answer.
//! The rest of a document is read as strictly as these are, and forgotten. Members that were read before are known by
//! their bytes (`recall`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use regorus::Value;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::members;
use super::recall::{Recall, LEAST};
use crate::convert::{self, Element, Key};

/// How deep members are looked for that were read before.
const DEEPEST: usize = 2;
/// A document has few members, and so have its parts; one with more is read as a whole.
const MOST_MEMBERS: usize = 32;

/// Paths below `input`, each with the number of its place.
#[derive(Default)]
pub struct Parts {
    numbers: BTreeMap<Vec<Value>, usize>,
    tree: Node,
    recall: Mutex<Recall>,
}

#[derive(Default)]
struct Node {
    /// Counted from 1; 0 is what no rule reads.
    number: usize,
    /// Where anything goes of what is here and below.
    places: Vec<usize>,
    /// Whether the value here is kept, or something in it that is no member's.
    kept: bool,
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
        self.tree.count(&mut 0);
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
        // Another thread has it, or failed while it had it: this document is read without.
        if let Ok(mut recall) = self.recall.try_lock() {
            let mut found = self.empty();
            let mut members = Members { recall: &mut recall, found: &mut found };
            if !self.tree.kept && members.object(&self.tree, bytes, Element::default(), 1).is_some() {
                return Ok(found);
            }
        }
        self.read_whole(bytes)
    }

    fn read_whole(&self, bytes: &[u8]) -> Result<Vec<Value>, String> {
        let mut found = self.empty();
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        Reader { node: Some(&self.tree), found: &mut found, element: Element::default() }
            .deserialize(&mut reader)
            .map_err(|e| e.to_string())?;
        reader.end().map_err(|e| e.to_string())?;
        Ok(found)
    }
}

impl Node {
    fn count(&mut self, numbers: &mut usize) {
        *numbers += 1;
        self.number = *numbers;
        self.places = self.place.iter().chain(self.inside.iter().map(|(_, place)| place)).copied().collect();
        self.kept = !self.places.is_empty();
        for below in self.below.values_mut() {
            below.count(numbers);
            self.places.extend_from_slice(&below.places);
        }
    }
}

/// Reads a document member by member, and those of its members in the same way.
struct Members<'a> {
    recall: &'a mut Recall,
    found: &'a mut Vec<Value>,
}

impl Members<'_> {
    /// Read the object that `text` is. `None` when it is anything else than an object written compactly with plain keys:
    /// then it may be wrong, or only written otherwise, which reading it as a whole tells.
    fn object(&mut self, node: &Node, text: &[u8], element: Element, depth: usize) -> Option<()> {
        let inner = element.inner::<serde_json::Error>().ok()?;
        let (mut keys, mut count) = ([""; MOST_MEMBERS], 0);
        let mut rest = text.strip_prefix(b"{")?;
        loop {
            let (key, start) = members::key(rest)?;
            if count == MOST_MEMBERS || keys[..count].contains(&key) {
                return None;
            }
            keys[count] = key;
            count += 1;
            rest = &rest[start..];
            rest = &rest[self.member(node.below.get(key), rest, inner, depth)?..];
            match rest {
                [b'}'] => return Some(()),
                [b',', more @ ..] => rest = more,
                _ => return None,
            }
        }
    }

    /// Read the value with which `rest` begins; its length.
    fn member(&mut self, node: Option<&Node>, rest: &[u8], element: Element, depth: usize) -> Option<usize> {
        let place = (node.map_or(0, |node| node.number), depth);
        let object = rest.starts_with(b"{");
        if object {
            if let Some((parts, length)) = self.recall.find(place, rest) {
                for (at, value) in parts {
                    self.found[*at] = value.clone();
                }
                return Some(length);
            }
        }
        let length = members::value_end(rest)?;
        let text = &rest[..length];
        let apart = node.filter(|node| object && length >= LEAST && depth < DEEPEST && !node.kept);
        if apart.and_then(|node| self.object(node, text, element, depth + 1)).is_none() {
            let mut reader = serde_json::Deserializer::from_slice(text);
            Reader { node, found: &mut *self.found, element }.deserialize(&mut reader).ok()?;
            reader.end().ok()?;
        }
        if object {
            let places = node.map_or(&[][..], |node| &node.places);
            let found = &self.found;
            self.recall.met(place, text, || places.iter().map(|at| (*at, found[*at].clone())).collect());
        }
        Some(length)
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
