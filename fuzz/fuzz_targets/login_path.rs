#![no_main]
//! See `holdfast_fuzz::mysql::login_path`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::mysql::login_path(data));
