//! The invalid lines of an input: the first are reported, the rest is counted.

use std::path::Path;

use super::schema::bounded;
use crate::error::{Error, Result};

/// How many invalid lines are reported.
const REPORTED: usize = 10;

/// Invalid lines.
#[derive(Default)]
pub(super) struct Faults {
    /// The number of each line and what is wrong with it.
    first: Vec<(usize, String)>,
    count: usize,
}

impl Faults {
    /// Adds line number `line`.
    pub fn add(&mut self, line: usize, message: &str) {
        self.count += 1;
        if self.first.len() < REPORTED {
            self.first.push((line, bounded(message)));
        }
    }

    /// The number of invalid lines.
    pub fn count(&self) -> usize {
        self.count
    }

    /// # Errors
    /// If there are invalid lines in the file at `path`.
    pub fn result(mut self, path: &Path) -> Result<()> {
        if self.count <= 1 {
            return match self.first.pop() {
                None => Ok(()),
                Some((line, message)) => {
                    let way_on = "or give --skip-invalid, which records the line as an error and goes on";
                    Err(Error::line(path, line, format!("{message}; {way_on}")))
                }
            };
        }
        let rest = self.count - self.first.len();
        let path = path.display();
        let mut messages: Vec<String> =
            self.first.iter().map(|(line, message)| format!("{path}:{line}: {message}")).collect();
        let lines = match rest {
            0 => format!("{} bad lines", self.count),
            1 => "... and 1 more bad line".to_owned(),
            rest => format!("... and {rest} more bad lines"),
        };
        let remedy = "correct them, or give --skip-invalid, which records each as an error and goes on";
        messages.push(format!("{path}: {lines}; {remedy}"));
        Err(Error::Lines { messages })
    }
}
