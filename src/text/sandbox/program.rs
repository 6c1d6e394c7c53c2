//! Compiles a template to instructions whose large steps are guarded, and runs them.
//!
//! Parser, code generator and interpreter are the template engine's. What lies between them is ours, because the engine
//! offers no hook for its operators.

use std::collections::BTreeMap;

use minijinja::machinery::{CodeGenerator, Instruction, Instructions, Span, eval, make_string_output, parse};
use minijinja::{AutoEscape, Environment, Error, Value};

use super::constants::check_constants;
use super::guards::guarded;

/// The template's name in the engine. It does not appear in messages.
const NAME: &str = "template";

/// A compiled template.
pub(super) struct Program<'source> {
    main: Instructions<'source>,
    blocks: BTreeMap<&'source str, Instructions<'source>>,
    literals: String,
}

impl<'source> Program<'source> {
    /// # Errors
    /// If `source` does not parse.
    pub(super) fn compile(source: &'source str, environment: &Environment) -> Result<Self, Error> {
        let tree = parse(source, NAME, environment.syntax().clone())?;
        check_constants(&tree)?;
        let mut generator = CodeGenerator::new(NAME, source);
        generator.compile_stmt(&tree);
        let (main, blocks) = generator.finish();
        let literals = literals(blocks.values().chain([&main]));
        let blocks = blocks.into_iter().map(|(name, block)| (name, guarded(&block))).collect();
        Ok(Self { main: guarded(&main), blocks, literals })
    }

    /// All text that the template holds: what it prints, and the constants of its expressions, separated by NUL.
    pub(super) fn literals(&self) -> &str {
        &self.literals
    }

    /// The text that the template makes of `variables`.
    ///
    /// # Errors
    /// Those of the template.
    pub(super) fn run(
        &self,
        environment: &'source Environment<'source>,
        variables: Value,
    ) -> Result<String, Error> {
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        eval(environment, &self.main, variables, &self.blocks, &mut output, AutoEscape::None)?;
        Ok(text)
    }
}

/// The texts of the instructions, separated by NUL.
fn literals<'a, 'source: 'a>(parts: impl Iterator<Item = &'a Instructions<'source>>) -> String {
    let mut literals = String::new();
    for part in parts {
        for instruction in (0..).map_while(|index| part.get(index)) {
            let text = match instruction {
                Instruction::EmitRaw(text) => Some(*text),
                Instruction::LoadConst(value) => value.as_str(),
                _ => None,
            };
            if let Some(text) = text {
                literals.push_str(text);
                literals.push('\0');
            }
        }
    }
    literals
}

/// The place of an instruction in the source, for messages.
pub(super) fn place(part: &Instructions, index: u32) -> Span {
    part.get_span(index).unwrap_or_else(|| {
        let line = part.get_line(index).unwrap_or_default() as u16;
        Span { start_line: line, end_line: line, ..Span::default() }
    })
}
