#![no_main]
//! See `holdfast_fuzz::format::manifest`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::format::manifest(data));
