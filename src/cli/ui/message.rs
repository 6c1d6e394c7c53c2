//! Messages on standard error.

/// Prints a line that begins with the program's name, whatever the user wants to be told: a warning, or what must not be
/// missed.
macro_rules! message {
    ($($text:tt)*) => {
        $crate::cli::ui::screen::say($crate::cli::ui::screen::Level::Warning, &format!($($text)*))
    };
}

/// Prints a line that a quiet run leaves out.
macro_rules! note {
    ($($text:tt)*) => {
        $crate::cli::ui::screen::say($crate::cli::ui::screen::Level::Note, &format!($($text)*))
    };
}

/// Prints a line that only a verbose run has.
macro_rules! detail {
    ($($text:tt)*) => {
        $crate::cli::ui::screen::say($crate::cli::ui::screen::Level::Detail, &format!($($text)*))
    };
}
