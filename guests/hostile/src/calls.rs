//! Host calls that pass a limit, that are not what they should be, or that reach for what belongs to others.

use std::hint::black_box;

use pelton_sdk::outbox::{self, Event};
use pelton_sdk::{Result, idempotency, state};

/// Entries that one `fill` sets: with the count and the event it stays within what an attempt may write.
const FILL: u64 = 990;

pub(crate) fn list_too_long() -> Result {
    state::set_bytes("list", &vec![b'x'; 8 << 20]);
    Ok(())
}

pub(crate) fn list_outside() -> Result {
    let inside = black_box([0_u8; 16]);
    // SAFETY: none. The slice is longer than the memory; the host has to notice, and nothing here reads it.
    let lie = unsafe { core::slice::from_raw_parts(inside.as_ptr(), 0x7fff_0000) };
    state::set_bytes("list", lie);
    Ok(())
}

pub(crate) fn many_headers() -> Result {
    let event = (0..200_000).fold(Event::bytes("out.hostile.headers", "x"), |event, _| event.header("a", "b"));
    event.emit()?;
    Ok(())
}

pub(crate) fn invalid_utf8() -> Result {
    // SAFETY: none. The string is not UTF-8; the host has to notice, and nothing here looks into it.
    let key = unsafe { String::from_utf8_unchecked(black_box(vec![0xff, 0xfe, 0xc0, 0x80])) };
    state::set_bytes(&key, b"x");
    Ok(())
}

pub(crate) fn million_puts() -> Result {
    (0..1_000_000).for_each(|n| state::set_bytes(&format!("many/{n}"), b"x"));
    Ok(())
}

pub(crate) fn million_emits() -> Result {
    for n in 0..1_000_000 {
        outbox::emit("out.hostile.many", &n)?;
    }
    Ok(())
}

pub(crate) fn million_gets() -> Result {
    (0..1_000_000).for_each(|n| drop(black_box(state::get_bytes(&format!("many/{n}")))));
    Ok(())
}

pub(crate) fn million_marks() -> Result {
    (0..1_000_000).for_each(|n| idempotency::mark(&format!("many/{n}")));
    Ok(())
}

pub(crate) fn fill(applied: u64) -> Result {
    (0..FILL).for_each(|n| state::set_bytes(&format!("fill/{applied}/{n:03}"), b"x"));
    Ok(())
}

pub(crate) fn scan() -> Result {
    loop {
        black_box(state::list("").count());
    }
}

pub(crate) fn big_value() -> Result {
    state::set_bytes("big", &vec![b'x'; (1 << 20) + 1]);
    Ok(())
}

pub(crate) fn big_key() -> Result {
    state::set_bytes(&"k".repeat(513), b"x");
    Ok(())
}

pub(crate) fn big_event() -> Result {
    Event::bytes("out.hostile.big", vec![b'x'; (960 << 10) + 1]).emit()?;
    Ok(())
}

pub(crate) fn crlf_header() -> Result {
    Event::bytes("out.hostile.header", "x").header("good-name", "bad\r\nNats-Msg-Id: forged").emit()?;
    Ok(())
}

pub(crate) fn emit(subject: &str) -> Result {
    outbox::emit(subject, &0)?;
    Ok(())
}

/// What was found under keys that are not this consumer's. The keys imitate the ways in which a store may put consumer, ordering key and
/// key together: separators, lengths and numbers in front, parents, bytes that sort before and behind everything.
pub(crate) fn reach_for_others() -> Vec<String> {
    let own = |key: &str| key == "applied" || key.starts_with("crafted/");
    let mut found = Vec::new();
    let keys =
        ["ledger", "sound-1/ledger", "sound-1.ledger", "sound-1\0ledger", "../sound-1/ledger", "/sound-1/a/ledger"];
    let raw = [
        "\0\0\0\u{1}\u{1}\0\0\0\u{c}crafted-keys\0ledger",
        "\u{1}\0\0\0\u{1}",
        "\0",
        "\u{10ffff}",
        "",
        " ",
        "%00",
        "a\u{1}b",
    ];
    for key in keys.into_iter().chain(raw) {
        found.extend(state::get_bytes(key).map(|_| format!("get {key:?}")));
        for entry in state::list(key).filter(|entry| !own(&entry.key)) {
            found.push(format!("list {key:?}: {:?}", entry.key));
        }
        for after in ["", "\0", "\u{10ffff}", "applied", "../"] {
            let page = state::page("", Some(after), 1_000);
            let foreign = page.entries.iter().filter(|entry| !own(&entry.key));
            found.extend(foreign.map(|entry| format!("page behind {after:?}: {:?}", entry.key)));
        }
        found.extend(idempotency::seen(key).then(|| format!("mark {key:?}")));
    }
    // All that it can name is its own: what this overwrites and deletes is nobody else's.
    for key in keys.into_iter().chain(raw) {
        state::set_bytes(key, b"overwritten");
        state::delete(key);
    }
    state::set_bytes("crafted/ledger", b"overwritten");
    found
}
