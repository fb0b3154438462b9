//! State entries as JSON, in both directions: `{"KEY": VALUE, …}`.
//!
//! An entry whose bytes are JSON is shown and given as that JSON. What else an entry can be is an object whose names begin with `$`:
//! `{"$text": "…"}`, `{"$base64": "…"}`, `{"$value": JSON}`, each with or without `"$expires_at_ms": N`. What is shown can be given again, and is
//! the same bytes then, but for white space.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use pelton_core::effects::{Space, StateValue};
use serde::Serialize;
use serde_json::value::RawValue;

use super::memory::Memory;

/// Entries by their keys, each as its JSON.
pub(super) type Entries = BTreeMap<String, Box<RawValue>>;

const VALUE: &str = "$value";
const TEXT: &str = "$text";
const BASE_64: &str = "$base64";
const EXPIRES: &str = "$expires_at_ms";

/// What a payload or a value is, shown as openly as it can be.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Shown {
    Json(Box<RawValue>),
    Text(String),
    Base64(String),
}

impl Shown {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(bytes) else { return Self::Base64(BASE64.encode(bytes)) };
        match serde_json::from_str::<Box<RawValue>>(text) {
            Ok(json) => Self::Json(json),
            Err(_) => Self::Text(text.to_owned()),
        }
    }
}

impl Shown {
    /// With the name of its form, as messages and events have it.
    pub(super) fn named(self) -> (&'static str, Self) {
        let name = match &self {
            Self::Json(_) => "json",
            Self::Text(_) => "payload",
            Self::Base64(_) => "payload_base64",
        };
        (name, self)
    }
}

pub(super) fn to_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// The bytes of a base64 text.
pub(super) fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    BASE64.decode(text).map_err(|error| format!("is not base64: {error}"))
}

/// The entries of the plug-in that can be read at this time.
pub(super) fn show(memory: &Memory, now_ms: u64) -> Entries {
    memory.live(Space::User, now_ms).filter_map(|(key, value)| Some((key.to_owned(), show_one(value)?))).collect()
}

fn show_one(value: &StateValue) -> Option<Box<RawValue>> {
    let shown = Shown::of(&value.bytes);
    let name = match &shown {
        Shown::Json(json) if value.expires_at_ms.is_none() && special(json.get()).is_none() => {
            return Some(json.clone());
        }
        Shown::Json(_) => VALUE,
        Shown::Text(_) => TEXT,
        Shown::Base64(_) => BASE_64,
    };
    let mut object = BTreeMap::from([(name, serde_json::value::to_raw_value(&shown).ok()?)]);
    if let Some(at) = value.expires_at_ms {
        object.insert(EXPIRES, serde_json::value::to_raw_value(&at).ok()?);
    }
    serde_json::value::to_raw_value(&object).ok()
}

/// The members of an object that has one whose name begins with `$`.
fn special(json: &str) -> Option<BTreeMap<String, Box<RawValue>>> {
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).ok()?;
    members.keys().any(|name| name.starts_with('$')).then_some(members)
}

/// What an entry's JSON stands for.
///
/// # Errors
/// In words that follow its key.
pub(super) fn read(json: &str) -> Result<StateValue, String> {
    let Some(mut members) = special(json) else {
        return Ok(StateValue { bytes: compact(json).into(), expires_at_ms: None });
    };
    let expires_at_ms = match members.remove(EXPIRES) {
        None => None,
        Some(at) => {
            let at: u64 = serde_json::from_str(at.get()).map_err(|_| format!("{EXPIRES} is no whole number"))?;
            Some(at)
        }
    };
    let text = |json: &RawValue, name: &str| {
        serde_json::from_str::<String>(json.get()).map_err(|_| format!("{name} must be a string"))
    };
    let members: Vec<(&str, &RawValue)> = members.iter().map(|(name, value)| (name.as_str(), &**value)).collect();
    let bytes: Bytes = match members.as_slice() {
        [(VALUE, json)] => compact(json.get()).into(),
        [(TEXT, json)] => text(json, TEXT)?.into(),
        [(BASE_64, json)] => from_base64(&text(json, BASE_64)?).map_err(|flaw| format!("{BASE_64} {flaw}"))?.into(),
        _ => {
            let forms = format!("one of {VALUE}, {TEXT} and {BASE_64}, with or without {EXPIRES}");
            return Err(format!("an object with names that begin with $ has {forms}, and nothing else"));
        }
    };
    Ok(StateValue { bytes, expires_at_ms })
}

/// The same JSON without white space between its parts.
pub(super) fn compact(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let (mut inside, mut escaped) = (false, false);
    for c in json.chars() {
        if inside || !c.is_ascii_whitespace() {
            text.push(c);
        }
        match (inside, c) {
            (true, '\\') => escaped = !escaped,
            (_, '"') if !escaped => inside = !inside,
            _ => escaped = false,
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8], expires_at_ms: Option<u64>) -> StateValue {
        StateValue { bytes: Bytes::copy_from_slice(bytes), expires_at_ms }
    }

    #[test]
    fn what_is_shown_of_an_entry_can_be_given_again() {
        for (value, shown) in [
            (value(b"3", None), "3"),
            (value(b"{\"z\":1.10,\"a\":18446744073709551616}", None), "{\"z\":1.10,\"a\":18446744073709551616}"),
            (value(b"3", Some(9)), "{\"$expires_at_ms\":9,\"$value\":3}"),
            (value(b"plain", None), "{\"$text\":\"plain\"}"),
            (value(b"", None), "{\"$text\":\"\"}"),
            (value(b"\xff\x00", None), "{\"$base64\":\"/wA=\"}"),
            (value(b"{\"$text\":1}", None), "{\"$value\":{\"$text\":1}}"),
        ] {
            let json = show_one(&value).unwrap();
            assert_eq!(json.get(), shown);
            assert_eq!(read(json.get()).unwrap(), value, "{shown}");
        }
    }

    #[test]
    fn white_space_between_the_parts_goes_and_what_is_in_strings_stays() {
        assert_eq!(
            compact("{ \"a b\" : \"\\\" c \\\\\" ,\n \"d\": [ 1, 2 ] }"),
            "{\"a b\":\"\\\" c \\\\\",\"d\":[1,2]}"
        );
    }

    #[test]
    fn an_object_that_is_no_form_of_an_entry_is_refused_by_name() {
        for (json, part) in [
            ("{\"$base64\":\"?\"}", "$base64 is not base64"),
            ("{\"$base64\":1}", "$base64 must be a string"),
            ("{\"$text\":\"a\",\"$value\":1}", "nothing else"),
            ("{\"$txt\":\"a\"}", "$text"),
            ("{\"$text\":\"a\",\"$expires_at_ms\":-1}", "$expires_at_ms is no whole number"),
        ] {
            let flaw = read(json).unwrap_err();
            assert!(flaw.contains(part), "{json}: {flaw}");
        }
    }
}
