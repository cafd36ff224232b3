//! Arbitrary text with variables of a Compose file, and as a file of variables.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| spec::fuzz::interpolation(bytes));
