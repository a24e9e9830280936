#![no_main]
//! See `holdfast_fuzz::binlog::events`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::binlog::events(data));
