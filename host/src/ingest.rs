//! From a delivery to a message: finds its ordering key, its id and the version of its entity, and checks that the payload is what it was
//! promised to be.
//!
//! Pure, and on the path of every message: a payload is parsed at most once, and only if the manifest looks into it. What can't be
//! read becomes a message all the same, so that it can be kept as a dead letter.

use std::fmt;
use std::sync::Arc;

use pelton_core::grants;
use pelton_core::ids::IdHash;
use pelton_core::message::Message;
use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use serde_json::Deserializer as Parser;
use serde_json::value::RawValue;

use crate::config::{IdSource, JsonPointer, Key, Manifest, Payload, VersionSource};

/// Longest ordering key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Longest message id, in bytes.
pub const ID_BYTES_MAX: usize = 512;
/// The header by which publishers name their messages.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// How one consumer's deliveries become messages.
#[derive(Clone, Debug)]
pub struct Ingest {
    key: Key,
    id: IdSource,
    entity_version: Option<VersionSource>,
    payload: Payload,
    subjects: Box<[Box<str>]>,
}

impl Ingest {
    /// For a consumer by its manifest.
    #[must_use]
    pub fn new(manifest: &Manifest) -> Self {
        Self {
            key: manifest.key.clone(),
            id: manifest.id.clone(),
            entity_version: manifest.entity_version.clone(),
            payload: manifest.subscription.payload,
            subjects: manifest.subscription.subjects.iter().map(|subject| subject.as_str().into()).collect(),
        }
    }

    /// The pattern of the subscription that a subject matches.
    #[must_use]
    pub fn pattern_of(&self, subject: &str) -> &str {
        self.subjects.iter().find(|pattern| grants::subject_matches(pattern, subject)).map_or(">", Box::as_ref)
    }

    /// Reads what a delivery has given a message so far: its key, its id and the version of its entity are found anew. The text says why it can't be
    /// handed to a plug-in; its id is then `STREAM:SEQUENCE`, which needs no mark, and it has its key if that could be told.
    pub fn read(&self, message: Message, hash: &dyn Fn(&str) -> IdHash) -> (Message, Option<Box<str>>) {
        let mut message = Message { id: Box::default(), mark: None, key: None, entity_version: None, ..message };
        let mut unreadable = None;
        let mut found = Found::default();
        if self.looks_inside() {
            match find(&message.payload, self.pointers()) {
                Ok(there) => found = there,
                Err(error) => {
                    unreadable = Some(format!("the payload is not JSON: {error}").into());
                }
            }
        }
        match self.read_key(&message, found.key) {
            Ok(key) => message.key = key,
            Err(reason) => _ = unreadable.get_or_insert(reason.into()),
        }
        match self.read_entity_version(&message, found.entity_version) {
            Ok(version) => message.entity_version = version,
            Err(reason) => _ = unreadable.get_or_insert(reason.into()),
        }
        match self.read_id(&message, found.id) {
            // A message that never reaches the plug-in must not use up its id: the same one may come again, repaired.
            Ok(Some(id)) if unreadable.is_none() => {
                message.mark = Some(hash(&id));
                message.id = id;
            }
            Ok(_) => {}
            Err(reason) => _ = unreadable.get_or_insert(reason.into()),
        }
        if message.mark.is_none() {
            message.id = message.id_by_sequence();
        }
        (message, unreadable)
    }

    fn looks_inside(&self) -> bool {
        self.payload == Payload::Json || self.pointers().iter().any(Option::is_some)
    }

    fn pointers(&self) -> Pointers<'_> {
        let key = if let Key::JsonPointer(pointer) = &self.key { Some(pointer) } else { None };
        let id = if let IdSource::JsonPointer(pointer) = &self.id { Some(pointer) } else { None };
        let version =
            if let Some(VersionSource::JsonPointer(pointer)) = &self.entity_version { Some(pointer) } else { None };
        [key, id, version]
    }

    fn read_key(&self, message: &Message, found: Leaf) -> Result<Option<Arc<str>>, String> {
        let key: Arc<str> = match &self.key {
            Key::None => return Ok(None),
            Key::SubjectToken(number) => subject_token(&message.subject, *number)?.into(),
            Key::Header(name) => {
                message.header(name).ok_or_else(|| format!("no key: there is no header {name:?}"))?.into()
            }
            Key::JsonPointer(pointer) => found.text().map_err(|flaw| format!("no key: {flaw} at {pointer}"))?.into(),
        };
        match key.len() {
            0 => Err(format!("no key: {} is empty", Origin(&self.key))),
            1..=KEY_BYTES_MAX => Ok(Some(key)),
            bytes => Err(format!("no key: {} has {bytes} bytes; {KEY_BYTES_MAX} are the most", Origin(&self.key))),
        }
    }

    /// None: the consumer orders by the stream alone.
    fn read_entity_version(&self, message: &Message, found: Leaf) -> Result<Option<u64>, String> {
        match &self.entity_version {
            None => Ok(None),
            Some(VersionSource::Header(name)) => {
                let text = message.header(name).ok_or_else(|| format!("no version: there is no header {name:?}"))?;
                whole_number(text).map(Some).map_err(|flaw| format!("no version: header {name:?} is {flaw}"))
            }
            Some(VersionSource::JsonPointer(pointer)) => {
                let text = found.text().map_err(|flaw| format!("no version: {flaw} at {pointer}"))?;
                whole_number(&text).map(Some).map_err(|flaw| format!("no version: at {pointer} is {flaw}"))
            }
        }
    }

    /// None: there is no id but the sequence.
    fn read_id(&self, message: &Message, found: Leaf) -> Result<Option<Box<str>>, String> {
        let id: Box<str> = match &self.id {
            IdSource::MessageId => match message.header(MESSAGE_ID) {
                // An empty one is none to the broker, too.
                None | Some("") => return Ok(None),
                Some(id) => id.into(),
            },
            IdSource::Header(name) => {
                message.header(name).ok_or_else(|| format!("no id: there is no header {name:?}"))?.into()
            }
            IdSource::JsonPointer(pointer) => {
                found.text().map_err(|flaw| format!("no id: {flaw} at {pointer}"))?.into()
            }
        };
        if id.is_empty() {
            Err("no id: it is empty".into())
        } else if id.len() > ID_BYTES_MAX {
            Err(format!("no id: it has {} bytes; {ID_BYTES_MAX} are the most", id.len()))
        } else if id.chars().any(char::is_control) {
            // It travels on in a header of every event.
            Err(format!("no id: {id:?} holds a control character"))
        } else {
            Ok(Some(id))
        }
    }
}

fn subject_token(subject: &str, number: usize) -> Result<&str, String> {
    subject.split('.').nth(number.saturating_sub(1)).ok_or_else(|| {
        let tokens = subject.split('.').count();
        format!("no key: subject {subject:?} has {tokens} tokens, and the key is token {number}")
    })
}

/// Decimal digits and nothing else, no more than 2^64 - 1; otherwise what there is instead, in words.
fn whole_number(text: &str) -> Result<u64, String> {
    /// Of what a publisher wrote in its place, this much is told.
    const TOLD_CHARS_MAX: usize = 32;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or_else(|| {
        let told: String = text.chars().take(TOLD_CHARS_MAX).collect();
        let more = if told.len() < text.len() { "…" } else { "" };
        format!("{told:?}{more}, which is not a whole number from 0 to {}", u64::MAX)
    })
}

/// Where a key comes from, in words.
struct Origin<'a>(&'a Key);

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Key::SubjectToken(number) => write!(f, "token {number} of the subject"),
            Key::Header(name) => write!(f, "header {name:?}"),
            Key::JsonPointer(pointer) => write!(f, "the text at {pointer}"),
            Key::None => f.write_str("nothing"),
        }
    }
}

/// Where in the payload key, id and version are, of those that are there.
type Pointers<'a> = [Option<&'a JsonPointer>; 3];

/// What the pointers of key, id and version led to.
#[derive(Default)]
struct Found {
    key: Leaf,
    id: Leaf,
    entity_version: Leaf,
}

/// What a pointer led to.
#[derive(Default)]
enum Leaf {
    #[default]
    Missing,
    Text(String),
    Unusable(&'static str),
}

impl Leaf {
    fn text(self) -> Result<String, &'static str> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Missing => Err("the payload has nothing"),
            Self::Unusable(flaw) => Err(flaw),
        }
    }
}

/// Follows all pointers in one pass that keeps nothing else. The whole payload must be JSON, wherever they lead.
fn find(payload: &[u8], pointers: Pointers<'_>) -> Result<Found, JsonFlaw> {
    // First, because strings that are skipped are not looked at by the parser.
    let text = std::str::from_utf8(payload)?;
    let mut found = Found::default();
    let mut parser = Parser::from_str(text);
    let rest = pointers.map(|pointer| pointer.map(JsonPointer::tokens));
    Walk { rest, found: &mut found }.deserialize(&mut parser)?;
    parser.end()?;
    Ok(found)
}

#[derive(Debug, thiserror::Error)]
enum JsonFlaw {
    #[error("{0}")]
    Text(#[from] std::str::Utf8Error),
    #[error("{0}")]
    Syntax(#[from] serde_json::Error),
}

/// Of each pointer, what is left of it: nothing left, and this is the value; none, and it leads elsewhere.
type Rest<'p> = [Option<&'p [Box<str>]>; 3];

const LEADS_ELSEWHERE: Rest<'static> = [None; 3];

/// Reads one value.
struct Walk<'p, 'f> {
    rest: Rest<'p>,
    found: &'f mut Found,
}

impl Walk<'_, '_> {
    /// Writes down what pointers find that end here (`here`) or want to go on from here.
    fn settle(&mut self, here: impl Fn() -> Leaf) {
        let Found { key, id, entity_version } = self.found;
        for (rest, slot) in self.rest.into_iter().zip([key, id, entity_version]) {
            match rest {
                Some([]) => *slot = here(),
                // Also what an earlier member of the same name held is out of date.
                Some(_) => *slot = Leaf::Missing,
                None => {}
            }
        }
    }
}

/// Numbers count as they are written: a parsed one may have lost digits, and two ids would become one.
fn leaf(json: &str) -> Leaf {
    match json.as_bytes().first() {
        Some(b'"') => {
            serde_json::from_str(json).map_or(Leaf::Unusable("there is a string that is no text"), Leaf::Text)
        }
        Some(b'{') => Leaf::Unusable("there is an object"),
        Some(b'[') => Leaf::Unusable("there is a list"),
        Some(b'n') => Leaf::Unusable("there is null"),
        _ => Leaf::Text(json.into()),
    }
}

/// What is left of the pointers inside the member or item that `leads` accepts.
fn step<'p>(rest: Rest<'p>, leads: impl Fn(&str) -> bool) -> Rest<'p> {
    rest.map(|rest| rest?.split_first().filter(|(first, _)| leads(first)).map(|(_, rest)| rest))
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        if self.rest == LEADS_ELSEWHERE {
            return IgnoredAny::deserialize(deserializer).map(drop);
        }
        let ends_here = |rest: &Option<&[Box<str>]>| rest.is_some_and(<[_]>::is_empty);
        if !self.rest.iter().any(ends_here) {
            self.settle(Leaf::default);
            return deserializer.deserialize_any(self);
        }
        let json = <&RawValue>::deserialize(deserializer)?.get();
        self.settle(|| leaf(json));
        let rest = self.rest.map(|rest| rest.filter(|rest| !rest.is_empty()));
        if rest == LEADS_ELSEWHERE {
            return Ok(());
        }
        // One pointer leads into what another ends at: the one case in which something is parsed again.
        Walk { rest, found: self.found }.deserialize(&mut Parser::from_str(json)).map_err(serde::de::Error::custom)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        // Of members of one name the last one counts, as with most parsers.
        while let Some(rest) = members.next_key_seed(Member(self.rest))? {
            members.next_value_seed(Walk { rest, found: self.found })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let rest = step(self.rest, |token| item_number(token) == Some(index));
            if items.next_element_seed(Walk { rest, found: self.found })?.is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// RFC 6901 allows neither signs nor leading zeros.
fn item_number(token: &str) -> Option<usize> {
    if token.starts_with('+') || (token.starts_with('0') && token.len() > 1) { None } else { token.parse().ok() }
}

/// Compares a member's name with the pointers, without keeping it.
struct Member<'p>(Rest<'p>);

impl<'de, 'p> DeserializeSeed<'de> for Member<'p> {
    type Value = Rest<'p>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'p> Visitor<'_> for Member<'p> {
    type Value = Rest<'p>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(step(self.0, |token| token == name))
    }
}

#[cfg(test)]
mod tests;
