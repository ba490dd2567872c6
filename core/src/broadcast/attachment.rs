//! What a layer above keeps with a broadcast, without the broadcast knowing what that is.

use std::{
    any::Any,
    sync::{Arc, OnceLock},
};

/// One thing, which clones share.
#[derive(Clone, Default)]
pub(super) struct Attachment(Arc<OnceLock<Arc<dyn Any + Send + Sync>>>);

impl Attachment {
    /// The thing, made when it is first asked for. Always to be asked for the same type.
    pub(super) fn get<T: Default + Any + Send + Sync>(&self) -> Arc<T> {
        let attachment = self.0.get_or_init(|| Arc::<T>::default());
        attachment.clone().downcast().unwrap_or_default()
    }
}
