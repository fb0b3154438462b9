//! How the kernel schedules the host's threads.
//!
//! A message crosses four threads, and whoever hands it on wakes the next. By default a thread that is woken may take the core from the one that woke it: on cores that are
//! busy each message then costs several switches between threads that each do a few microseconds of work. Under `SCHED_BATCH` a thread that is woken waits until a
//! core is free or a slice is over, and finds more to do at once. On cores that are idle nothing changes.

use rustix::process::{getpriority_process, setpriority_process};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};

/// From here on this thread, and those that it starts, take no core from others when they are woken. Where the kernel refuses, the host is merely slower under load.
pub fn never_preempt() {
    let niceness = getpriority_process(None);
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Os(Default::default()), policy);
    // That also made the thread as nice as any other; whoever started the host may have wanted it nicer.
    let kept = niceness.and_then(|niceness| setpriority_process(None, niceness));
    tracing::debug!(policy = ?set, niceness = ?kept, "asked the kernel that no thread preempts another");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use super::*;

    /// Niceness and policy of this thread, as the kernel tells them: fields 19 and 41 of proc_pid_stat(5), counted behind the name in parentheses.
    fn scheduled() -> (i32, u32) {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[16].parse().unwrap(), fields[38].parse().unwrap())
    }

    #[test]
    fn threads_do_not_preempt_and_stay_as_nice_as_they_were() {
        let batch = 3;
        let nice = || {
            setpriority_process(None, 3).unwrap();
            never_preempt();
            (scheduled(), thread::spawn(scheduled).join().unwrap())
        };
        // On a thread of its own: other tests go on as they are.
        assert_eq!(thread::spawn(nice).join().unwrap(), ((3, batch), (3, batch)));
    }
}
