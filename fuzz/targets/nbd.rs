#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    holdfast_fuzz::by_name("nbd").check(input, &mut holdfast_fuzz::Labels::none());
});
