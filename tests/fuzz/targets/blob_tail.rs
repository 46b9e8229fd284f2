#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::explore::blob_tail(bytes));
