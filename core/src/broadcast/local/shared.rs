//! What the clones of a broadcast and its tracks have in common.

use std::sync::{Arc, Mutex};

use moq_lite::{Hop, broadcast, cache::Pool};

use super::{first_catalog::FirstCatalog, names::TrackNames};
use crate::broadcast::{audience::Audience, extension::CatalogProducer, timeline::Timeline};

pub(super) struct Shared {
    pub(super) broadcast: broadcast::Producer,
    pub(super) content: Hop,
    pub(super) pool: Pool,
    pub(super) catalog: CatalogProducer,
    pub(super) first_catalog: FirstCatalog,
    pub(super) audience: Audience,
    pub(super) timeline: Mutex<Timeline>,
    pub(super) names: Arc<TrackNames>,
}
