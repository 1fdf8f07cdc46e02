//! Message types as `scan` and `edit` need them: the fields, how each stands in the bytes, and what it holds.

/// Categories are bits of one word.
pub const WORDS: usize = 64;

/// How one value of a field is encoded. Hard fields are not read here: maps, groups, closed enums, what holds an Any or
/// a type with extensions or required fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    Hard,
    /// int32 and open enums: a negative number takes ten bytes.
    Int32,
    Int64,
    UInt32,
    UInt64,
    SInt32,
    SInt64,
    Bool,
    Fixed32,
    SFixed32,
    Fixed64,
    SFixed64,
    Text,
    Bytes,
    Message,
}

impl Form {
    /// By the numbers of `FieldDescriptorProto.Type`; 0 is hard. Floats are four and eight bytes as they are.
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Hard,
            1 | 6 => Self::Fixed64,
            2 | 7 => Self::Fixed32,
            3 => Self::Int64,
            4 => Self::UInt64,
            5 | 14 => Self::Int32,
            8 => Self::Bool,
            9 => Self::Text,
            11 => Self::Message,
            12 => Self::Bytes,
            13 => Self::UInt32,
            15 => Self::SFixed32,
            16 => Self::SFixed64,
            17 => Self::SInt32,
            18 => Self::SInt64,
            _ => return None,
        })
    }

    /// The wire type of one value.
    pub fn wire(self) -> u32 {
        match self {
            Self::Fixed64 | Self::SFixed64 => 1,
            Self::Fixed32 | Self::SFixed32 => 5,
            Self::Text | Self::Bytes | Self::Message => 2,
            _ => 0,
        }
    }

    fn names(self) -> bool {
        !matches!(self, Self::Hard | Self::Bool | Self::Bytes)
    }
}

pub const REPEATED: u8 = 1;
pub const PACKED: u8 = 2;
/// It may be on the wire with the value that is its default.
pub const PRESENCE: u8 = 4;
pub const COUNTRY: u8 = 8;

/// Number, form, flags, oneof of the type or -1, number of the message type or -1, place of the category or -1, kind of
/// the subject ids that it holds.
pub type FieldWords = (u32, u8, u8, i32, i64, i32, Option<String>);

pub struct Field {
    pub number: u32,
    pub form: Form,
    pub repeated: bool,
    pub packed: bool,
    pub presence: bool,
    /// One bit of the oneofs of its type; 0 outside of any.
    pub oneof: u64,
    pub child: usize,
    /// The bit of its category, 0 without one.
    pub held: u64,
    pub kind: Option<usize>,
    pub country: bool,
}

impl Field {
    /// `types`: how many types there are, `words`: how many categories.
    pub fn new(said: &FieldWords, kind: Option<usize>, types: usize, words: usize) -> Result<Self, &'static str> {
        let &(number, form, flags, oneof, child, word, _) = said;
        let mut form = Form::of(form).ok_or("no such type of field")?;
        let child = usize::try_from(child).unwrap_or(usize::MAX);
        if (form == Form::Message) != (child < types) {
            return Err("a message field has one of these types, and no other field has");
        }
        let oneof = match u32::try_from(oneof) {
            Err(_) => 0,
            Ok(place) if place < u64::BITS => 1 << place,
            Ok(_) => {
                form = Form::Hard;
                0
            }
        };
        if kind.is_some() && !form.names() {
            form = Form::Hard;
        }
        let packed = flags & PACKED != 0;
        if packed && matches!(form, Form::Text | Form::Bytes | Form::Message) {
            return Err("only numbers are packed");
        }
        Ok(Self {
            number,
            form,
            repeated: flags & REPEATED != 0,
            packed,
            presence: flags & PRESENCE != 0,
            oneof,
            child,
            held: bit(word, words).ok_or("no such category")?,
            kind,
            country: flags & COUNTRY != 0,
        })
    }
}

/// The bit of a category by its place; 0 for a negative place, None for one that there is not.
pub fn bit(place: i32, words: usize) -> Option<u64> {
    match usize::try_from(place) {
        Err(_) => Some(0),
        Ok(place) if place < words => Some(1 << place),
        Ok(_) => None,
    }
}

pub struct Node {
    pub fields: Box<[Field]>,
    pub names: bool,
    pub record: bool,
    /// Whether its country may clear a subject.
    pub clears: bool,
}

impl Node {
    pub fn new(names: bool, record: bool, clears: bool, fields: Vec<Field>) -> Result<Self, &'static str> {
        if !fields.windows(2).all(|two| two[0].number < two[1].number) {
            return Err("fields come in ascending order");
        }
        Ok(Self { fields: fields.into_boxed_slice(), names, record, clears })
    }
}
