#![no_main]
//! See `holdfast_fuzz::mysql::results`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::mysql::results(data));
