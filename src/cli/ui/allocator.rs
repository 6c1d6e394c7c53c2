//! Memory for the program, which ends with a message where there is none, and not as if it had a fault.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::sync::atomic::Ordering;

use signal_hook::low_level;

use super::screen::IS_JSON;

/// The system's allocator. What fails ends the program with exit code 1; records that are written are whole.
pub struct OrEnd;

// SAFETY: every call goes to the system's allocator, and what it returns is returned.
unsafe impl GlobalAlloc for OrEnd {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        there_or_end(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        there_or_end(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        there_or_end(unsafe { System.realloc(place, layout, size) }, size)
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }
}

fn there_or_end(place: *mut u8, bytes: usize) -> *mut u8 {
    if place.is_null() {
        end(bytes);
    }
    place
}

/// Takes no memory and no lock.
#[cold]
fn end(bytes: usize) {
    const STANDARD_ERROR: i32 = 2;
    const EXIT_CODE: i32 = 1;
    // SAFETY: the descriptor is open as long as the process is, and the file is not closed.
    let mut stderr = ManuallyDrop::new(unsafe { File::from_raw_fd(STANDARD_ERROR) });
    let remedy = "end other programs, or raise the limit on memory (ulimit -v)";
    let _ = if IS_JSON.load(Ordering::Relaxed) {
        let rest = format_args!("\"exit_code\":{EXIT_CODE}}}");
        writeln!(stderr, "{{\"event\":\"error\",\"text\":\"no memory for {bytes} bytes; {remedy}\",{rest}")
    } else {
        writeln!(stderr, "codit: error: no memory for {bytes} bytes; {remedy}")
    };
    low_level::exit(EXIT_CODE);
}
