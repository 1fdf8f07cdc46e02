//! One message read once: that its bytes are in the runtime's own form, whom it names, and what stands where.

use std::collections::HashMap;

use super::shape::{Form, Node};
use super::value::{content, texts, value, varint};

/// No type that the walk would find too deep can be reached by so many levels.
const MAX_DEPTH: usize = 30;
/// The walk refuses more names and records, or more messages; it is left to say so.
const MAX_NAMES: usize = 10_000;
const MAX_PARTS: usize = 100_000;
const MAX_ENTRIES: usize = 500_000;
/// Subjects among which one is looked for without a table.
const FEW: usize = 16;

/// A field of a message with all its values, or one value of a message field.
pub struct Entry {
    /// Its place among the fields of the type.
    pub field: usize,
    /// From the first tag.
    pub at: usize,
    pub body: usize,
    pub end: usize,
    /// The place of the message it holds.
    pub message: usize,
}

/// A message: its type, its entries, whom it names, and which categories it holds.
pub struct Part {
    pub node: usize,
    pub entries: (usize, usize),
    pub ids: (usize, usize),
    /// It is a record.
    pub unit: bool,
    /// Records in it, itself included.
    pub units: u64,
    /// Categories outside the records in it.
    pub inside: u64,
    /// All categories.
    pub all: u64,
}

pub struct Subject {
    pub kind: usize,
    pub id: String,
    /// A place in `Found.countries`: one long country of many subjects is kept once.
    pub country: Option<usize>,
    pub clears: bool,
}

/// What was found. The message itself is the first part.
#[derive(Default)]
pub struct Found {
    pub entries: Vec<Entry>,
    pub parts: Vec<Part>,
    /// Places of subjects, for the parts.
    pub ids: Vec<usize>,
    pub subjects: Vec<Subject>,
    pub countries: Vec<String>,
    pub records: usize,
    pub unnamed: usize,
}

impl Found {
    /// Categories outside every record.
    pub fn loose(&self) -> u64 {
        if self.parts[0].unit {
            0
        } else {
            self.parts[0].inside
        }
    }
}

pub struct Scan<'a> {
    nodes: &'a [Node],
    data: &'a [u8],
    countries: bool,
    found: Found,
    many: HashMap<(usize, String), usize>,
}

impl<'a> Scan<'a> {
    pub fn new(nodes: &'a [Node], data: &'a [u8], countries: bool) -> Self {
        Self { nodes, data, countries, found: Found::default(), many: HashMap::new() }
    }

    pub fn run(mut self, root: usize) -> Option<Found> {
        self.nodes.get(root)?;
        self.part(root, 0, self.data.len(), 1)?;
        Some(self.found)
    }

    /// Names come before those of what stands inside, as in the walk.
    fn part(&mut self, node: usize, at: usize, end: usize, depth: usize) -> Option<usize> {
        if depth > MAX_DEPTH || self.found.parts.len() >= MAX_PARTS {
            return None;
        }
        let place = self.found.parts.len();
        let first = self.found.entries.len();
        self.entries(node, at, end)?;
        let entries = (first, self.found.entries.len());
        let ids = if self.nodes[node].names { self.names(node, entries)? } else { (0, 0) };
        let unit = ids.0 < ids.1 || (self.nodes[node].record && end > at);
        self.found.records += usize::from(unit && self.nodes[node].names);
        self.found.unnamed += usize::from(unit && self.nodes[node].names && ids.0 == ids.1);
        if self.found.ids.len() + self.found.unnamed > MAX_NAMES {
            return None;
        }
        self.found.parts.push(Part { node, entries, ids, unit, units: u64::from(unit), inside: 0, all: 0 });
        let (mut inside, mut all, mut units) = (0, 0, u64::from(unit));
        for number in entries.0..entries.1 {
            let (place, body, end) = {
                let entry = &self.found.entries[number];
                (entry.field, entry.body, entry.end)
            };
            let nodes = self.nodes;
            let field = &nodes[node].fields[place];
            inside |= field.held;
            all |= field.held;
            if field.form == Form::Message {
                let child = self.part(field.child, body, end, depth + 1)?;
                self.found.entries[number].message = child;
                let child = &self.found.parts[child];
                inside |= if child.unit { 0 } else { child.inside };
                all |= child.all;
                units += child.units;
            }
        }
        let part = &mut self.found.parts[place];
        (part.inside, part.all, part.units) = (inside, all, units);
        Some(place)
    }

    /// The fields of one message: known, ascending, each in its own form.
    fn entries(&mut self, node: usize, mut at: usize, end: usize) -> Option<()> {
        let data = &self.data[..end];
        let fields = &self.nodes[node].fields;
        let (mut next, mut chosen) = (0, 0);
        while at < end {
            let (tag, body) = varint(data, at)?;
            let number = u32::try_from(tag >> 3).ok()?;
            while fields.get(next)?.number < number {
                next += 1;
            }
            let field = &fields[next];
            let wire = if field.packed { 2 } else { field.form.wire() };
            if field.number != number || u32::try_from(tag).ok()? & 7 != wire || chosen & field.oneof != 0 {
                return None;
            }
            chosen |= field.oneof;
            let begin = at;
            at = if field.form == Form::Message {
                self.message(next, begin, tag, field.repeated, data)?
            } else if field.packed {
                packed(field.form, data, body)?
            } else {
                let (end, given) = value(field.form, data, body)?;
                if !(given || field.presence || field.repeated) {
                    return None;
                }
                if field.repeated {
                    run(field.form, tag, data, end)?
                } else {
                    end
                }
            };
            if field.form != Form::Message {
                self.enter(next, begin, body, at)?;
            }
            next += 1;
        }
        Some(())
    }

    /// One entry for each message of a field; what is in them is looked at later.
    fn message(&mut self, field: usize, at: usize, tag: u64, repeated: bool, data: &[u8]) -> Option<usize> {
        let mut begin = at;
        loop {
            let (_, size) = varint(data, begin)?;
            let (body, end) = content(data, size)?;
            self.enter(field, begin, body, end)?;
            begin = end;
            if !repeated || end == data.len() || varint(data, end)?.0 != tag {
                return Some(end);
            }
        }
    }

    fn enter(&mut self, field: usize, at: usize, body: usize, end: usize) -> Option<()> {
        if self.found.entries.len() >= MAX_ENTRIES {
            return None;
        }
        self.found.entries.push(Entry { field, at, body, end, message: 0 });
        Some(())
    }

    /// Whom a message itself names, as places in `ids`.
    fn names(&mut self, node: usize, entries: (usize, usize)) -> Option<(usize, usize)> {
        let nodes = self.nodes;
        let data = self.data;
        let node = &nodes[node];
        let first = self.found.ids.len();
        let mut country = None;
        let mut ids: Vec<(usize, String)> = Vec::new();
        for entry in &self.found.entries[entries.0..entries.1] {
            let field = &node.fields[entry.field];
            if !(field.country && self.countries) && field.kind.is_none() {
                continue;
            }
            let mut each = |text: std::borrow::Cow<'a, str>| {
                if !text.is_empty() {
                    match field.kind {
                        Some(kind) => ids.push((kind, text.into_owned())),
                        None => country = Some(text.into_owned()),
                    }
                }
                (ids.len() <= MAX_NAMES).then_some(())
            };
            if field.form == Form::Message {
                // A wrapper: what it holds is its one field. Whether that stands there rightly is looked at later.
                let inner = nodes[field.child].fields.first()?;
                texts(inner, data, entry.body, entry.end, &mut each)?;
            } else {
                texts(field, data, entry.at, entry.end, &mut each)?;
            }
        }
        let clears = node.clears && country.is_some();
        let country = if ids.is_empty() { None } else { country.map(|text| self.country(text)) };
        for (kind, id) in ids {
            let place = self.subject(kind, id, country, clears)?;
            self.found.ids.push(place);
        }
        Some((first, self.found.ids.len()))
    }

    fn country(&mut self, text: String) -> usize {
        let countries = &mut self.found.countries;
        countries.iter().take(FEW).position(|one| *one == text).unwrap_or_else(|| {
            countries.push(text);
            countries.len() - 1
        })
    }

    /// The place of a subject. Of two statements about one the walk knows which one stands.
    fn subject(&mut self, kind: usize, id: String, country: Option<usize>, clears: bool) -> Option<usize> {
        let countries = &self.found.countries;
        let subjects = &mut self.found.subjects;
        let known = if subjects.len() <= FEW {
            subjects.iter().position(|one| one.kind == kind && one.id == id)
        } else {
            if self.many.is_empty() {
                self.many = subjects.iter().enumerate().map(|(at, one)| ((one.kind, one.id.clone()), at)).collect();
            }
            self.many.get(&(kind, id.clone())).copied()
        };
        if let Some(place) = known {
            let one = &subjects[place];
            let text = |place: Option<usize>| place.map(|place| &countries[place]);
            return (text(one.country) == text(country) && one.clears == clears).then_some(place);
        }
        if !self.many.is_empty() {
            self.many.insert((kind, id.clone()), subjects.len());
        }
        subjects.push(Subject { kind, id, country, clears });
        Some(subjects.len() - 1)
    }
}

/// Where a packed list ends. An empty one is not written.
fn packed(form: Form, data: &[u8], at: usize) -> Option<usize> {
    let (mut body, end) = content(data, at)?;
    if body == end {
        return None;
    }
    while body < end {
        (body, _) = value(form, &data[..end], body)?;
    }
    Some(end)
}

/// Where the values end that follow each other under one tag.
fn run(form: Form, tag: u64, data: &[u8], mut at: usize) -> Option<usize> {
    while at < data.len() {
        let (other, body) = varint(data, at)?;
        if other != tag {
            break;
        }
        (at, _) = value(form, data, body)?;
    }
    Some(at)
}
