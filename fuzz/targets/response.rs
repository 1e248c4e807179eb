//! Answers of endpoints from the network. What must hold is in src/proxy/http1/laws.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| floodway::proxy::laws::response(raw));
