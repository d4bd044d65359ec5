//! libFuzzer's entry to `fuzz::control_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::control_frame(data));
