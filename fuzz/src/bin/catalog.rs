//! Catalogs and their changes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| iroh_live::fuzzing::catalog(data));
