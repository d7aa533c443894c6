#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(lpc_fuzz::pair::play(data)));
