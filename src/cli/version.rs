//! What `codit --version` says: the version, the commit, the kernels that are built in and the path of the CPU device.

use codit::device::cpu::Isa;
use codit::device::cuda;

/// Git's log of HEAD, empty where the program was built without git.
const LOG_OF_HEAD: &[u8] = include_bytes!(env!("CODIT_LOG_OF_HEAD"));
/// Digits of a commit that tell it from others.
const DIGITS: usize = 10;
const COMMIT: [u8; DIGITS] = last_commit(LOG_OF_HEAD);

/// The whole line after the program's name.
pub fn version() -> String {
    let commit = std::str::from_utf8(&COMMIT).unwrap_or_default().trim();
    let commit = if commit.is_empty() { "unknown" } else { commit };
    let kernels = match cuda::architectures() {
        [] => "no cuda: built without nvcc".to_owned(),
        architectures => format!("cuda kernels: sm_{}", architectures.join(", sm_")),
    };
    let isa = Isa::chosen().unwrap_or_else(|_| Isa::detect()).name();
    let hub = if cfg!(feature = "hub") { "" } else { "; no hub" };
    format!("{} (commit {commit}; {kernels}; cpu path: {isa}{hub})", env!("CARGO_PKG_VERSION"))
}

/// The second word of the last line, which is the commit that HEAD came to; blanks if there is none.
const fn last_commit(log: &[u8]) -> [u8; DIGITS] {
    let mut commit = [b' '; DIGITS];
    // The last byte is a line feed.
    let mut start = log.len().saturating_sub(1);
    while start > 0 && log[start - 1] != b'\n' {
        start -= 1;
    }
    while start < log.len() && log[start] != b' ' {
        start += 1;
    }
    let mut digit = 0;
    while digit < DIGITS && start + 1 + digit < log.len() {
        commit[digit] = log[start + 1 + digit];
        digit += 1;
    }
    commit
}

#[test]
fn the_commit_is_that_of_the_last_line() {
    let log = b"0000000000000000 aaaaaaaaaaaaaaaa A <a@b> 1 +0000\tcommit: x\naaaaaaaaaaaaaaaa 0123456789abcdef A <a@b> 2 +0000\tcommit: y\n";
    assert_eq!(&last_commit(log), b"0123456789");
    assert_eq!(&last_commit(b""), b"          ");
}
