#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ennote_fuzz::fuzz("agent_formats", bytes));
