#![no_main]
//! See `holdfast_fuzz::format::segment`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::format::segment(data));
