//! libFuzzer's entry to `fuzz::control_socket`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::control_socket(data));
