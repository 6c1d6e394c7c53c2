//! The routing of rows through a mixture of experts.

/// The routing of a mixture: each row uses `active` of the `branches` MLPs. (Papers call the MLPs experts; in this
/// project the expert is the post-trained model of the pair.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutingShape {
    /// MLPs to choose from.
    pub branches: usize,
    /// MLPs that a row uses, at most `branches`.
    pub active: usize,
    /// Whether the weights of a row's choices are normalized to sum to one; otherwise they are their shares of the
    /// softmax over all branches.
    pub normalized: bool,
}

/// A branch that a row uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The branch.
    pub branch: u32,
    /// The weight of the branch in the row's sum.
    pub weight: f32,
}

/// The rows that a grouped product reads. A *place* is a row's visit to one of its branches; places are ordered by
/// branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupedRows {
    /// The activations of the place's row.
    OfRow,
    /// The place's own activations.
    OfPlace,
}
