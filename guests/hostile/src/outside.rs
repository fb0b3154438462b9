//! Ways to reach out of the sandbox, or to flood what leads out of it.

use std::time::Duration;

use pelton_sdk::{Result, log};

/// 4 MiB to each of the standard streams.
pub(crate) fn flood_stdout() -> Result {
    let line = "x".repeat(1023);
    for _ in 0..4096 {
        println!("{line}");
        eprintln!("{line}");
    }
    Ok(())
}

/// 10,000 lines with a field each.
pub(crate) fn flood_log() -> Result {
    for n in 0..10_000 {
        log::info("one of many lines", &[("n", &n)]);
    }
    Ok(())
}

pub(crate) fn sleep_forever() -> Result {
    loop {
        std::thread::sleep(Duration::from_secs(u64::MAX / 1_000_000_000));
    }
}

pub(crate) fn open_file() -> Result {
    std::fs::read("/etc/passwd")?;
    Ok(())
}

pub(crate) fn create_file() -> Result {
    std::fs::write("hostile.txt", "was here")?;
    Ok(())
}
