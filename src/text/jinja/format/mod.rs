//! Python's two ways to format: `'%s' % value` and `'{}'.format(value)`.

mod braces;
mod float;
mod percent;
mod spec;

pub(super) use braces::{braces, braces_of_map};
pub(super) use float::fixed;
pub(super) use percent::{percent, percent_of_args};

/// The most digits after the point.
const MOST_DIGITS: usize = 10_000;
