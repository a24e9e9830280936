#![no_main]
//! See `holdfast_fuzz::mysql::option_file`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::mysql::option_file(data));
