#![no_main]
//! See `holdfast_fuzz::mysql::sql_script`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::mysql::sql_script(data));
