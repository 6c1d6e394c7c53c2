//! Jinja as `transformers` has it: templates with the meaning that Python gives them, on top of the template engine.
//!
//! A template passes the [`lexer`], which has Jinja's rules for white space and literals, and [`translate`], which turns
//! expressions into calls of the functions that are installed here.

#![allow(clippy::float_cmp)] // Python compares floats exactly.
#![allow(clippy::single_match_else)] // A match on the kind of a value reads like its neighbours.
#![allow(clippy::format_push_string, clippy::format_collect)] // The written sources are short.
#![allow(clippy::type_complexity)] // Pairs of an operator and its operand need no name.

mod filters;
mod format;
mod functions;
mod html;
mod internal;
mod json;
mod lexer;
mod macros;
pub(super) mod meter;
mod methods;
mod pprint;
mod refusal;
mod strftime;
mod strings;
mod tests;
mod translate;
mod value;

pub(super) use internal::{environment, printed};
pub(super) use refusal::Refusal;
pub use strftime::{CLOCK, clock};
pub(super) use strings::trim::is_space;
pub(super) use translate::translate;
pub(super) use value::from_json::variables;
