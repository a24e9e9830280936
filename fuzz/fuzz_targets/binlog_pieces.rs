#![no_main]
//! See `holdfast_fuzz::binlog::pieces`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::binlog::pieces(data));
