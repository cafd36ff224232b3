//! Arbitrary text as an image reference.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| spec::fuzz::image_reference(bytes));
