//! Every seed that fuzzing kept, through the same functions (`tests/fuzz`); what once broke stays mended.

#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::path::Path;

fn each_seed(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target);
    let mut seeds: Vec<_> = std::fs::read_dir(&folder).expect("seeds").flatten().map(|entry| entry.path()).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    for seed in seeds {
        let data = std::fs::read(&seed).expect("can be read");
        let result = std::panic::catch_unwind(|| run(&data));
        assert!(result.is_ok(), "{} breaks `{target}`", seed.display());
    }
}

#[test]
fn no_seed_breaks_what_reads_it() {
    each_seed("loader", targets::loader);
    each_seed("template", targets::template);
    each_seed("journal", targets::journal);
    each_seed("bundle", targets::bundle);
    each_seed("tombstone", targets::tombstone);
    each_seed("signers", targets::signers);
}
