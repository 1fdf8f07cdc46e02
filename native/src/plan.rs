//! What the rules behind an entrypoint say, resolved once when a bundle is loaded: names are places, references to data
//! are the values, calls are the functions. `compile` makes it of the syntax tree that `refuse` has accepted, `evaluate`
//! answers from it. The language accepted is small (each name is bound once and before its use, nothing unifies, nothing
//! reads itself), so that every construct has one plain meaning here; values, operators and built-ins are regorus' own.
//!
//! A bundle with a construct that has no place here is evaluated by regorus' interpreter, whole.

use std::sync::atomic::AtomicBool;

use regorus::unstable::{ArithOp, BinOp, BoolOp, BuiltinFcn, ExprRef, Span};
use regorus::Value;

use crate::builtins::Callable;

mod compile;
mod evaluate;
mod input;
mod known;
mod members;
mod recall;
mod terms;

pub use compile::compile;
pub use evaluate::evaluate;
use input::Parts;

/// The rules that an entrypoint reads, and those that they read.
pub struct Plan {
    /// What the rules read of the input document.
    pub input: Parts,
    rules: Vec<Rule>,
    entrypoint: usize,
}

struct Rule {
    kind: Kind,
    default: Option<Value>,
    definitions: Vec<Definition>,
    span: Span,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Complete,
    Set,
    Object,
    Function,
}

/// One definition of a rule, and what stands behind its `else`.
struct Definition {
    parameters: Box<[Parameter]>,
    bodies: Box<[Body]>,
    /// How many names it binds, its parameters first.
    locals: usize,
}

enum Parameter {
    Any,
    Bound,
    Equal(Value),
}

/// Where the steps succeed, the rule has this value: `key` in a set, `key` to `value` in an object.
struct Body {
    steps: Box<[Step]>,
    key: Option<Term>,
    value: Option<Term>,
}

enum Step {
    /// Defined, and not false.
    Holds(Term),
    /// Undefined or false.
    Fails(Term),
    Bind(usize, Term),
    Each(Box<Each>),
    Every(Box<Each>, Box<[Step]>),
}

/// An iteration: what follows, or what stands in its body, is evaluated for each element.
struct Each {
    collection: Term,
    key: Option<usize>,
    value: Option<usize>,
    /// Of `some … in`, which fails on what is no collection; `collection[_]` has no element then.
    some: Option<Span>,
}

enum Term {
    Known(Value),
    Local(usize),
    /// The input document, or a part of it at fixed keys, by its place.
    Input(usize),
    Rule(usize),
    Part(Box<Part>),
    /// A part of a local at one key that is written down. Most terms are such, so it stands here whole: each place in memory
    /// that is looked at costs as much as what is done with it. `foreign` as of `Part`.
    Field {
        local: u32,
        key: Value,
        foreign: AtomicBool,
    },
    Call(Box<Call>),
    BuiltIn(Box<BuiltIn>),
    Array(Box<[Term]>),
    Set(Box<[Term]>),
    Object(Box<[(Term, Term)]>),
    Gathered(Box<Gathered>),
    Compared(BoolOp, Box<(Term, Term)>),
    Calculated(Box<Calculated>),
    Combined(Box<Combined>),
    /// Element, collection.
    Member(Box<(Term, Term)>),
    Alike(Box<Alike>),
    /// `Member` of an array that is written down: element, items.
    Among(Box<Term>, Box<[Term]>),
    Record(Box<Record>),
}

struct Part {
    whole: Term,
    keys: Box<[Term]>,
    /// A key was not found by its place in memory: what has these keys was not made by this plan.
    foreign: AtomicBool,
}

struct Call {
    rule: usize,
    arguments: Box<[Term]>,
    span: Span,
}

struct BuiltIn {
    function: Function,
    arguments: Box<[Term]>,
    span: Span,
    /// As written: the engine's own built-ins name them in errors.
    written: Box<[ExprRef]>,
}

enum Function {
    /// Of ours, or bounded by us.
    Own(Callable),
    Engine(BuiltinFcn),
}

/// A comprehension.
struct Gathered {
    into: Kind,
    steps: Box<[Step]>,
    /// Of objects only.
    key: Option<Term>,
    value: Term,
    span: Span,
}

struct Calculated {
    op: ArithOp,
    sides: (Term, Term),
    span: Span,
    written: (ExprRef, ExprRef),
}

struct Combined {
    op: BinOp,
    sides: (Term, Term),
    written: (ExprRef, ExprRef),
}

/// `Compared` for equality, or for not `equal`: an array that is written down, with an array that is known.
struct Alike {
    items: Box<[Term]>,
    wanted: Box<[Value]>,
    equal: bool,
}

/// `Object` where each key is written down, once.
struct Record {
    /// In the order written.
    values: Box<[Term]>,
    /// In their order, each with the place of its value among `values`.
    keys: Box<[(Value, usize)]>,
}
