//! The results of the checks, for people and for programs.

use serde::Serialize;

use super::comparison::Check;

/// The results of one family of checks on one device.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The device.
    pub device: String,
    /// Number formats, and whether the device is deterministic.
    pub mode: String,
    /// The family.
    pub name: String,
    /// Number of checks.
    pub checks: usize,
    /// Number of checks that failed.
    pub failed: usize,
    /// Whether the family has checks and none failed.
    pub passed: bool,
    /// The error that is largest relative to its bound; `None` if the family only counts or if the error is not
    /// finite.
    pub worst_error: Option<f64>,
    /// The bound of that error.
    pub bound: Option<f64>,
    /// Count of numbers, rows or tokens, over all checks, that are not exactly as required.
    pub differences: usize,
    /// The checks that failed.
    pub failures: Vec<Failure>,
}

/// A check that failed.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// See [`Check::operation`].
    pub operation: &'static str,
    /// See [`Check::case`].
    pub case: String,
    /// See [`Check::error`]; `None` if it is not finite.
    pub error: Option<f64>,
    /// See [`Check::bound`].
    pub bound: f64,
    /// See [`Check::differences`].
    pub differences: usize,
    /// See [`Check::refusal`].
    pub refusal: Option<String>,
}

impl Finding {
    /// Summarizes the `checks` of the family `name`.
    pub fn new(device: &str, mode: &str, name: &str, checks: &[Check]) -> Self {
        let failures: Vec<Failure> =
            checks.iter().filter(|check| !check.passes()).map(Failure::new).collect();
        let part =
            |check: &Check| if check.error.is_nan() { f64::INFINITY } else { check.error / check.bound };
        let measured = checks.iter().filter(|check| check.is_measured());
        let worst = measured.max_by(|a, b| part(a).total_cmp(&part(b)));
        Self {
            device: device.to_owned(),
            mode: mode.to_owned(),
            name: name.to_owned(),
            checks: checks.len(),
            failed: failures.len(),
            // A family without checks proves nothing.
            passed: failures.is_empty() && !checks.is_empty(),
            worst_error: worst.map(|check| check.error).filter(|error| error.is_finite()),
            bound: worst.map(|check| check.bound),
            differences: checks.iter().map(|check| check.differences).sum(),
            failures,
        }
    }
}

impl Failure {
    fn new(check: &Check) -> Self {
        let Check { operation, case, error, bound, differences, refusal } = check.clone();
        let error = Some(error).filter(|error| error.is_finite());
        Self { operation, case, error, bound, differences, refusal }
    }

    /// Describes the failure in words.
    pub fn what(&self) -> String {
        if let Some(refusal) = &self.refusal {
            return refusal.clone();
        }
        match (self.differences, self.error) {
            (0, Some(error)) => format!("error {error:.1e}, allowed {:.1e}", self.bound),
            (0, None) => "the results are not numbers, or not those of the same tokens".to_owned(),
            (1, _) => "1 result differs where none may".to_owned(),
            (count, _) => format!("{count} results differ where none may"),
        }
    }
}

/// The conclusion from all checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the device may be used.
    pub passed: bool,
    /// One line that says what passed, what failed and what to do.
    pub text: String,
}

impl Verdict {
    /// Summarizes all findings. `remedy` says what to do if a check failed, `not_checked` what was left out.
    pub fn new(findings: &[Finding], not_checked: &[String], remedy: &str) -> Self {
        let checks: usize = findings.iter().map(|finding| finding.checks).sum();
        let failed: usize = findings.iter().map(|finding| finding.failed).sum();
        let passed = checks > 0 && findings.iter().all(|finding| finding.passed);
        if passed && not_checked.is_empty() {
            let text = format!("passed: all {checks} checks; the device computes what it should");
            return Self { passed, text };
        }
        let rest = if not_checked.is_empty() {
            String::new()
        } else {
            format!("; not checked: {}", not_checked.join("; "))
        };
        if passed {
            return Self { passed, text: format!("passed: all {checks} checks that were made{rest}") };
        }
        let mut names: Vec<&str> =
            findings.iter().filter(|finding| !finding.passed).map(|finding| finding.name.as_str()).collect();
        names.dedup();
        let names = names.join(", ");
        let text = format!(
            "FAILED: {failed} of {checks} checks ({names}){rest}; write no dataset with it. {remedy}"
        );
        Self { passed, text }
    }
}
