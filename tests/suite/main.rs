//! The one integration-test binary: a module a subject.
#![allow(missing_docs, clippy::missing_panics_doc, clippy::unwrap_used)]

mod contrast;
mod cpu;
mod dataset;
mod models;
mod text;
