//! Arbitrary bytes as manifest, index, config and challenge of a registry.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runtime::image::registry::fuzz_one(bytes));
