//! What must be bounded before the parser sees a source: the parser descends without a limit on
//! brackets, tries some constructs twice, and releases long operator chains recursively.

use regorus::unstable::{Lexer, Source, TokenKind};

use crate::problem::Problem;

const MAX_BYTES: usize = 1 << 20;
const MAX_DEPTH: usize = 24;
const MAX_CHAIN: u32 = 100;
/// The parser may read the content of `[…]` and `{…}` twice, so the work doubles with each level;
/// an opening costs about fifty times as much as another token. This is about two seconds.
const MAX_WORK: u64 = 5_000_000;
const OPENING: u64 = 50;

/// Check one source. `Ok` means that parsing it is bounded in stack and time.
pub fn scan(file: &str, source: &str) -> Result<(), Problem> {
    if source.len() > MAX_BYTES {
        let message = format!("{} bytes, at most {MAX_BYTES} are read: split the module", source.len());
        return Err(Problem::file(file, 0, 0, "too_large", message));
    }
    characters(file, source)?;
    let parsed =
        Source::from_contents(file.to_string(), source.to_string()).map_err(|e| Problem::from_engine(file, &e))?;
    let mut lexer = Lexer::new(&parsed);
    // One counter of operators for each open bracket; an operand on a new line ends a chain.
    let mut chains: Vec<u32> = vec![0];
    let mut operand_before: Option<u32> = None;
    let mut work: u64 = 0;
    let mut twice: u32 = 0;
    loop {
        let token = lexer.next_token().map_err(|e| Problem::from_engine(file, &e))?;
        let text = token.1.text();
        let at = |code, message: String| Err(Problem::at(&token.1, code, message));
        let cost = if matches!(text, "[" | "{") { OPENING } else { 1 };
        work = work.saturating_add(cost << twice.min(40));
        match token.0 {
            TokenKind::Eof => return Ok(()),
            TokenKind::Symbol if matches!(text, "(" | "[" | "{") => {
                chains.push(0);
                twice = twice.saturating_add(u32::from(text != "("));
                operand_before = None;
            }
            TokenKind::Symbol if matches!(text, ")" | "]" | "}") => {
                if chains.len() > 1 {
                    chains.pop();
                }
                twice = twice.saturating_sub(u32::from(text != ")"));
                operand_before = Some(token.1.line);
            }
            TokenKind::Symbol if matches!(text, "," | ";" | ":" | ":=") => {
                reset(&mut chains);
                operand_before = None;
            }
            TokenKind::Symbol if text == "." => operand_before = None,
            TokenKind::Symbol => {
                count(&mut chains);
                operand_before = None;
            }
            TokenKind::Ident if matches!(text, "in" | "not" | "else" | "with" | "as") => {
                count(&mut chains);
                operand_before = None;
            }
            _ => {
                if operand_before.is_some_and(|line| line != token.1.line) {
                    reset(&mut chains);
                }
                // `a -1` is a subtraction although `-1` is one token.
                if text.starts_with('-') {
                    count(&mut chains);
                }
                operand_before = Some(token.1.line);
            }
        }
        if chains.len() > MAX_DEPTH {
            return at("too_deep", format!("brackets nested deeper than {MAX_DEPTH}: bind the inner terms first"));
        }
        if chains.last().is_some_and(|c| *c > MAX_CHAIN) {
            return at(
                "too_deep",
                format!("more than {MAX_CHAIN} operators in one expression: bind parts of it first"),
            );
        }
        if work > MAX_WORK {
            return at(
                "too_deep",
                "too much text in nested brackets: move tables into data, bind inner terms first".to_string(),
            );
        }
    }
}

fn count(chains: &mut [u32]) {
    if let Some(last) = chains.last_mut() {
        *last = last.saturating_add(1);
    }
}

fn reset(chains: &mut [u32]) {
    if let Some(last) = chains.last_mut() {
        *last = 0;
    }
}

/// NUL ends the source for this lexer (the rules after it would be ignored in silence), and
/// direction marks make a reader see another text than the engine.
fn characters(file: &str, source: &str) -> Result<(), Problem> {
    let (mut line, mut column) = (1_u32, 1_u32);
    for c in source.chars() {
        let hidden = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if hidden || (c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            let message = format!("character U+{:04X} is not allowed in a policy: remove it", c as u32);
            return Err(Problem::file(file, line, column, "bad_character", message));
        }
        column = column.saturating_add(1);
        if c == '\n' {
            line = line.saturating_add(1);
            column = 1;
        }
    }
    Ok(())
}
