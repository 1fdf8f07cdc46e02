//! What was found in members of earlier documents: subject, resource and context come again and again, to the byte.
//!
//! A member is known again by its bytes, all of them: the text of an object ends where its last brace is, so a document that
//! goes on with the whole text of an object that was read before has that object there. Under the same node of the same
//! plan, at the same depth, reading it gives the same parts, which are immutable. So nothing that is kept here can be out
//! of date. It goes with the plan, or when its place is taken; what comes once only is not kept.

use regorus::Value;

/// Members of at least, and at most, so many bytes are kept.
pub const LEAST: usize = 48;
const MOST: usize = 2 << 10;
const SETS: usize = 128;
const WAYS: usize = 4;
const MET: usize = 512;
/// How much of a member decides where it is kept: its end is not known before it is found.
const BEGINNING: usize = 96;

/// Which node of the plan's tree, how deep.
pub type Place = (usize, usize);

struct Member {
    place: Place,
    text: Box<[u8]>,
    parts: Box<[(usize, Value)]>,
}

/// At most `SETS * WAYS` members, a MiB of text.
pub struct Recall {
    sets: Box<[Vec<Member>]>,
    /// Digests of members met once.
    met: Box<[u64]>,
    turn: usize,
}

impl Default for Recall {
    fn default() -> Self {
        Self { sets: (0..SETS).map(|_| Vec::new()).collect(), met: vec![0; MET].into(), turn: 0 }
    }
}

impl Recall {
    /// The parts of the member with which `rest` begins, and its length.
    pub fn find(&self, place: Place, rest: &[u8]) -> Option<(&[(usize, Value)], usize)> {
        let known = self.sets[set(place, rest)].iter();
        let mut known = known.filter(|one| one.place == place && rest.starts_with(&one.text));
        known.next().map(|one| (&one.parts[..], one.text.len()))
    }

    /// Keep what was found in the text of an object, where it has been met before.
    pub fn met(&mut self, place: Place, text: &[u8], parts: impl FnOnce() -> Box<[(usize, Value)]>) {
        if !(LEAST..=MOST).contains(&text.len()) {
            return;
        }
        let digest = digest(place, text) | 1;
        let met = &mut self.met[spread(digest, MET)];
        if *met != digest {
            *met = digest;
            return;
        }
        let member = Member { place, text: text.into(), parts: parts() };
        let kept = &mut self.sets[set(place, text)];
        if kept.len() < WAYS {
            kept.push(member);
        } else {
            self.turn = (self.turn + 1) % WAYS;
            kept[self.turn] = member;
        }
    }
}

fn set(place: Place, rest: &[u8]) -> usize {
    spread(digest(place, &rest[..rest.len().min(BEGINNING)]), SETS)
}

/// The upper half: a product's lower bits follow from few of its factor's.
fn spread(digest: u64, places: usize) -> usize {
    usize::try_from(digest >> 32).unwrap_or(0) % places
}

/// Says only where to look: whoever makes two texts meet in one place makes this slower, and no answer wrong.
fn digest((node, depth): Place, text: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| (sum.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    let mut words = text.chunks_exact(8);
    let mut sum = mix(node as u64, depth as u64);
    for word in &mut words {
        sum = mix(sum, word.try_into().map_or(0, u64::from_le_bytes));
    }
    let sum = words.remainder().iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)));
    sum ^ (sum >> 29)
}
