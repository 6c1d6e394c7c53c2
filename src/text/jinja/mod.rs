//! Jinja as `transformers` has it: templates with the meaning that Python gives them, on top of the template engine.
//!
//! A template passes the [`lexer`], which has Jinja's rules for white space and literals, and [`translate`], which turns
//! expressions into calls of the functions that are installed here.

mod filters;
mod format;
mod functions;
mod html;
mod internal;
mod json;
mod lexer;
mod macros;
mod methods;
mod pprint;
mod strftime;
mod strings;
mod tests;
mod translate;
mod value;

pub(super) use internal::{environment, printed};
pub use strftime::{CLOCK, clock};
pub(super) use translate::translate;
pub(super) use value::from_json::variables;
