#![no_main]
//! See `holdfast_fuzz::source::xbstream`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::source::xbstream(data));
