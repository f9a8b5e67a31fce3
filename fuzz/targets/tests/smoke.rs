//! Every fuzz target on its corpus, on what comes of damaging it, and on noise.

#![expect(clippy::unwrap_used, reason = "clippy knows tests only by their attribute, not the functions they share")]

use std::{collections::BTreeSet, fs, path::Path};

use mayfly_fuzz_targets::TARGETS;
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    let seeds: Vec<_> = fs::read_dir(&folder).unwrap().map(|seed| fs::read(seed.unwrap().path()).unwrap()).collect();
    assert!(!seeds.is_empty(), "{} has no seed", folder.display());
    seeds
}

/// Cut, overwritten, doubled.
fn damaged(mut bytes: Vec<u8>, cut: Index, writes: &[(Index, u8)], doubled: bool) -> Vec<u8> {
    for (position, value) in writes.iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
        let position = position.index(bytes.len());
        bytes[position] = *value;
    }
    if doubled {
        bytes.extend_from_within(cut.index(bytes.len() + 1)..);
    } else if cut.index(4) == 0 {
        bytes.truncate(cut.index(bytes.len() + 1));
    }
    bytes
}

#[test]
fn no_target_panics_on_its_corpus_damaged_or_on_noise() {
    for (name, run) in TARGETS {
        let seeds = corpus(name);
        seeds.iter().for_each(|seed| run(seed));
        let writes = proptest::collection::vec((any::<Index>(), any::<u8>()), 0..8);
        let damage = (any::<Index>(), any::<Index>(), writes, any::<bool>());
        let tried = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(4000) }).run(
            &damage,
            |(which, cut, writes, doubled)| {
                run(&damaged(seeds[which.index(seeds.len())].clone(), cut, &writes, doubled));
                Ok(())
            },
        );
        tried.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let noise = proptest::collection::vec(any::<u8>(), 0..600);
        let tried = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(1000) }).run(&noise, |bytes| {
            run(&bytes);
            Ok(())
        });
        tried.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    }
}

#[test]
fn each_target_is_a_binary_of_cargo_fuzz() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz_targets");
    let binaries: BTreeSet<_> = fs::read_dir(folder).unwrap().map(|f| f.unwrap().path().file_stem().unwrap().to_owned()).collect();
    let names: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).into()).collect();
    assert_eq!(binaries, names);
}
