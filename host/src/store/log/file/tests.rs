//! The log's file on a simulated disk: what is read back after every kind of end.

use redb::StorageBackend;

use super::*;
use crate::store::simulated::SimulatedDisk;

const SEED: u64 = 7;

fn new() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let [file, _] = disk.files();
    LogFile::create(&file, SEED).unwrap();
    disk
}

fn open(disk: &SimulatedDisk) -> LogFile {
    let [file, _] = disk.files();
    LogFile::open(Box::new(file)).unwrap()
}

fn try_append(log: &LogFile, position: u64, bytes: &[u8], folded: u64) -> Result<usize, StoreFailure> {
    let mut record = vec![0; HEADER_BYTES];
    record.extend(bytes);
    log.append(position, &mut record, folded)
}

fn append(log: &LogFile, position: u64, bytes: &[u8], folded: u64) {
    try_append(log, position, bytes, folded).unwrap();
}

fn all(log: &LogFile, after: u64) -> Vec<(u64, Vec<u8>)> {
    let records = log.read_after(after, usize::MAX).unwrap();
    records.into_iter().map(|record| (record.position, record.bytes)).collect()
}

/// Bytes of a length that differs from record to record, from none to several blocks.
fn content(position: u64) -> Vec<u8> {
    let length = position * position * 577 % 20_000;
    (0..length).map(|byte| (byte * position) as u8).collect()
}

#[test]
fn records_come_back_in_order_however_often_the_file_is_gone_through() {
    let disk = new();
    let log = open(&disk);
    for position in 1..=500 {
        append(&log, position, &content(position), position.saturating_sub(5));
    }
    let (after, kept): (u64, Vec<_>) = (495, (496..=500).map(|position| (position, content(position))).collect());
    assert_eq!(all(&log, after), kept);
    assert_eq!(log.read_after(after, 1).unwrap().len(), 1, "at least one");
    drop(log);
    let log = open(&disk);
    assert_eq!((log.last(), log.gap_after(495), all(&log, after)), (500, None, kept));
    let [file, _] = disk.files();
    assert!(file.len().unwrap() < 1 << 20, "{} bytes for five records at a time", file.len().unwrap());
}

#[test]
fn of_a_record_that_power_loss_tore_nothing_is_left_and_it_is_written_anew() {
    for through in 0..5 {
        let mut disk = new();
        let log = open(&disk);
        append(&log, 1, &content(3), 0);
        append(&log, 2, &content(4), 0);
        // It is written, and the sync never comes.
        disk.fail_after(2);
        assert!(try_append(&log, 3, &content(9), 0).is_err());
        let mut turn = 0;
        disk.power_loss(|below| {
            turn += 1;
            if below == 5 { through } else { turn % below }
        });
        let log = open(&disk);
        let last = log.last();
        assert!(last == 2 || (through == 4 && last == 3), "{through}: {last}");
        log.settle().unwrap();
        append(&log, last + 1, &content(5), 0);
        drop(log);
        let log = open(&disk);
        assert_eq!((log.last(), log.gap_after(0)), (last + 1, None));
        assert_eq!(all(&log, last), [(last + 1, content(5))]);
    }
}

#[test]
fn a_record_that_is_damaged_is_missed_by_those_behind_it() {
    let disk = new();
    let log = open(&disk);
    (1..=3).for_each(|position| append(&log, position, &[position as u8; 100], 0));
    drop(log);
    let [file, _] = disk.files();
    for (byte, missing) in [(HEADER_BYTES as u64 + 50, 1), (BLOCK as u64, 2), (BLOCK as u64 + 30, 2)] {
        let at = BLOCK as u64 + byte;
        let mut before = [0];
        file.read(at, &mut before).unwrap();
        file.write(at, &[before[0] ^ 4]).unwrap();
        assert_eq!(open(&disk).gap_after(0), Some(missing));
        file.write(at, &before).unwrap();
    }
    assert_eq!(open(&disk).gap_after(0), None);
}

#[test]
fn a_damaged_record_is_not_read_either_when_the_damage_comes_later() {
    let disk = new();
    let log = open(&disk);
    append(&log, 1, &content(7), 0);
    let [file, _] = disk.files();
    file.write(BLOCK as u64 + 99, &[1]).unwrap();
    assert!(log.read_after(0, usize::MAX).is_err_and(|error| error.to_string().contains("record 1")));
}

#[test]
fn a_file_that_is_none_is_told_apart() {
    let opened = |change: &dyn Fn(&dyn StorageBackend)| {
        let disk = new();
        let [file, _] = disk.files();
        change(&file);
        LogFile::open(Box::new(file)).map(|_| ()).unwrap_err()
    };
    let size = BLOCKS_AT_FIRST * BLOCK as u64;
    assert!(matches!(opened(&|file| file.set_len(0).unwrap()), NoLog::Damaged(_)));
    assert!(matches!(opened(&|file| file.set_len(size - 1).unwrap()), NoLog::Damaged(_)));
    assert!(matches!(opened(&|file| file.write(0, b"SQLite").unwrap()), NoLog::Foreign(_)));
    assert!(matches!(opened(&|file| file.write(8, &[9]).unwrap()), NoLog::Damaged(_)));
    let other = |file: &dyn StorageBackend| {
        let mut header = file_header(SEED, BLOCKS_AT_FIRST);
        header[8] = 9;
        let checksum = xxh3_64_with_seed(&header[..32], 0).to_le_bytes();
        header[32..40].copy_from_slice(&checksum);
        file.write(0, &header).unwrap();
    };
    assert!(matches!(opened(&other), NoLog::OtherFormat(9)));
    assert!(matches!(opened(&|file| file.write(16, &[9]).unwrap()), NoLog::Damaged(_)));
}

#[test]
fn a_growth_that_ends_anywhere_leaves_a_log_that_is_whole() {
    for operations in 1..30 {
        let mut disk = new();
        let log = open(&disk);
        append(&log, 1, &content(3), 0);
        disk.fail_after(operations);
        let failed = try_append(&log, 2, &vec![1; 3 << 20], 0).is_err();
        disk.power_loss(|below| operations % below);
        let log = open(&disk);
        assert_eq!(all(&log, 0).first(), Some(&(1, content(3))));
        assert!(failed || log.last() == 2);
    }
}
