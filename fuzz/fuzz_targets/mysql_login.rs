#![no_main]
//! See `holdfast_fuzz::mysql::login`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::mysql::login(data));
