#![no_main]
//! See `holdfast_fuzz::format::record`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::format::record(data));
