//! What is known about a value without running the policy: may it be null, may it hold a null,
//! may it be or hold a set.

use crate::model::Path;

/// The part of a path that stands for any key or index.
pub const ANY: &str = "*";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abs {
    pub null: bool,
    pub holds_null: bool,
    pub sets: bool,
    /// A string, number or boolean for sure.
    pub scalar: bool,
    /// Set when the value is a part of `input`.
    pub path: Option<Path>,
}

impl Abs {
    pub fn plain() -> Self {
        Self::default()
    }

    pub fn scalar() -> Self {
        Self { scalar: true, ..Self::default() }
    }

    pub fn unknown() -> Self {
        Self { sets: true, ..Self::default() }
    }

    pub fn join(&self, other: &Self) -> Self {
        Self {
            null: self.null || other.null,
            holds_null: self.holds_null || other.holds_null,
            sets: self.sets || other.sets,
            scalar: self.scalar && other.scalar,
            path: if self.path == other.path { self.path.clone() } else { None },
        }
    }

    /// A collection that contains `self`.
    pub fn held(&self) -> Self {
        Self { null: false, holds_null: self.null || self.holds_null, sets: self.sets, scalar: false, path: None }
    }

    /// An element of `self`, at `key` when it is known.
    pub fn element(&self, key: Option<&str>, nullable: &[Path]) -> Self {
        if let Some(path) = &self.path {
            let mut longer = path.clone();
            longer.push(key.unwrap_or(ANY).to_string());
            return Self::input(longer, nullable);
        }
        Self { null: self.holds_null, holds_null: self.holds_null, sets: self.sets, scalar: false, path: None }
    }

    /// The part of `input` at `path` (without the leading `input`).
    pub fn input(path: Path, nullable: &[Path]) -> Self {
        let fits = |leaf: &Path| leaf.iter().zip(&path).all(|(a, b)| a == b || a == ANY || b == ANY);
        let null = nullable.iter().any(|leaf| leaf.len() == path.len() && fits(leaf));
        let holds_null = nullable.iter().any(|leaf| leaf.len() > path.len() && fits(leaf));
        Self { null, holds_null, sets: false, scalar: false, path: Some(path) }
    }
}
