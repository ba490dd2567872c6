//! Sources, encoders and renditions, over the loopback interface.
#![cfg(feature = "media")]

mod calls;
mod encoders;
mod pair;
mod renditions;
mod sources;
