#![no_main]
//! See `holdfast_fuzz::format::session`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::format::session(data));
