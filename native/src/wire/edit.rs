//! What may leave of a message that was read: its bytes without what is cleared, and the figures of what stays.

use super::scan::{Entry, Found, Part};
use super::shape::{bit, Form, Node, WORDS};
use super::value::{content, put_varint, varint};

/// Characters of a masked text that stay, if at least as many are hidden.
const SHOWN: usize = 4;
/// Non-US, unknown and US, by weight.
pub const CLASSES: usize = 3;
const UNKNOWN: usize = 1;

/// What becomes of one field, with the bit of the category under which that counts.
#[derive(Clone, Copy)]
pub enum Action {
    Keep(u64),
    Clear(u64),
    Mask(u64),
}

pub type Rule = Box<[Action]>;

impl Action {
    pub fn new(what: u8, word: i32, words: usize) -> Option<Self> {
        let word = bit(word, words)?;
        match what {
            0 => Some(Self::Keep(word)),
            1 => Some(Self::Clear(word)),
            2 => Some(Self::Mask(word)),
            _ => None,
        }
    }
}

/// Whom the message is about, and whose records go. See `Reading.release`.
pub struct Orders<'a> {
    pub classes: &'a [usize],
    pub loose: usize,
    pub impersonal: u64,
    pub unclassified: usize,
    pub drop: u8,
    pub room: Option<i64>,
}

/// Why nothing was done: only the walk can tell, or nobody has said yet what becomes of this type's fields.
pub enum Stop {
    Hard,
    Unknown(usize),
}

#[derive(Clone)]
pub struct Counted {
    pub records: u64,
    pub categories: [u32; WORDS],
}

pub struct Released {
    /// Something of it may leave.
    pub stays: bool,
    pub changed: bool,
    /// The bytes, where they are others than came.
    pub data: Option<Vec<u8>>,
    pub dropped: u64,
    pub redacted: [u32; WORDS],
    pub counted: [Counted; CLASSES],
    shown: Vec<bool>,
}

impl Released {
    /// Places of those whose records stay; None when these are all.
    pub fn subjects(&self) -> Option<Vec<usize>> {
        if self.shown.iter().all(|shown| *shown) {
            return None;
        }
        Some(self.shown.iter().enumerate().filter_map(|(at, shown)| shown.then_some(at)).collect())
    }
}

pub struct Edit<'a> {
    data: &'a [u8],
    found: &'a Found,
    nodes: &'a [Node],
    rules: Option<&'a Vec<Option<Rule>>>,
    orders: &'a Orders<'a>,
    room: Option<i64>,
    /// Whether bytes can change at all.
    edits: bool,
    out: Vec<u8>,
    done: Released,
}

impl<'a> Edit<'a> {
    pub fn new(
        data: &'a [u8],
        found: &'a Found,
        nodes: &'a [Node],
        rules: Option<&'a Vec<Option<Rule>>>,
        orders: &'a Orders<'a>,
    ) -> Self {
        let edits = rules.is_some() || orders.drop != 0 || orders.room.is_some();
        let nothing = Counted { records: 0, categories: [0; WORDS] };
        let done = Released {
            stays: true,
            changed: false,
            data: None,
            dropped: 0,
            redacted: [0; WORDS],
            counted: [nothing.clone(), nothing.clone(), nothing],
            shown: vec![false; found.subjects.len()],
        };
        let out = Vec::with_capacity(if edits { data.len() } else { 0 });
        Self { data, found, nodes, rules, orders, room: orders.room, edits, out, done }
    }

    pub fn run(mut self) -> Result<Released, Stop> {
        self.outside()?;
        let mut loose = 0;
        self.done.stays = self.enter(&self.found.parts[0], &mut loose)?;
        if self.done.stays && loose & !self.orders.impersonal != 0 {
            self.count(self.orders.loose, loose);
        }
        if self.done.changed {
            self.done.data = Some(self.out);
        }
        Ok(self.done)
    }

    /// What is personal outside any record takes a place like a record, or the walk clears it.
    fn outside(&mut self) -> Result<(), Stop> {
        let orders = self.orders;
        if self.room.is_none() && orders.drop & (1 << orders.loose) == 0 {
            return Ok(());
        }
        if self.found.loose() & !orders.impersonal == 0 || self.admits(1 << orders.loose) {
            return Ok(());
        }
        Err(Stop::Hard)
    }

    fn admits(&mut self, classes: u8) -> bool {
        if self.orders.drop & classes != 0 {
            return false;
        }
        match &mut self.room {
            None => true,
            Some(room) if *room > 0 => {
                *room -= 1;
                true
            }
            Some(_) => false,
        }
    }

    /// Whether a message may stay where it stands. `outer`: the categories found around it.
    fn enter(&mut self, part: &'a Part, outer: &mut u64) -> Result<bool, Stop> {
        if !part.unit {
            self.fields(part, outer)?;
            return Ok(true);
        }
        let ids = &self.found.ids[part.ids.0..part.ids.1];
        let classes = self.orders.classes;
        let heaviest = ids.iter().map(|place| classes[*place]).max().unwrap_or(UNKNOWN);
        let all = ids.iter().fold(u8::from(ids.is_empty()) << UNKNOWN, |mask, place| mask | 1 << classes[*place]);
        if self.admits(all) {
            let mut inside = 0;
            self.fields(part, &mut inside)?;
            self.count(heaviest, inside);
            for place in ids {
                self.done.shown[*place] = true;
            }
            return Ok(true);
        }
        if !self.nodes[part.node].record {
            return Err(Stop::Hard);
        }
        self.done.dropped += part.units;
        Ok(false)
    }

    fn count(&mut self, class: usize, categories: u64) {
        let counted = &mut self.done.counted[class];
        counted.records += 1;
        add(&mut counted.categories, categories);
    }

    fn fields(&mut self, part: &'a Part, found: &mut u64) -> Result<(), Stop> {
        let entries = &self.found.entries[part.entries.0..part.entries.1];
        let rule = match self.rules {
            None => None,
            Some(rules) => match rules.get(part.node) {
                Some(Some(rule)) => Some(rule),
                _ => return Err(Stop::Unknown(part.node)),
            },
        };
        for run in entries.chunk_by(|one, other| one.field == other.field) {
            let field = &self.nodes[part.node].fields[run[0].field];
            match rule.map_or(Action::Keep(field.held), |rule| rule[run[0].field]) {
                Action::Clear(word) => self.clear(run, field.form, word),
                Action::Mask(word) if field.form == Form::Text => {
                    let word = if word == 0 { 1 << self.orders.unclassified } else { word };
                    *found |= word;
                    self.mask(&run[0], word)?;
                }
                Action::Mask(word) => self.clear(run, field.form, word),
                Action::Keep(word) => {
                    *found |= word;
                    for entry in run {
                        if field.form == Form::Message {
                            self.below(entry, found)?;
                        } else {
                            self.keep(entry.at, entry.end);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, at: usize, end: usize) {
        if self.edits {
            self.out.extend_from_slice(&self.data[at..end]);
        }
    }

    /// Counts under each category that the field held, in records or not.
    fn clear(&mut self, run: &[Entry], form: Form, word: u64) {
        let mut all = word;
        if form == Form::Message {
            all = run.iter().fold(word, |mask, entry| mask | self.found.parts[entry.message].all);
        }
        add(&mut self.done.redacted, if all == 0 { 1 << self.orders.unclassified } else { all });
        self.done.changed = true;
    }

    fn below(&mut self, entry: &Entry, found: &mut u64) -> Result<(), Stop> {
        let part = &self.found.parts[entry.message];
        if !self.edits {
            return self.enter(part, found).map(|_| ());
        }
        let before = self.out.len();
        self.keep(entry.at, entry.body);
        let begin = self.out.len();
        if !self.enter(part, found)? {
            self.out.truncate(before);
            self.done.changed = true;
            return Ok(());
        }
        let size = self.out.len() - begin;
        if size != entry.end - entry.body {
            let (_, tag) = varint(self.data, entry.at).ok_or(Stop::Hard)?;
            let body = self.out.split_off(begin);
            self.out.truncate(before);
            self.keep(entry.at, tag);
            put_varint(&mut self.out, size as u64);
            self.out.extend_from_slice(&body);
        }
        Ok(())
    }

    /// Hide all but the end of each text of a field.
    fn mask(&mut self, entry: &Entry, word: u64) -> Result<(), Stop> {
        let (mut at, mut changed) = (entry.at, false);
        while at < entry.end {
            let (_, size) = varint(self.data, at).ok_or(Stop::Hard)?;
            let (body, end) = content(self.data, size).ok_or(Stop::Hard)?;
            let text = std::str::from_utf8(&self.data[body..end]).map_err(|_| Stop::Hard)?;
            let masked = masked(text);
            changed |= masked != text;
            self.keep(at, size);
            put_varint(&mut self.out, masked.len() as u64);
            self.out.extend_from_slice(masked.as_bytes());
            at = end;
        }
        if changed {
            add(&mut self.done.redacted, word);
            self.done.changed = true;
        }
        Ok(())
    }
}

fn masked(text: &str) -> String {
    let length = text.chars().count();
    if length < 2 * SHOWN {
        return "*".repeat(length);
    }
    let hidden = length - SHOWN;
    let shown = text.char_indices().nth(hidden).map_or("", |(at, _)| &text[at..]);
    "*".repeat(hidden) + shown
}

fn add(counts: &mut [u32; WORDS], mut mask: u64) {
    while mask != 0 {
        counts[mask.trailing_zeros() as usize] += 1;
        mask &= mask - 1;
    }
}
