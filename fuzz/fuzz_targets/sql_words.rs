#![no_main]
//! See `holdfast_fuzz::import::sql_words`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::import::sql_words(data));
