//! Arbitrary bytes as a manifest in each format, and as a Compose file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| spec::fuzz::parse(bytes));
