//! Why an attempt ended before its handler returned: wasmtime's errors put into the core's words.

use pelton_core::message::Failure;
use pelton_core::transaction::{CallError, ReadError};
use wasmtime::{Trap, WasmBacktrace};

use super::attempt::Attempt;
use super::growth::Refused;

/// A reason that is longer is cut, in bytes.
const REASON_BYTES_MAX: usize = 4 << 10;
/// Frames of a trap that are named.
const FRAMES_MAX: usize = 3;
/// A function's name that is longer is cut, in bytes.
const FRAME_NAME_BYTES_MAX: usize = 120;

/// A call of WASI that ends the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Halt {
    /// It would hold an executor thread.
    #[error("a plug-in can't sleep or wait: return `retry` or `park` with a delay instead")]
    Sleep,
    /// `wasi:cli/exit`.
    #[error("the plug-in exited with status {0}: a handler has to return")]
    Exit(u8),
    /// More random bytes in one call than the host makes.
    #[error("asked for {0} random bytes in one call; at most {RANDOM_BYTES_MAX} can be had")]
    Random(u64),
}

/// Random bytes of one call.
pub(super) const RANDOM_BYTES_MAX: u64 = 64 << 10;
/// Handles to resources (WASI's streams and pollables, and a component's own) that an attempt may hold at once.
pub(super) const HANDLES_MAX: usize = 10_000;

/// The failure behind an error that came out of an instance.
///
/// # Errors
/// [`ReadError`] if it was the store and not the plug-in that failed.
pub(super) fn failure(error: &wasmtime::Error, attempt: &Attempt) -> Result<Failure, ReadError> {
    match error.downcast_ref::<CallError>() {
        Some(CallError::Read(read)) => return Err(read.clone()),
        Some(CallError::Limit(passed)) => return Ok(limit(passed.to_string())),
        None => {}
    }
    if let Some(halt) = error.downcast_ref::<Halt>() {
        return Ok(Failure::Trap { reason: halt.to_string().into() });
    }
    if let Some(Trap::Interrupt) = error.downcast_ref::<Trap>() {
        return Ok(Failure::Timeout { limit_ms: attempt.limits.timeout_ms });
    }
    if says(error, "store handle limit exceeded") {
        return Ok(limit(format!("held more than {HANDLES_MAX} handles to resources at once")));
    }
    if says(error, "fuel allocated for hostcalls has been exhausted") {
        let max = attempt.limits.call_bytes_max;
        return Ok(limit(format!("passed more than {max} bytes to the host in one call")));
    }
    Ok(match attempt.growth.refused() {
        Some(Refused::Memory(max)) => limit(format!("passed limits.memory_bytes = {max}")),
        Some(Refused::Table(max)) => limit(format!("passed {max} elements in a table")),
        None => Failure::Trap { reason: cut(&trap(error, attempt)).into() },
    })
}

fn limit(reason: String) -> Failure {
    Failure::Limit { reason: reason.into() }
}

/// For the errors of wasmtime whose types are private, so that only their text tells.
fn says(error: &wasmtime::Error, text: &str) -> bool {
    error.chain().any(|cause| cause.to_string().contains(text))
}

/// What trapped, where, and what the plug-in said about it on stderr.
fn trap(error: &wasmtime::Error, attempt: &Attempt) -> String {
    let mut text = root(error);
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        let names = backtrace.frames().iter().take(FRAMES_MAX).map(|frame| match frame.func_name() {
            Some(name) => cut_to(name, FRAME_NAME_BYTES_MAX).to_owned(),
            None => format!("function {}", frame.func_index()),
        });
        let names: Vec<_> = names.collect();
        if !names.is_empty() {
            text = format!("{text}, in {}", names.join(", called by "));
        }
    }
    match attempt.lines.stderr_tail() {
        Some(stderr) => format!("{text}; stderr: {stderr}"),
        None => text,
    }
}

/// The innermost cause of an error, on one line.
fn root(error: &wasmtime::Error) -> String {
    let text = error.root_cause().to_string();
    text.trim().trim_start_matches("wasm trap: ").replace('\n', " ")
}

/// An error with its causes on one line, without the backtraces that wasmtime adds.
pub(super) fn chain(error: &wasmtime::Error) -> String {
    let causes = error.chain().map(|cause| cause.to_string().trim().replace('\n', " "));
    let causes = causes.filter(|cause| !cause.starts_with("error while executing at wasm backtrace"));
    let mut text = Vec::new();
    for cause in causes {
        if text.last() != Some(&cause) {
            text.push(cause);
        }
    }
    cut(&text.join(": ")).to_owned()
}

/// The text, cut at a character's boundary to what a reason may hold.
pub(super) fn cut(text: &str) -> &str {
    cut_to(text, REASON_BYTES_MAX)
}

fn cut_to(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let long = "ü".repeat(REASON_BYTES_MAX);
        assert_eq!(cut(&long).len(), REASON_BYTES_MAX);
        assert_eq!(cut_to("aüb", 2), "a");
        assert_eq!(cut("short"), "short");
    }
}
