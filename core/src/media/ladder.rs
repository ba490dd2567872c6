//! Which renditions there are and what each gets: decided by plain state machines, without pipelines.

pub(super) mod fit;
pub(super) mod gate;
pub(super) mod plan;
