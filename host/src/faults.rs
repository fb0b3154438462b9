//! Crash points and broken guarantees for the tests. Without the `fault-injection` feature every function here is empty.

use pelton_core::breaks::Breaks;

/// Named moments at which a test can have the process die, in the order of a message's life.
pub const POINTS: [&str; 8] = [
    "before-commit",
    "after-commit",
    "before-settle",
    "after-settle",
    "before-publish",
    "after-publish",
    "after-puback",
    "after-row-removal",
];

/// Dies here if `PELTON_CRASH_AT=point:n` names this point and this is its n-th passing. No clean-up: the same as a SIGKILL.
#[cfg(feature = "fault-injection")]
pub fn point(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let text = std::env::var("PELTON_CRASH_AT").ok()?;
        let (point, count) = text.split_once(':').unwrap_or((&text, "1"));
        let known = POINTS.contains(&point);
        let count = count.parse::<u64>().ok().filter(|count| known && *count > 0);
        if count.is_none() {
            tracing::error!(text, "PELTON_CRASH_AT is not POINT:COUNT");
            std::process::exit(2);
        }
        Some((point.to_owned(), AtomicU64::new(count?)))
    });
    if let Some((wanted, left)) = &*WANTED
        && wanted == name
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        // A process does not die in all threads at the same instruction: the others get this far ahead of the one that stands here.
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::process::abort();
    }
}

/// Does nothing in a normal build.
#[cfg(not(feature = "fault-injection"))]
pub const fn point(_: &str) {}

/// The guarantee that `PELTON_BREAK` names.
///
/// # Errors
/// If there is none of this name.
#[cfg(feature = "fault-injection")]
pub fn breaks() -> anyhow::Result<Breaks> {
    use pelton_core::breaks::Break;

    let Ok(name) = std::env::var("PELTON_BREAK") else { return Ok(Breaks::default()) };
    let Some((_, broken)) = Break::ALL.into_iter().find(|(known, _)| *known == name) else {
        let known: Vec<_> = Break::ALL.iter().map(|(known, _)| *known).collect();
        anyhow::bail!("PELTON_BREAK={name} is none of {}", known.join(", "));
    };
    tracing::warn!(name, "a guarantee is broken on purpose");
    Ok(Breaks::one(broken))
}

/// No guarantee is broken in a normal build.
///
/// # Errors
/// Never.
#[cfg(not(feature = "fault-injection"))]
pub fn breaks() -> anyhow::Result<Breaks> {
    Ok(Breaks::default())
}
