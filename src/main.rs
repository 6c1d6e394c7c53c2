//! The `codit` program.

fn main() {}
