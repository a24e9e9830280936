#![no_main]
//! See `holdfast_fuzz::mysql::packets`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::mysql::packets(data));
