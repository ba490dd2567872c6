//! The endpoint of an element, and whose identity it has.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use iroh_live::{
    Live,
    endpoint::{EndpointConfig, Relays},
    iroh::{EndpointId, SecretKey},
    util::SECRET_ENV,
};

use crate::{log::NETWORK as CAT, runtime};

/// What an endpoint is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Viewers come to it, and find it by its identity.
    Publish,
    /// It goes to others.
    Watch,
}

/// Where an identity comes from.
#[derive(Debug, Clone)]
pub(crate) enum Identity {
    /// It is made for this endpoint.
    New,
    /// The environment of the process, and so for whoever needs it.
    Environment(SecretKey),
    /// A user set it for this element, by the property of that name.
    Set(SecretKey, &'static str),
}

/// An identity that an endpoint of this process has; nobody else has it until this is dropped.
///
/// Two endpoints with one identity take each other's connections away: relays and address lookup know only the latest.
#[derive(Debug)]
struct IdentityReservation(EndpointId);

static RESERVED: Mutex<BTreeMap<EndpointId, Role>> = Mutex::new(BTreeMap::new());

impl IdentityReservation {
    /// # Errors
    /// What the endpoint is for that has it.
    fn take(key: &SecretKey, role: Role) -> Result<Self, Role> {
        let id = key.public();
        let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
        match reserved.entry(id) {
            Entry::Occupied(holder) => Err(*holder.get()),
            Entry::Vacant(free) => {
                free.insert(role);
                Ok(Self(id))
            }
        }
    }
}

impl Drop for IdentityReservation {
    fn drop(&mut self) {
        let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
        reserved.remove(&self.0);
    }
}

/// An endpoint that is open, with the transport on it. To be closed with [`close`](Self::close).
pub(crate) struct OpenEndpoint {
    live: Live,
    reservation: Option<IdentityReservation>,
}

impl OpenEndpoint {
    /// Blocks for as long as opening sockets takes; the network is not waited for.
    pub(crate) fn open(
        mut config: EndpointConfig,
        identity: Identity,
        role: Role,
    ) -> Result<Self, gst::ErrorMessage> {
        let (key, reservation) = choose(identity, role)?;
        config.secret_key = key;
        let has_relays = config.relays != Relays::Disabled;
        let limits = config.limits.clone();
        let live = runtime::block_on(async move {
            let endpoint = config.bind().await.map_err(|error| {
                let text = format!(
                    "The network cannot be used: {error}. Choose another bind-address, or leave it unset"
                );
                match role {
                    Role::Publish => gst::error_msg!(gst::ResourceError::OpenWrite, ("{text}")),
                    Role::Watch => gst::error_msg!(gst::ResourceError::OpenRead, ("{text}")),
                }
            })?;
            let mut builder = Live::builder(endpoint).limits(limits);
            if !has_relays {
                builder = builder.online_timeout(Duration::ZERO);
            }
            Ok(match role {
                Role::Publish => builder.with_router().spawn(),
                Role::Watch => builder.spawn(),
            })
        })??;
        Ok(Self { live, reservation })
    }

    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    /// Closes everything; waits a moment for peers to get what was written.
    pub(crate) fn close(self) {
        let Self { live, reservation } = self;
        if runtime::block_on(async move { live.shutdown().await }).is_err() {
            gst::warning!(CAT, "the transport did not stop");
        }
        // Only now may another have the identity.
        drop(reservation);
    }
}

/// The key to open an endpoint with, if it is not to be a new one.
fn choose(
    identity: Identity,
    role: Role,
) -> Result<(Option<SecretKey>, Option<IdentityReservation>), gst::ErrorMessage> {
    let (key, from) = match identity {
        Identity::New => return Ok((None, None)),
        Identity::Environment(key) => (key, SECRET_ENV),
        Identity::Set(key, property) => (key, property),
    };
    match IdentityReservation::take(&key, role) {
        Ok(reservation) => Ok((Some(key), Some(reservation))),
        // Whoever publishes is found by the identity, and has it first.
        Err(_) if from == SECRET_ENV && role == Role::Watch => {
            gst::info!(
                CAT,
                "another element of this process has the identity of the environment; this one has a new one"
            );
            Ok((None, None))
        }
        // It cannot be taken away from whoever is connected with it.
        Err(Role::Watch) if from == SECRET_ENV => Err(gst::error_msg!(
            gst::ResourceError::Settings,
            ("{from}: an irohlivesrc of this process started first and has this identity. Start the irohlivesink before it, or give one of them its own secret-key or secret-key-location")
        )),
        Err(_) => Err(gst::error_msg!(
            gst::ResourceError::Settings,
            ("{from}: another element of this process has this identity. Give each its own secret-key or secret-key-location")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_endpoints_of_the_process_have_one_identity() {
        let key = SecretKey::generate();
        let environment = || Identity::Environment(key.clone());
        let (chosen, first) = choose(environment(), Role::Publish).unwrap();
        assert_eq!(chosen.unwrap().public(), key.public());
        let (chosen, _) = choose(environment(), Role::Watch).unwrap();
        assert!(chosen.is_none(), "who watches leaves it to who publishes");
        assert!(choose(environment(), Role::Publish).is_err());
        assert!(choose(Identity::Set(key.clone(), "secret-key"), Role::Watch).is_err());
        let other = Identity::Set(SecretKey::generate(), "secret-key");
        assert!(choose(other, Role::Watch).unwrap().0.is_some());
        drop(first);
        let (chosen, _second) = choose(environment(), Role::Watch).unwrap();
        assert!(chosen.is_some(), "free again");
        let error = choose(environment(), Role::Publish).unwrap_err();
        let text = format!("{error:?}");
        assert!(text.contains("Start the irohlivesink before it"), "{text}");
        let file = Identity::Set(key.clone(), "secret-key-location");
        let text = format!("{:?}", choose(file, Role::Publish).unwrap_err());
        assert!(text.contains("secret-key-location: another"), "{text}");
    }
}
