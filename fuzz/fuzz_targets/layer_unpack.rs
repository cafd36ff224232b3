//! Arbitrary bytes as a layer, unpacked below the temporary directory. Run it as root in a mount namespace of its own: a
//! finding may write outside.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runtime::image::unpack::fuzz_one(bytes));
