//! What the clones of a broadcast and its tracks have in common.

use std::sync::{Arc, Mutex};

use moq_lite::{broadcast, cache::Pool};
use moq_mux::catalog;

use super::{first_catalog::FirstCatalog, names::TrackNames};
use crate::broadcast::timeline::Timeline;

pub(super) struct Shared {
    pub(super) broadcast: broadcast::Producer,
    pub(super) pool: Pool,
    pub(super) catalog: catalog::Producer,
    pub(super) first_catalog: FirstCatalog,
    pub(super) timeline: Mutex<Timeline>,
    pub(super) names: Arc<TrackNames>,
}
