#![no_main]
//! See `holdfast_fuzz::source::innodb_page`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::source::innodb_page(data));
