//! Standard error as a user sees it. Messages, the live bar and JSON lines pass through here, so that a message never tears
//! the bar and every line has the form that the user asked for.

use std::io::{IsTerminal, Write, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use console::{Style, Term};
use serde_json::{Value, json};

use super::words;

/// What every line of text begins with.
const NAME: &str = "codit: ";
/// Columns of the name of a field.
const FIELD: usize = 10;
/// Columns of a terminal.
const USUAL_WIDTH: usize = 80;
/// Columns of the bar.
const BAR: usize = 20;
/// Columns that are left for what the terminal writes when keys are pressed.
const ECHO: usize = 5;
/// The live line is not drawn more often.
const REDRAW: Duration = Duration::from_millis(250);
/// Goes to the start of the line and clears it.
const CLEAR: &str = "\r\x1b[2K";
/// What a warning begins with.
const WARNING: &str = "warning:";
/// What the error that ends the program begins with.
const ERROR: &str = "error:";

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A live line on the terminal.
    Bar,
    /// A line of text now and then.
    Plain,
    /// Every line on standard error is a JSON object.
    Json,
    /// Not at all.
    None,
}

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Only warnings and errors.
    Quiet,
    /// Also what a run does and how it ended.
    Normal,
    /// Also what the engine counted.
    Verbose,
}

/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Always shown.
    Warning,
    /// Not shown by a quiet run.
    Note,
    /// Shown by a verbose run.
    Detail,
}

struct Screen {
    mode: Option<Mode>,
    verbosity: Verbosity,
    live: Option<Live>,
    /// Whether there is no live line any more.
    has_ended: bool,
}

static SCREEN: Mutex<Screen> =
    Mutex::new(Screen { mode: None, verbosity: Verbosity::Normal, live: None, has_ended: false });

fn screen() -> MutexGuard<'static, Screen> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Chooses how progress is shown, `None` for what suits standard error, and how much is told.
pub fn set(mode: Option<Mode>, verbosity: Verbosity) {
    let mut screen = screen();
    (screen.mode, screen.verbosity) = (mode, verbosity);
    IS_JSON.store(mode == Some(Mode::Json), Ordering::Relaxed);
}

/// Whether every line is a JSON object, for those who must not wait for the screen.
pub static IS_JSON: AtomicBool = AtomicBool::new(false);

/// How progress is shown.
pub fn mode() -> Mode {
    match screen().mode {
        // A live line needs a terminal.
        Some(Mode::Bar) | None if can_redraw() => Mode::Bar,
        Some(Mode::Bar) | None => Mode::Plain,
        Some(mode) => mode,
    }
}

/// Whether standard error is a terminal whose lines can be drawn again.
fn can_redraw() -> bool {
    stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// How much is told.
pub fn verbosity() -> Verbosity {
    screen().verbosity
}

/// Columns of the terminal, if standard error is one.
pub fn width() -> Option<usize> {
    // A terminal that does not know its size is taken for a usual one.
    let columns = || Term::stderr().size_checked().map_or(USUAL_WIDTH, |(_, columns)| usize::from(columns));
    stderr().is_terminal().then(columns)
}

/// A message as one line of text or as one JSON object.
pub fn say(level: Level, text: &str) {
    let verbosity = screen().verbosity;
    let (is_shown, name) = match level {
        Level::Warning => (true, "warning"),
        Level::Note => (verbosity >= Verbosity::Normal, "note"),
        Level::Detail => (verbosity >= Verbosity::Verbose, "detail"),
    };
    if !is_shown {
        return;
    }
    let text = words::harmless(text);
    if mode() == Mode::Json {
        event(&json!({"event": "message", "level": name, "text": text}));
    } else {
        print(&text);
    }
}

/// A line of the block that says what a run does: a name and its value, which goes on below where the terminal ends.
pub fn say_field(name: &str, value: &str) {
    if screen().verbosity == Verbosity::Quiet || mode() == Mode::Json {
        return;
    }
    let value = words::harmless(value);
    let name = format!("{name:<FIELD$}");
    let room = room_for_field().unwrap_or(usize::MAX);
    let name = Style::new().for_stderr().bold().apply_to(name);
    let value = words::wrapped(&value, room, "").replace('\n', &format!("\n{:1$}", "", NAME.len() + FIELD));
    write(&format!("{NAME}{name}{value}\n"));
}

/// Columns of the terminal that are left for the value of a field.
pub fn room_for_field() -> Option<usize> {
    width().map(|width| width.saturating_sub(NAME.len() + FIELD))
}

/// The error that ends the program. Those of a device are of several lines, with a table.
pub fn say_error(text: &str, has_lines: bool, exit_code: u8) {
    if mode() == Mode::Json {
        event(&json!({"event": "error", "text": words::harmless(text), "exit_code": exit_code}));
        return;
    }
    let mut lines = if has_lines { text.lines() } else { "".lines() };
    let first = words::harmless(if has_lines { lines.next().unwrap_or_default() } else { text });
    print(&format!("{ERROR} {first}"));
    for line in lines {
        write(&(words::harmless(line) + "\n"));
    }
}

/// A JSON object on a line of its own, where every line is one.
pub fn event(event: &Value) {
    if mode() == Mode::Json {
        write(&format!("{event}\n"));
    }
}

fn print(text: &str) {
    let text = format!("{NAME}{text}");
    let text = match width() {
        Some(width) => words::wrapped(&text, width, "  "),
        None => text,
    };
    let [warning, error] =
        [Style::new().for_stderr().yellow().bold(), Style::new().for_stderr().red().bold()];
    let coloured = [(WARNING, warning), (ERROR, error)].into_iter().find_map(|(word, style)| {
        let rest = text.strip_prefix(NAME)?.strip_prefix(word)?;
        Some(format!("{NAME}{}{rest}", style.apply_to(word)))
    });
    write(&(coloured.unwrap_or(text) + "\n"));
}

/// Text that cannot be written is lost: a run of days must not end because nobody watches it any more.
fn write(text: &str) {
    let screen = screen();
    let text = match &screen.live {
        Some(live) => format!("{CLEAR}{text}{}", live.line),
        None => text.to_owned(),
    };
    let _ = stderr().write_all(text.as_bytes());
}

/// The live line. There is at most one.
struct Live {
    line: String,
    drawn: Instant,
}

/// Shows how far something is by a live line, if progress is shown by one: a bar and `text`, cut where the terminal ends.
///
/// The cursor stays at the end of the line. What the terminal writes there when keys are pressed, such as ^C, goes when the
/// line is drawn again.
pub fn show_bar(position: u64, length: u64, text: &str) {
    if mode() != Mode::Bar || verbosity() == Verbosity::Quiet {
        return;
    }
    let full = (position.min(length) as usize * BAR).checked_div(length as usize).unwrap_or(0);
    let line = format!("{}{} {text}", "█".repeat(full), "░".repeat(BAR - full));
    let room = width().unwrap_or(USUAL_WIDTH).saturating_sub(ECHO);
    let line = words::cut(&line, room).into_owned();
    let mut screen = screen();
    let is_due = !screen.has_ended
        && screen.live.as_ref().is_none_or(|live| live.drawn.elapsed() >= REDRAW || position == length);
    if is_due {
        let _ = stderr().write_all(format!("{CLEAR}{line}").as_bytes());
        screen.live = Some(Live { line, drawn: Instant::now() });
    }
}

/// Removes the live line, for good: the program ends while others may still want to draw it.
pub fn end() {
    screen().has_ended = true;
    close_bar();
}

/// Removes the live line, without leaving a rest of it on the terminal.
pub fn close_bar() {
    if screen().live.take().is_some() {
        let _ = stderr().write_all(CLEAR.as_bytes());
    }
}
