//! Turns panics of libraries into errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::error::excerpt;

thread_local! {
    /// Whether a panic of this thread becomes an error.
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, which calls a library that may panic on a crafted file. A panic becomes an error message, and prints
/// nothing. `work` must do the library's work on this thread.
pub(super) fn contain<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    silence_contained_panics();
    let before = IS_CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    IS_CONTAINED.set(before);
    result.map_err(|panic| excerpt(&panic_message(&*panic)).into_owned())
}

/// Puts a hook before the process's panic hook, once, which passes on to it all panics but those that become errors.
fn silence_contained_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let passed_on = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_CONTAINED.try_with(Cell::get).unwrap_or(false) {
                passed_on(panic);
            }
        }));
    });
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a library failed: {}", text.unwrap_or("without a reason"))
}
