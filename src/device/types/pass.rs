//! Which models a step runs.

/// Which models run in a step, and so what work a device is given for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pass {
    /// Both models. Every row that samples gets its token.
    #[default]
    Joint,
    /// The expert. It decides the rows that need no amateur and, where the amateur is deferred, the rows whose only candidate
    /// is one token. The other rows wait for the amateur.
    ExpertOnly,
    /// The amateur, over positions that the expert has computed before. Rows that wait for it get their token.
    CatchUp,
}
