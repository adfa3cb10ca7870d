//! Replays the corpus of every fuzz target: what was once found stays fixed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use zerocache_fuzz::TARGETS;

/// All corpora together stay small enough for a repository.
const FILES_MAX: usize = 200;
const BYTES_MAX: usize = 200 * 1024;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("a name in UTF-8");
    let mut names: Vec<_> = entries.map(|entry| name(entry.expect("a readable folder"))).collect();
    names.sort();
    names
}

#[test]
fn every_input_of_the_corpus_passes() {
    let (mut files, mut bytes) = (0, 0);
    for (target, run) in TARGETS {
        let corpus = folder("corpus").join(target);
        let inputs = names(&corpus);
        assert!(!inputs.is_empty(), "{} is empty", corpus.display());
        for input in inputs {
            // Shown when the input panics.
            println!("{target}/{input}");
            let data = fs::read(corpus.join(input)).unwrap();
            files += 1;
            bytes += data.len();
            run(&data);
        }
    }
    assert!(files <= FILES_MAX && bytes <= BYTES_MAX, "{files} files of {bytes} bytes; minimise");
}

#[test]
fn targets_corpora_and_binaries_have_the_same_names() {
    let mut targets: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    targets.sort();
    let files = names(&folder("fuzz_targets"));
    let binaries: Vec<_> = files.iter().map(|file| file.trim_end_matches(".rs")).collect();
    assert_eq!(binaries, targets);
    assert_eq!(names(&folder("corpus")), targets);
}
