//! The frames of a track, in each container.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| iroh_live::fuzzing::container(data));
