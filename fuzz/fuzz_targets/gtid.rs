#![no_main]
//! See `holdfast_fuzz::binlog::gtid`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::binlog::gtid(data));
