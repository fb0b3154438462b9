//! Power loss and failing disks: whatever was appended is there, and nothing half.

use pelton_core::time::Now;

use super::checks::holds;
use super::driver::{Driver, PROCESSED_IDS_MS, Stopped};
use super::model::Model;
use super::seed::Random;
use crate::store::simulated::{SimulatedDisk, create_simulated, open_simulated};
use crate::store::{AppendError, OpenError, Opened, Settings};

/// Torn images that are tried if `PELTON_POWER_IMAGES` names no other number.
const IMAGES: u64 = 200;

fn settings() -> Settings {
    Settings { directory: "disk".into(), cache_bytes: 1 << 20, processed_ids_ms: PROCESSED_IDS_MS }
}

fn open_disk(disk: &SimulatedDisk, tick_ms: u64) -> Result<Opened, OpenError> {
    open_simulated(disk, &settings(), Now { tick_ms, wall_ms: 1_000_000 + tick_ms })
}

fn new_disk() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    create_simulated(&disk, &settings(), 7).unwrap();
    disk
}

/// Works until the power goes, and gives back what may be durable then: one model, or two if an append was under way.
fn work(driver: &mut Driver, random: &mut Random) -> Vec<Model> {
    loop {
        match driver.step(random.step()) {
            Ok(()) => {}
            Err(Stopped::Append(after)) => return vec![driver.durable.clone(), *after],
            Err(Stopped::Checkpoint) => return vec![driver.durable.clone()],
        }
        if random.below(16) == 0 {
            driver.check_reads();
        }
    }
}

/// Which of the models the store holds; panics with the last comparison if it is none.
fn settle(store: Opened, candidates: Vec<Model>, tick_ms: u64) -> Driver {
    let place = candidates.iter().position(|model| holds(&store, model)).unwrap_or(0);
    let driver = Driver::of(store, candidates.into_iter().nth(place).unwrap(), tick_ms);
    driver.check_recovered();
    driver.check_reads();
    driver
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|number| number.parse().unwrap_or_else(|_| panic!("{variable}={number} is no number")))
}

#[test]
fn after_power_loss_every_appended_batch_is_there_and_none_by_half() {
    let wanted = number_from("PELTON_POWER_IMAGES").unwrap_or(IMAGES);
    let seed = number_from("PELTON_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20 | wanted);
    println!("seed {seed} (PELTON_SEED={seed} PELTON_POWER_IMAGES={wanted} runs it again)");
    let mut random = Random(seed);
    let (mut lost_in_open, mut in_flight_kept, mut in_flight_lost, mut parked) = (0, 0, 0, 0);
    let mut images = 0;
    // Until each kind of image was there: a batch in flight mostly goes, and stays if only the last sync is missing.
    while images < wanted || in_flight_kept == 0 {
        let mut disk = new_disk();
        let mut driver = Driver::new(open_disk(&disk, 0).unwrap());
        for life in 1..=20 {
            disk.fail_after(1 + random.below(400));
            let candidates = work(&mut driver, &mut random);
            drop(driver);
            // Opening may be interrupted, too, and again.
            let store = loop {
                images += 1;
                disk.power_loss(|below| random.below(below));
                if random.below(3) == 0 {
                    disk.fail_after(1 + random.below(30));
                }
                match open_disk(&disk, life * 100_000) {
                    Ok(store) => break store,
                    Err(error) => assert!(disk.has_failed(), "a store that lost power can't be opened: {error}"),
                }
                lost_in_open += 1;
            };
            let in_flight = candidates.len() == 2;
            let before = candidates[0].clone();
            driver = settle(store, candidates, life * 100_000);
            parked += driver.durable.parked.len();
            if in_flight && before != driver.durable {
                in_flight_kept += 1;
            } else if in_flight {
                in_flight_lost += 1;
            }
        }
    }
    println!(
        "{images} images, {lost_in_open} while opening, in flight: {in_flight_kept} kept, {in_flight_lost} lost; {parked} parked rows in them"
    );
    assert!(in_flight_lost > 0 && lost_in_open > 0, "the images are not as different as they should be");
    assert!(parked > 0, "nothing was parked");
}

#[test]
fn after_an_i_o_error_no_append_succeeds_and_a_restart_finds_what_was_settled() {
    for operation in 1..=60 {
        let mut disk = new_disk();
        let mut driver = Driver::new(open_disk(&disk, 0).unwrap());
        disk.fail_after(operation);
        let mut random = Random(operation);
        let candidates = work(&mut driver, &mut random);
        if candidates.len() == 2 {
            let later = driver.store.log.append(&Default::default());
            assert!(matches!(later, Err(AppendError::AfterError)), "{later:?}");
        } else {
            let later = driver.store.checkpointer.run(driver.now());
            assert!(later.is_err(), "{later:?}");
        }
        driver.check_reads();
        drop(driver);
        // The operating system lives on: what was written is seen, synced or not.
        disk.process_death();
        settle(open_disk(&disk, 100_000).unwrap(), candidates, 100_000);
    }
}

#[test]
fn what_a_start_has_found_stays_when_the_power_goes_after_it() {
    let mut in_flight_kept = 0;
    for operation in 1..=200 {
        let mut disk = new_disk();
        let mut driver = Driver::new(open_disk(&disk, 0).unwrap());
        disk.fail_after(operation);
        let candidates = work(&mut driver, &mut Random(operation));
        drop(driver);
        // A record that was written and never synced is seen by the next process.
        disk.process_death();
        let before = candidates[0].clone();
        let driver = settle(open_disk(&disk, 100_000).unwrap(), candidates, 100_000);
        let found = driver.durable.clone();
        in_flight_kept += u32::from(found != before);
        drop(driver);
        disk.power_loss(|_| 0);
        settle(open_disk(&disk, 200_000).unwrap(), vec![found], 200_000);
    }
    assert!(in_flight_kept > 0, "no append was ended between its write and its sync");
}

#[test]
fn a_process_that_dies_loses_nothing_until_the_power_goes() {
    let mut random = Random(1);
    let mut disk = new_disk();
    let mut driver = Driver::new(open_disk(&disk, 0).unwrap());
    for life in 1..=60 {
        for _ in 0..random.below(40) {
            driver.step(random.step()).unwrap();
        }
        let durable = driver.durable.clone();
        let mut dead = driver;
        if life % 3 == 0 {
            disk.power_loss(|below| random.below(below));
        } else {
            disk.process_death();
        }
        driver = settle(open_disk(&disk, life * 100_000).unwrap(), vec![durable], life * 100_000);
        // What is left of the dead process may run into its end now, and must not touch the files of the living.
        assert!(dead.store.log.append(&Default::default()).is_err());
        drop(dead);
    }
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    let run = |seed| {
        let mut random = Random(seed);
        let mut disk = new_disk();
        let mut driver = Driver::new(open_disk(&disk, 0).unwrap());
        let mut seen = Vec::new();
        for life in 1..=6 {
            disk.fail_after(1 + random.below(400));
            let candidates = work(&mut driver, &mut random);
            drop(driver);
            seen.push((disk.operations(), disk.fingerprint()));
            disk.power_loss(|below| random.below(below));
            seen.push((disk.operations(), disk.fingerprint()));
            driver = settle(open_disk(&disk, life * 100_000).unwrap(), candidates, life * 100_000);
        }
        seen
    };
    for seed in 0..5 {
        // Each thread has hash maps with seeds of its own, were there any.
        let other = std::thread::spawn(move || run(seed)).join().unwrap();
        assert_eq!(run(seed), other, "seed {seed}");
    }
    assert_ne!(run(1), run(2));
}

#[test]
fn a_store_that_was_closed_opens_without_a_repair() {
    let disk = new_disk();
    let mut driver = Driver::new(open_disk(&disk, 0).unwrap());
    for number in 0..200_u64 {
        driver.step(Random(number).step()).unwrap();
    }
    drop(driver);
    let [_, view] = disk.files();
    // redb refuses to open a file for reading only that a crash left.
    assert!(redb::Builder::new().open_read_only_with_backend(view).is_ok());
}
