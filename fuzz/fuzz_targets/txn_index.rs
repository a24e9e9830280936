#![no_main]
//! See `holdfast_fuzz::format::txn_index`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::format::txn_index(data));
