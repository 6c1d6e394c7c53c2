//! The one integration-test binary: a module a subject.
#![allow(missing_docs)]

mod contrast;
mod cpu;
mod dataset;
mod models;
mod text;
