//! What bounds a goal that was missed, said with the figures of the same run. What was tried to reach it stands in `host/ARCHITECTURE.md`, *Performance*.

use super::compare::{self, BY_HAND, FLOOR, FLOOR_WITH_IDS, NATIVE, case_name};
use super::figures::{CPU_US, P999_US, PEAK_MB, RATE, RESIDENT_MB, SERVER_CPU_US, WRITTEN_BYTES};
use super::goals::Figures;
use super::latency::{self, APPEND_P99_US, APPEND_US, BASE_US};
use super::pelton::Isolation;
use super::report::number;
use super::{attempt, idle, keys, swap};

/// A figure of the main work's cases.
fn work(figures: &Figures<'_>, case: &str, figure: &str) -> Option<f64> {
    figures.of(compare::BENCH, case, figure)
}

/// Both cores are busy, so the floor's share of time is what there is to divide.
pub(super) fn of_floor(figures: &Figures<'_>, isolation: Isolation, share: f64) -> Option<String> {
    let of = |case: &str| Some((work(figures, case, CPU_US)?, work(figures, case, SERVER_CPU_US)?));
    let ((client, broker), (_, broker_ids)) = (of(FLOOR)?, of(FLOOR_WITH_IDS)?);
    let (host, server) = of(&case_name("uniform", isolation))?;
    let there_is = (client + broker) / share;
    Some(format!(
        "The cores are all that there is to divide: the floor takes {} µs of them for a message ({} the client, {} nats-server), so {} of its rate leaves {}. Of these nats-server takes {} under Pelton, whose events have ids ({} for the floor with ids), which leaves {} to a host that takes {}; with a native handler it takes {}",
        number(client + broker),
        number(client),
        number(broker),
        number(share),
        number(there_is),
        number(server),
        number(broker_ids),
        number(there_is - server),
        number(host),
        number(work(figures, NATIVE, CPU_US)?),
    ))
}

/// What the sandbox costs, by itself.
pub(super) fn of_native(figures: &Figures<'_>, isolation: Isolation) -> Option<String> {
    let (host, native) = (work(figures, &case_name("uniform", isolation), CPU_US)?, work(figures, NATIVE, CPU_US)?);
    Some(format!(
        "The host takes {} µs for a message with a native handler and {} with components: the difference is the call, its copies in and out, and three host calls",
        number(native),
        number(host)
    ))
}

/// The disk against the processor.
pub(super) fn of_by_hand(figures: &Figures<'_>) -> Option<String> {
    let case = case_name("uniform", Isolation::Fresh);
    let (host, server) = (work(figures, &case, CPU_US)?, work(figures, &case, SERVER_CPU_US)?);
    Some(format!(
        "Hand-written code waits for two syncs of the disk for each message, {} µs in all, and Pelton for the processor, {} µs: the ratio is that of this machine's disk to its cores",
        number(1e6 / work(figures, BY_HAND, RATE)?),
        number(host + server)
    ))
}

/// What the machine gives a second thread.
pub(super) fn of_two_threads(figures: &Figures<'_>) -> Option<String> {
    let of = |figure: &str| figures.case(attempt::BENCH, attempt::CASE)?.figures.get(figure);
    let (attempts, plain) = (of(attempt::TWO_THREADS)?, of(attempt::PLAIN_TWO_THREADS)?);
    Some(format!(
        "From run to run {} to {}. Two threads that only compute got {} to {} times as much done as one in the same runs",
        number(attempts.min),
        number(attempts.max),
        number(plain.min),
        number(plain.max)
    ))
}

/// What skewed keys cost more.
pub(super) fn of_zipf(figures: &Figures<'_>) -> Option<String> {
    let both = |work_name: &str| {
        let case = case_name(work_name, Isolation::Fresh);
        let rates = figures.case(compare::BENCH, &case)?.figures.get(RATE)?;
        let cpu = work(figures, &case, CPU_US)? + work(figures, &case, SERVER_CPU_US)?;
        Some(format!(
            "{} to {} messages/s from run to run, at {} µs of host and server",
            number(rates.min),
            number(rates.max),
            number(cpu)
        ))
    };
    Some(format!("Skewed keys: {}. Uniform ones: {}", both("zipf")?, both("uniform")?))
}

/// Each key's page, on both sides.
pub(super) fn of_many_keys(figures: &Figures<'_>) -> Option<String> {
    let both = |figure: &str| {
        let of = |case: &str| figures.of(keys::BENCH, case, figure).map(number);
        Some(format!("{} to {}", of("1000")?, of("1000000")?))
    };
    Some(format!(
        "Each message meets a key that nothing else has touched: from 1,000 to 1,000,000 keys nats-server goes from {} µs for a message, for it keeps each key's subject, the host from {} µs, and what it writes from {} bytes, for each state is a page of the view that is read, changed and written",
        both(SERVER_CPU_US)?,
        both(CPU_US)?,
        both(WRITTEN_BYTES)?
    ))
}

/// What is not the plug-in's.
pub(super) fn of_cpu(figures: &Figures<'_>, isolation: Isolation) -> Option<String> {
    let case = figures.case(compare::BENCH, &case_name("uniform", isolation))?.figures.get(CPU_US)?;
    Some(format!(
        "From run to run {} to {} µs. With a native handler the host takes {}, and bare async-nats {} for reading and publishing the same",
        number(case.min),
        number(case.max),
        number(work(figures, NATIVE, CPU_US)?),
        number(work(figures, FLOOR_WITH_IDS, CPU_US)?)
    ))
}

/// What a lane waits for anyway.
pub(super) fn of_swaps(figures: &Figures<'_>) -> Option<String> {
    let swapping = |figure: &str| figures.of(swap::BENCH, swap::SWAPPING, figure).map(number);
    Some(format!(
        "The same load without any swap has pauses of up to {} ms, those of the disk and of processes that wait for a core. Half of the lanes paused for no more than {} ms at a swap",
        number(figures.of(swap::BENCH, swap::ALONE, swap::LONGEST_MS)?),
        swapping(swap::AT_SWAP_P50_MS)?
    ))
}

/// Of what the memory is, as far as settings bound it.
pub(super) fn of_peak(figures: &Figures<'_>) -> Option<String> {
    let peak = figures.case(compare::BENCH, &case_name("uniform", Isolation::Fresh))?.figures.get(PEAK_MB)?;
    Some(format!(
        "From run to run {} to {} MB. With {} idle consumers the host has {}; to that come what is cached of the view and the overlay, of up to 64 MiB each by the defaults of `[store]`, and the records that a checkpoint folds at once, 32 MiB of log",
        number(peak.min),
        number(peak.max),
        number(figures.of(idle::BENCH, idle::FEW, idle::CONSUMERS)?),
        number(figures.of(idle::BENCH, idle::FEW, RESIDENT_MB)?)
    ))
}

/// What one message waits for.
pub(super) fn of_latency(figures: &Figures<'_>, figure: &str) -> Option<String> {
    let of = |figure: &str| figures.case(latency::BENCH, Isolation::Fresh.name())?.figures.get(figure);
    let floor = |figure: &str| figures.of(latency::BENCH, latency::FLOOR, figure).map(number);
    let (latency, slowest) = (of(figure)?, of(P999_US)?);
    Some(format!(
        "From run to run {} to {} µs over a base of {}, and one of 1,000 takes {}; bare async-nats, which keeps nothing, takes {} and {} under this load. A message waits for the commit under way and then for its own, {} µs each when nothing else uses the disk and for one of 100 more than {}, and goes from thread to thread, each of which sleeps until then",
        number(latency.min),
        number(latency.max),
        number(of(BASE_US)?.median),
        number(slowest.median),
        floor(figure)?,
        floor(P999_US)?,
        number(of(APPEND_US)?.median),
        number(of(APPEND_P99_US)?.median)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::{Case, reading};

    fn case(name: &str, host: f64, server: f64) -> Case {
        Case::measured(compare::BENCH, name, "", &[reading([(CPU_US, host), (SERVER_CPU_US, server)])])
    }

    #[test]
    fn the_floor_leaves_what_the_server_does_not_take() {
        let cases = [
            case(FLOOR, 2.0, 5.0),
            case(FLOOR_WITH_IDS, 2.0, 6.0),
            case(NATIVE, 12.0, 9.0),
            case("uniform-reuse", 15.0, 9.0),
        ];
        let said = of_floor(&Figures(&cases), Isolation::Reuse, 0.5).unwrap();
        for part in
            ["the floor takes 7.00 µs", "0.50 of its rate leaves 14.0.", "leaves 5.00 to a host that takes 15.0"]
        {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn nothing_is_said_of_what_was_not_measured() {
        let figures = Figures(&[]);
        let said = [
            of_floor(&figures, Isolation::Fresh, 0.5),
            of_native(&figures, Isolation::Fresh),
            of_by_hand(&figures),
            of_many_keys(&figures),
            of_cpu(&figures, Isolation::Fresh),
            of_peak(&figures),
            of_latency(&figures, P999_US),
            of_swaps(&figures),
            of_two_threads(&figures),
            of_zipf(&figures),
        ];
        assert!(said.iter().all(Option::is_none), "{said:?}");
    }
}
