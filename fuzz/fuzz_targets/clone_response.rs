#![no_main]
//! See `holdfast_fuzz::mysql::clone_response`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::mysql::clone_response(data));
