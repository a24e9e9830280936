#![no_main]
//! See `holdfast_fuzz::mysql::clone_descriptor`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::mysql::clone_descriptor(data));
