//! Fuzzes `targets::signers`.
#![no_main]

#[allow(dead_code)]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::signers(data));
