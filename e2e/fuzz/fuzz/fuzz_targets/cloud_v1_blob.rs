#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ennote_fuzz::fuzz("cloud_v1_blob", bytes));
