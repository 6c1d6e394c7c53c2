//! The choice of shortcuts.

use clap::ValueEnum;

use codit::engine::{Deferred, Shortcuts};

/// What is left out of the work of two models. No token depends on it.
#[derive(clap::Args)]
pub struct ShortcutArgs {
    /// Leave out nothing: every token takes both models in full, for comparison
    #[arg(long, conflicts_with = "shortcuts")]
    eager: bool,
    /// Work to leave out [default: as suits the device]
    #[arg(long, value_enum, value_name = "NAME,...", value_delimiter = ',')]
    shortcuts: Option<Vec<Shortcut>>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shortcut {
    /// Compute the amateur's logits of the plausible set alone
    #[value(alias = "gathered-head")]
    GatheredCandidates,
    /// The amateur waits while the expert settles tokens alone, as long as that pays
    DeferredAmateur,
    /// The same whether or not it pays, for comparison
    AlwaysDeferredAmateur,
    /// Beginnings that texts share are computed once
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
