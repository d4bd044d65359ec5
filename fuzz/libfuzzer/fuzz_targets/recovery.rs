//! libFuzzer's entry to `fuzz::recovery`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::recovery(data));
