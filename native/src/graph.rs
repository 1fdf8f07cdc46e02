//! Which rule reads which: recursion is refused, and so is what could exhaust the stack.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Model, Path};
use crate::problem::Problem;

/// Weights stand for stack: measured, one unit takes less than a kilobyte of it.
pub const RULE: usize = 8;
pub const NESTED_QUERY: usize = 4;
pub const ITERATION: usize = 2;
pub const TERM: usize = 1;
/// A main thread has 8 MiB, and so have others unless somebody asked for less.
const MAX_WEIGHT: usize = 2_000;

#[derive(Default)]
pub struct Graph {
    reads: BTreeMap<Path, BTreeSet<Path>>,
    weights: BTreeMap<Path, usize>,
    /// The built-ins called by any rule.
    pub calls: BTreeSet<&'static str>,
}

impl Graph {
    /// Add what one definition of a rule reads and calls, and how deep evaluating it nests.
    pub fn add(
        &mut self,
        rule: &Path,
        reads: impl IntoIterator<Item = Path>,
        calls: BTreeSet<&'static str>,
        weight: usize,
    ) {
        self.calls.extend(calls);
        self.reads.entry(rule.clone()).or_default().extend(reads);
        let known = self.weights.entry(rule.clone()).or_default();
        *known = weight.saturating_add(RULE).max(*known);
    }

    pub fn check(&self, model: &Model, problems: &mut Vec<Problem>) {
        let (depths, rest) = self.depths(model);
        let heavy = depths.iter().filter(|(_, depth)| **depth > MAX_WEIGHT).min_by_key(|(_, depth)| **depth);
        if let Some((path, depth)) = heavy {
            let message = format!("evaluating it nests too deep ({depth} of at most {MAX_WEIGHT}): shorten the chain of rules it reads, or split its body");
            problems.push(Problem::at(&model.rules[*path].span, "too_deep", message));
        }
        for path in rest {
            if self.reaches(path) {
                let message =
                    format!("data.{} reads itself, directly or through others: break the cycle", path.join("."));
                problems.push(Problem::at(&model.rules[path].span, "recursion", message));
            }
        }
    }

    /// The depth of every rule, and the rules that are part of a cycle or read one.
    fn depths<'m>(&self, model: &'m Model) -> (BTreeMap<&'m Path, usize>, Vec<&'m Path>) {
        let mut open: BTreeMap<&Path, usize> = BTreeMap::new();
        let mut readers: BTreeMap<&Path, Vec<&'m Path>> = BTreeMap::new();
        let mut ready: Vec<&'m Path> = Vec::new();
        let mut depths: BTreeMap<&'m Path, usize> = BTreeMap::new();
        for path in model.rules.keys() {
            let reads = self.reads.get(path).map_or(0, BTreeSet::len);
            open.insert(path, reads);
            for read in self.reads.get(path).into_iter().flatten() {
                readers.entry(read).or_default().push(path);
            }
            if reads == 0 {
                ready.push(path);
            }
        }
        while let Some(path) = ready.pop() {
            let below = self.reads.get(path).into_iter().flatten().filter_map(|read| depths.get(read)).max();
            let own = self.weights.get(path).copied().unwrap_or(RULE);
            depths.insert(path, own.saturating_add(below.copied().unwrap_or(0)));
            for reader in readers.get(path).into_iter().flatten() {
                if let Some(left) = open.get_mut(reader) {
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        ready.push(reader);
                    }
                }
            }
        }
        let rest = model.rules.keys().filter(|path| !depths.contains_key(path)).collect();
        (depths, rest)
    }

    fn reaches(&self, start: &Path) -> bool {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<&Path> = self.reads.get(start).into_iter().flatten().collect();
        while let Some(path) = todo.pop() {
            if path == start {
                return true;
            }
            if seen.insert(path) {
                todo.extend(self.reads.get(path).into_iter().flatten());
            }
        }
        false
    }
}
