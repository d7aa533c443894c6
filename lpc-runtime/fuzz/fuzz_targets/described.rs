#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lpc_fuzz::described::run(data));
