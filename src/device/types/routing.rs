//! How rows go through a mixture of experts.

/// How the rows of a step go through a mixture: each through `active` of its `branches` MLPs (which papers call experts, a
/// word that belongs to the better model of the pair here).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutingShape {
    /// MLPs to choose from.
    pub branches: usize,
    /// MLPs that a row goes through, at most `branches`.
    pub active: usize,
    /// Whether the weights of a row's choices sum to one; else they are their parts of the softmax over all branches.
    pub normalized: bool,
}

/// A branch that a row goes through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Which.
    pub branch: u32,
    /// Its part of the row's sum.
    pub weight: f32,
}

/// Which rows a grouped product reads: a *place* is a row's visit to one of its branches, and places lie in the order of
/// the branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupedRows {
    /// The activations of the place's row.
    OfRow,
    /// The place's own activations.
    OfPlace,
}
