//! Messages inspected and edited as the bytes they are, without being parsed into objects.
//!
//! Only bytes that the protobuf runtime would encode in exactly this way are taken: known fields in ascending order,
//! each singular one once, nothing that a later part overwrites, every number in its shortest form. Anything else, and
//! every field that is hard (see `shape`), is left to the walk over a parsed message in `sidecar.attributes.messages`
//! and `sidecar.enforcement.editor`, whose meaning this repeats: `tests/unit/test_wire_properties.py` holds both equal.

use std::sync::{PoisonError, RwLock};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

mod edit;
mod scan;
mod shape;
mod value;

use edit::{Action, Edit, Orders, Released, Rule, Stop, CLASSES};
use scan::{Found, Scan};
use shape::{Field, FieldWords, Node, WORDS};

/// Names subjects, is a record, its country may clear, and the fields in ascending order.
type NodeWords = (bool, bool, bool, Vec<FieldWords>);
/// Kind, id, country, whether the country may clear.
type Subject<'py> = (Bound<'py, PyString>, Bound<'py, PyString>, Option<Bound<'py, PyString>>, bool);
/// The reading, its distinct subjects, how many records it holds, how many of them name nobody.
type Read<'py> = (Reading, Bound<'py, PyTuple>, usize, usize);
/// Class, records, and how many of them hold each category.
type Figures<'py> = (usize, u64, Bound<'py, PyDict>);
/// What may leave, records taken out, fields cleared or masked by category, figures by class, places of the subjects.
type Outcome<'py> =
    (Option<Bound<'py, PyBytes>>, u64, Option<Bound<'py, PyDict>>, Vec<Figures<'py>>, Option<Vec<usize>>);

/// What the message types of one API look like. Types are added, and never change.
///
/// words: every category there is, at most 64, in the order in which figures name them;
/// impersonal: places of those that are about nobody outside a record; unclassified: place of the category that data
/// without one has.
#[pyclass(frozen, module = "sidecar._native")]
pub struct Shapes {
    nodes: RwLock<Vec<Node>>,
    kinds: RwLock<Vec<Py<PyString>>>,
    words: Vec<Py<PyString>>,
    impersonal: u64,
    unclassified: usize,
}

#[pymethods]
impl Shapes {
    #[new]
    fn new(words: Vec<Py<PyString>>, impersonal: Vec<usize>, unclassified: usize) -> PyResult<Self> {
        if words.len() > WORDS || impersonal.iter().chain([&unclassified]).any(|one| *one >= words.len()) {
            return Err(PyValueError::new_err("at most 64 categories, and each place is that of one"));
        }
        let impersonal = impersonal.iter().fold(0, |mask, one| mask | (1 << one));
        Ok(Self { nodes: RwLock::default(), kinds: RwLock::default(), words, impersonal, unclassified })
    }

    /// Add types. The first gets the number that `len()` gave before; a field may name a later type of the same call.
    fn add(&self, py: Python<'_>, types: Vec<NodeWords>) -> PyResult<()> {
        let mut kinds = self.kinds.write().unwrap_or_else(PoisonError::into_inner);
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let end = nodes.len() + types.len();
        let mut fresh = Vec::with_capacity(types.len());
        for (names, record, clears, words) in types {
            let mut fields = Vec::with_capacity(words.len());
            for one in words {
                let kind = one.6.as_deref().map(|name| place_of(py, &mut kinds, name));
                fields.push(Field::new(&one, kind, end, self.words.len()).map_err(PyValueError::new_err)?);
            }
            fresh.push(Node::new(names, record, clears, fields).map_err(PyValueError::new_err)?);
        }
        nodes.extend(fresh);
        Ok(())
    }

    fn __len__(&self) -> usize {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Inspect a message of the type with this number; None where only the walk over the parsed message can tell.
    ///
    /// countries: whether what it says about countries is evidence.
    fn read<'py>(
        this: Bound<'py, Self>,
        root: usize,
        data: Bound<'py, PyBytes>,
        countries: bool,
    ) -> PyResult<Option<Read<'py>>> {
        let py = this.py();
        let shapes = this.get();
        let found = {
            let nodes = shapes.nodes.read().unwrap_or_else(PoisonError::into_inner);
            Scan::new(&nodes, data.as_bytes(), countries).run(root)
        };
        let Some(found) = found else { return Ok(None) };
        let subjects = shapes.named(py, &found)?;
        let (records, unnamed) = (found.records, found.unnamed);
        let personal = found.loose() & !shapes.impersonal != 0;
        let reading = Reading { shapes: this.unbind(), data: data.unbind(), found, personal };
        Ok(Some((reading, subjects, records, unnamed)))
    }
}

impl Shapes {
    fn named<'py>(&self, py: Python<'py>, found: &Found) -> PyResult<Bound<'py, PyTuple>> {
        let kinds: Vec<_> = {
            let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
            found.subjects.iter().map(|one| kinds[one.kind].bind(py).clone()).collect()
        };
        let countries: Vec<_> = found.countries.iter().map(|text| PyString::new(py, text)).collect();
        let all = found.subjects.iter().zip(kinds).map(|(one, kind)| -> Subject<'py> {
            let country = one.country.map(|place| countries[place].clone());
            (kind, PyString::new(py, &one.id), country, one.clears)
        });
        PyTuple::new(py, all)
    }

    fn outcome<'py>(&self, py: Python<'py>, released: &Released, same: &Py<PyBytes>) -> PyResult<Outcome<'py>> {
        let data = match &released.data {
            _ if !released.stays => None,
            None => Some(same.bind(py).clone()),
            Some(data) => Some(PyBytes::new(py, data)),
        };
        let redacted = released.changed.then(|| self.figures(py, &released.redacted)).transpose()?;
        let mut by_class = Vec::new();
        for (class, counted) in released.counted.iter().enumerate() {
            if counted.records > 0 {
                by_class.push((class, counted.records, self.figures(py, &counted.categories)?));
            }
        }
        Ok((data, released.dropped, redacted, by_class, released.subjects()))
    }

    fn figures<'py>(&self, py: Python<'py>, counts: &[u32; WORDS]) -> PyResult<Bound<'py, PyDict>> {
        let found = PyDict::new(py);
        for (word, count) in self.words.iter().zip(counts) {
            if *count > 0 {
                found.set_item(word, count)?;
            }
        }
        Ok(found)
    }
}

fn place_of(py: Python<'_>, kinds: &mut Vec<Py<PyString>>, name: &str) -> usize {
    let known = kinds.iter().position(|one| one.bind(py).to_cow().is_ok_and(|text| text == name));
    known.unwrap_or_else(|| {
        kinds.push(PyString::intern(py, name).unbind());
        kinds.len() - 1
    })
}

/// What becomes of each field of each type under one set of orders.
///
/// ask: given the number of a type, (what, place of the category or -1) of each field; what: 0 keep, 1 clear, 2 mask.
/// It is asked once for each type that is met.
#[pyclass(frozen, module = "sidecar._native")]
pub struct Rules {
    ask: Py<PyAny>,
    known: RwLock<Vec<Option<Rule>>>,
}

#[pymethods]
impl Rules {
    #[new]
    fn new(ask: Py<PyAny>) -> Self {
        Self { ask, known: RwLock::default() }
    }
}

impl Rules {
    fn learn(&self, py: Python<'_>, node: usize, fields: usize, words: usize) -> PyResult<()> {
        let said: Vec<(u8, i32)> = self.ask.bind(py).call1((node,))?.extract()?;
        let rule: Option<Rule> = said.into_iter().map(|(what, word)| Action::new(what, word, words)).collect();
        let Some(rule) = rule.filter(|all| all.len() == fields) else {
            return Err(PyValueError::new_err("one known action and category for each field"));
        };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() <= node {
            known.resize_with(node + 1, || None);
        }
        known[node] = Some(rule);
        Ok(())
    }
}

/// One message that was read.
#[pyclass(frozen, module = "sidecar._native")]
pub struct Reading {
    shapes: Py<Shapes>,
    data: Py<PyBytes>,
    found: Found,
    /// Something stands outside every record that is about somebody.
    #[pyo3(get)]
    personal: bool,
}

#[pymethods]
impl Reading {
    /// What may leave, and the figures of it; None where only the walk over the parsed message can tell.
    ///
    /// rules: None keeps everything. classes: of each subject in order, and `loose` of whom data outside any record
    /// concerns: 0 non-US, 1 unknown, 2 US. drop: classes whose records go, as bits; room: for how many records.
    #[pyo3(signature = (rules, classes, loose, drop = 0, room = None))]
    fn release<'py>(
        &self,
        py: Python<'py>,
        rules: Option<Py<Rules>>,
        classes: Vec<usize>,
        loose: usize,
        drop: u8,
        room: Option<i64>,
    ) -> PyResult<Option<Outcome<'py>>> {
        if classes.len() != self.found.subjects.len() || classes.iter().chain([&loose]).any(|one| *one >= CLASSES) {
            return Err(PyValueError::new_err("one class, 0 to 2, for each subject"));
        }
        let shapes = self.shapes.get();
        let orders = Orders {
            classes: &classes,
            loose,
            impersonal: shapes.impersonal,
            unclassified: shapes.unclassified,
            drop,
            room,
        };
        loop {
            // No lock is held while Python runs, which making an object may lead to.
            let done = {
                let nodes = shapes.nodes.read().unwrap_or_else(PoisonError::into_inner);
                let known = rules.as_ref().map(|all| all.get().known.read().unwrap_or_else(PoisonError::into_inner));
                let edit = Edit::new(self.data.as_bytes(py), &self.found, &nodes, known.as_deref(), &orders);
                edit.run().map_err(|stop| match stop {
                    Stop::Hard => None,
                    Stop::Unknown(node) => Some((node, nodes[node].fields.len())),
                })
            };
            match (done, &rules) {
                (Ok(released), _) => return shapes.outcome(py, &released, &self.data).map(Some),
                (Err(Some((node, fields))), Some(rules)) => rules.get().learn(py, node, fields, shapes.words.len())?,
                (Err(_), _) => return Ok(None),
            }
        }
    }
}
