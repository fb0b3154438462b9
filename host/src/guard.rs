//! Tells the driver when a thread that the host can't go on without has panicked: else its work would be missing without a word.

use flume::Sender;

use crate::driver::Note;

/// Lives as long as a thread's work. Dropped by a panic, it ends the host.
pub struct PanicGuard {
    thread: &'static str,
    notes: Sender<Note>,
}

impl PanicGuard {
    /// A guard for the thread of this name.
    #[must_use]
    pub fn new(thread: &'static str, notes: Sender<Note>) -> Self {
        Self { thread, notes }
    }
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = anyhow::anyhow!("the {} thread panicked; see standard error for where", self.thread);
            // Without a driver the host is on its way out already.
            _ = self.notes.send(Note::Fatal(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_fatal_and_an_ordinary_end_is_not() {
        let (notes, received) = flume::unbounded();
        drop(PanicGuard::new("quiet", notes.clone()));
        let broken = std::thread::spawn(move || {
            let _guard = PanicGuard::new("broken", notes);
            panic!("on purpose");
        });
        assert!(broken.join().is_err());
        let said: Vec<_> = received.iter().collect();
        assert!(matches!(said.as_slice(), [Note::Fatal(error)] if error.to_string().contains("broken")));
    }
}
