//! Damaged, foreign, locked and missing files: a clear error each, and no byte changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pelton_core::time::Now;
use tempfile::TempDir;

use super::driver::Driver;
use super::random::settings;
use super::seed::Random;
use crate::store::{OpenError, ParkedQuery, Settings, open};

const NOW: Now = Now { tick_ms: 0, wall_ms: 1_000_000 };

/// A directory with a store that holds something, closed.
fn filled() -> (TempDir, Settings) {
    let directory = TempDir::new().unwrap();
    let settings = settings(&directory);
    let mut driver = Driver::new(open(&settings, NOW).unwrap());
    for number in 0..300_u64 {
        driver.step(Random(number).step()).unwrap();
    }
    driver.commit().unwrap();
    let now = driver.now();
    driver.store.checkpointer.run(now).unwrap();
    driver.commit().unwrap();
    let parked = driver.durable.parked.len();
    assert!(parked > 5, "only {parked} messages are parked");
    drop(driver);
    (directory, settings)
}

fn bytes_of(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Opens a store that must be refused; gives back why, once it is sure that nothing was touched and that the message names the file.
fn refused(settings: &Settings, file: &str) -> OpenError {
    let before = bytes_of(&settings.directory);
    let error = open(settings, NOW).err().unwrap();
    assert!(before == bytes_of(&settings.directory), "a file was changed: {error}");
    let message = error.to_string();
    assert!(message.contains(file), "{message:?} does not name {file}");
    assert!(message.contains("store.path") || message.contains("disk"), "{message:?} names no way out");
    error
}

#[test]
fn a_flipped_bit_is_found_and_the_file_left_as_it_was() {
    let (_directory, settings) = filled();
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = Random(seed);
    let original = bytes_of(&settings.directory);
    let mut found = 0;
    for name in ["commit.log", "view.redb"] {
        let path = settings.directory.join(name);
        for number in 0..60 {
            let mut bytes = original[&path].clone();
            // The head of a file is always in use; elsewhere it is a matter of luck.
            let reach = if number % 3 == 0 { 32 } else { bytes.len() as u64 };
            let bit = random.below(reach * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            // A bit of a page that nothing refers to changes nothing.
            match open(&settings, NOW) {
                Ok(store) => drop(store),
                Err(error) => {
                    found += 1;
                    assert_eq!(fs::read(&path).unwrap(), bytes, "the file was changed: {error}");
                    assert!(error.to_string().contains(name), "{error}");
                    // Without its last record the log ends before the view.
                    let is_known = matches!(
                        error,
                        OpenError::Damaged { .. } | OpenError::Foreign { .. } | OpenError::Mismatch { .. }
                    );
                    assert!(is_known, "{error:?}");
                }
            }
            original.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        }
    }
    assert!(found > 10, "only {found} of 120 flipped bits were found");
}

#[test]
fn a_truncated_file_is_refused() {
    let (_directory, settings) = filled();
    for name in ["commit.log", "view.redb"] {
        let path = settings.directory.join(name);
        let whole = fs::read(&path).unwrap();
        for length in [0, 100, 4096, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            let error = refused(&settings, name);
            assert!(matches!(error, OpenError::Damaged { .. } | OpenError::Foreign { .. }), "{length}: {error:?}");
        }
        fs::write(&path, &whole).unwrap();
    }
    open(&settings, NOW).unwrap();
}

#[test]
fn a_foreign_file_is_refused() {
    let (_directory, settings) = filled();
    let path = settings.directory.join("view.redb");
    fs::write(&path, b"SQLite format 3\0").unwrap();
    assert!(matches!(refused(&settings, "view.redb"), OpenError::Foreign { .. }));
    fs::copy(settings.directory.join("commit.log"), &path).unwrap();
    assert!(matches!(refused(&settings, "view.redb"), OpenError::Foreign { .. }), "a log is no view");
}

#[test]
fn files_of_two_stores_are_not_mixed() {
    let (_directory, settings) = filled();
    let (_other_directory, other) = filled();
    fs::copy(other.directory.join("commit.log"), settings.directory.join("commit.log")).unwrap();
    assert!(matches!(refused(&settings, "commit.log"), OpenError::Mismatch { .. }));
}

#[test]
fn a_log_that_went_back_is_refused() {
    let directory = TempDir::new().unwrap();
    let settings = settings(&directory);
    drop(open(&settings, NOW).unwrap());
    let log = settings.directory.join("commit.log");
    let old = fs::read(&log).unwrap();
    drop(Driver::new(open(&settings, NOW).unwrap()));
    drop(open(&settings, NOW).unwrap());
    fs::write(&log, old).unwrap();
    assert!(matches!(refused(&settings, "commit.log"), OpenError::Mismatch { .. }));
}

#[test]
fn another_format_is_refused() {
    let (_directory, settings) = filled();
    let set_view = |format: u64| {
        let database = redb::Database::open(settings.directory.join("view.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let meta = redb::TableDefinition::<&str, u64>::new("meta");
        transaction.open_table(meta).unwrap().insert("format", format).unwrap();
        transaction.commit().unwrap();
    };
    let set_log = |format: u64| {
        let path = settings.directory.join("commit.log");
        let mut bytes = fs::read(&path).unwrap();
        bytes[8..16].copy_from_slice(&format.to_le_bytes());
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..32]).to_le_bytes();
        bytes[32..40].copy_from_slice(&checksum);
        fs::write(&path, bytes).unwrap();
    };
    let set: [(&str, &dyn Fn(u64)); 2] = [("commit.log", &set_log), ("view.redb", &set_view)];
    for (name, set) in set {
        set(1);
        assert!(matches!(refused(&settings, name), OpenError::OtherFormat { found: 1, known: 5, .. }));
        set(5);
    }
    open(&settings, NOW).unwrap();
}

#[test]
fn a_parked_message_that_is_missing_is_an_error_and_not_passed_over() {
    let (_directory, settings) = filled();
    {
        let database = redb::Database::open(settings.directory.join("view.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let table = redb::TableDefinition::<&[u8; 12], &[u8]>::new("parked");
        transaction.open_table(table).unwrap().pop_first().unwrap().unwrap();
        transaction.commit().unwrap();
    }
    let store = open(&settings, NOW).unwrap();
    let error = store.reader.parked(&ParkedQuery { limit: 1_000, ..ParkedQuery::default() }).unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
}

#[test]
fn a_store_in_use_is_refused() {
    let (_directory, settings) = filled();
    let opened = open(&settings, NOW).unwrap();
    let error = refused(&settings, "lock");
    assert!(matches!(error, OpenError::Locked { .. }), "{error:?}");
    drop(opened);
    open(&settings, NOW).unwrap();
}

#[test]
fn half_a_store_is_refused() {
    let (_directory, settings) = filled();
    for name in ["commit.log", "view.redb"] {
        let (here, away) = (settings.directory.join(name), settings.directory.join("away"));
        fs::rename(&here, &away).unwrap();
        assert!(matches!(refused(&settings, name), OpenError::HalfMissing { .. }));
        fs::rename(&away, &here).unwrap();
    }
    open(&settings, NOW).unwrap();
}

#[test]
fn a_creation_that_was_interrupted_is_finished() {
    let names = ["commit.log", "commit.log.new", "view.redb", "view.redb.new"];
    let (_directory, settings) = filled();
    let path = |name: &str| settings.directory.join(name);
    let whole = |name: &str| fs::read(path(name)).unwrap();
    let (log, view) = (whole("commit.log"), whole("view.redb"));
    let torn = vec![0; 5_000];
    // What the steps of a creation leave, one after the other.
    for left in [
        vec![("view.redb.new", &torn)],
        vec![("view.redb.new", &view), ("commit.log.new", &torn)],
        vec![("view.redb.new", &view), ("commit.log.new", &log)],
        vec![("view.redb.new", &view), ("commit.log", &log)],
        vec![("view.redb", &view), ("commit.log", &log)],
    ] {
        names.iter().for_each(|name| drop(fs::remove_file(path(name))));
        left.iter().for_each(|(name, bytes)| fs::write(path(name), bytes).unwrap());
        let opened = open(&settings, NOW).unwrap();
        drop(opened);
        assert!(path("commit.log").exists() && path("view.redb").exists());
        assert!(!path("commit.log.new").exists() && !path("view.redb.new").exists());
    }
}
