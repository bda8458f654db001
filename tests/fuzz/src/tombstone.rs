//! Fuzzes `targets::tombstone`.
#![no_main]

#[allow(dead_code)]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::tombstone(data));
