//! The choice of shortcuts.

use clap::ValueEnum;

use codit::engine::{Deferred, Shortcuts};

/// What is left out of the work of two models. No token depends on it.
#[derive(clap::Args)]
pub struct ShortcutArgs {
    /// Skips nothing: every token runs both models in full; for comparison
    #[arg(long, conflicts_with = "shortcuts")]
    eager: bool,
    /// Work to skip; no token depends on it [default: as suits the device]
    #[arg(long, value_enum, value_name = "NAME,...", value_delimiter = ',')]
    shortcuts: Option<Vec<Shortcut>>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shortcut {
    /// Compute the amateur's logits for the plausible set only
    #[value(alias = "gathered-head")]
    GatheredCandidates,
    /// Let the amateur wait while the expert decides tokens alone, where that pays
    DeferredAmateur,
    /// Defer the amateur whether or not it pays; for comparison
    AlwaysDeferredAmateur,
    /// Compute the common beginnings of texts once
    SharedPrefixes,
}

impl ShortcutArgs {
    /// What is asked for; `None` leaves it to the device.
    pub fn shortcuts(&self) -> Option<Shortcuts> {
        if self.eager {
            return Some(Shortcuts::NONE);
        }
        let chosen = self.shortcuts.as_ref()?;
        Some(Shortcuts {
            gathered_candidates: chosen.contains(&Shortcut::GatheredCandidates),
            deferred_amateur: if chosen.contains(&Shortcut::AlwaysDeferredAmateur) {
                Deferred::Always
            } else if chosen.contains(&Shortcut::DeferredAmateur) {
                Deferred::WhereItPays
            } else {
                Deferred::Never
            },
            shared_prefixes: chosen.contains(&Shortcut::SharedPrefixes),
        })
    }
}
