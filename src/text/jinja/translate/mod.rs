//! Translates a template into one whose expressions have Python's meaning: operators, attributes, calls, filters and
//! tests become calls of our own functions, and statements become those that the engine runs as Jinja does.
//!
//! The engine's parser gives the syntax tree; what neither the parser nor this pass can do is refused by name.

mod expression;
mod statement;

use std::collections::BTreeSet;
use std::fmt::Write;

use minijinja::machinery::ast::{Expr, Stmt};
use minijinja::machinery::parse;
use minijinja::syntax::SyntaxConfig;

use super::lexer::{self, BLOCK, COMMENT, VARIABLE};

/// The delimiters of both sources.
pub(super) fn syntax() -> Result<SyntaxConfig, minijinja::Error> {
    let pair = |[open, close]: [char; 2]| (open.to_string(), close.to_string());
    let (block, variable, comment) = (pair(BLOCK), pair(VARIABLE), pair(COMMENT));
    SyntaxConfig::builder()
        .block_delimiters(block.0, block.1)
        .variable_delimiters(variable.0, variable.1)
        .comment_delimiters(comment.0, comment.1)
        .keep_trailing_newline(true)
        .build()
}

/// The engine's source of a Jinja template.
///
/// # Errors
/// One line that names the line and what is wrong or not supported.
pub(in crate::text) fn translate(source: &str) -> Result<String, String> {
    let source = lexer::normalize(source)?;
    let in_words = |error: minijinja::Error| {
        let line = error.line().map_or_else(String::new, |line| format!("line {line}: "));
        format!("{line}{}", error.detail().unwrap_or("the template does not parse"))
    };
    let tree = parse(&source, "template", syntax().map_err(in_words)?).map_err(in_words)?;
    let mut translator = Translator::default();
    if let Stmt::Template(template) = &tree {
        translator.statements(&template.children)?;
    }
    Ok(translator.out)
}

/// A loop that is being translated.
#[derive(Default)]
struct Loop {
    /// The variable that tells whether the body goes on.
    flow: String,
    uses_flow: bool,
    /// How many blocks are open that the engine's own `break` cannot leave.
    depth: usize,
    in_autoescape: bool,
    /// The shape of the targets, for a call of `loop`.
    shape: String,
    is_recursive: bool,
}

#[derive(Default)]
struct Translator {
    out: String,
    line: usize,
    /// The variables that are read so far.
    reads: BTreeSet<String>,
    loops: Vec<Loop>,
    names: usize,
    /// Whether an unknown filter is refused only where it is reached, as Jinja does in conditions.
    is_conditional: bool,
    /// How many scopes are open.
    scopes: usize,
    /// How many expressions are open.
    depth: usize,
}

/// The error for what is not supported.
fn unsupported(line: u16, what: &str) -> String {
    format!("line {line}: {what} is not supported")
}

impl Translator {
    /// A name that no template has.
    fn name(&mut self, purpose: &str) -> String {
        self.names += 1;
        format!("{}{purpose}{}", lexer::RESERVED, self.names)
    }

    /// Writes a tag on the line that it has in the template, or on a later one.
    fn tag(&mut self, [open, close]: [char; 2], line: Option<u16>, inside: &str) {
        self.out.push(open);
        if let Some(line) = line {
            let missing = usize::from(line).saturating_sub(self.line + 1);
            self.out.extend(std::iter::repeat_n('\n', missing));
            self.line += missing;
        }
        // Writing to a string does not fail.
        write!(self.out, " {inside} {close}").unwrap_or_default();
        self.line += inside.matches('\n').count();
    }

    fn block(&mut self, inside: &str) {
        self.tag(BLOCK, None, inside);
    }

    fn data(&mut self, text: &str) {
        self.out.push_str(text);
        self.line += text.matches('\n').count();
    }
}

/// The line on which an expression begins.
fn line_of(expression: &Expr) -> u16 {
    expression.span().start_line
}
