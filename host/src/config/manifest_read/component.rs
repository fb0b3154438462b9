//! `component`, and how often its tag is looked at again.

use crate::config::component::{ComponentSource, FORMS};
use crate::config::reader::{Context, Section};
use crate::config::report::Code;

/// Polling more often than this would be an attack on the registry.
const POLL_MS_MIN: u64 = 1_000;
const POLL_MS_MAX: u64 = 86_400_000;

/// The source, if it could be read, and the time between two looks at its tag; 0: it is not looked at again.
pub(super) fn component(context: &Context<'_>, root: &mut Section<'_, '_>) -> (Option<ComponentSource>, u64) {
    let given = root.required_text("component", "add component = \"FILE.wasm\" above the first section");
    let poll = root.number("component_poll_ms", 0..=POLL_MS_MAX, "milliseconds");
    let source = given.and_then(|given| {
        ComponentSource::parse(&given.value, context.file)
            .map_err(|flaw| {
                let message = format!("\"component\" can't be \"{}\": {flaw}", given.value);
                context.report(Code::InvalidComponent, given.offset, message, FORMS);
            })
            .ok()
    });
    let Some(poll) = poll.filter(|poll| poll.value > 0) else { return (source, 0) };
    if poll.value < POLL_MS_MIN {
        let message =
            format!("\"component_poll_ms\" must be 0 or from {POLL_MS_MIN} to {POLL_MS_MAX}; it is {}", poll.value);
        context.report(
            Code::OutOfRange,
            poll.offset,
            message,
            "write 0 to look at the tag only when the consumer is deployed",
        );
    }
    if let Some(source) = source.as_ref().filter(|source| !source.is_tag()) {
        let message = format!("\"component_poll_ms\" has no effect on {source}: only a tag of a registry is polled");
        context.report(
            Code::Conflict,
            poll.offset,
            message,
            "remove it: files and object stores are watched, and a digest never changes",
        );
    }
    (source, poll.value)
}
