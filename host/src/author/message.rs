//! A message as an author describes it, and the message that a consumer would make of it: key and id are read by the manifest's own rules.

use std::sync::Arc;

use pelton_core::batch::StreamIdentity;
use pelton_core::grants;
use pelton_core::ids::IdHash;
use pelton_core::message::Message;

use super::entries::from_base64;
use super::fields::{Fields, Pairs};
use crate::config::{IdSource, Manifest};
use crate::ingest::Ingest;

/// The stream of a message that is for no manifest.
const NO_STREAM: &str = "INVOKE";
/// The header by which publishers name their messages.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// What an author says about a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// The subject that it was published to.
    pub subject: String,
    /// Names and values of its headers.
    pub headers: Pairs,
    /// The payload's bytes.
    pub payload: Vec<u8>,
    /// Its `Nats-Msg-Id`.
    pub id: Option<String>,
    /// Its ordering key; none: by the manifest's rule, if there is a manifest.
    pub key: Option<String>,
    /// Its sequence in the stream; 1 if nothing is said.
    pub sequence: Option<u64>,
    /// When the stream stored it: milliseconds since 1970-01-01 UTC; the attempt's time if nothing is said.
    pub published_at_ms: Option<u64>,
}

/// What a consumer makes of a message.
pub(super) struct Made {
    pub(super) message: Message,
    /// Why it never reaches the plug-in.
    pub(super) unreadable: Option<Box<str>>,
}

impl Described {
    /// Reads a description's fields. If the subject is said elsewhere it may be missing.
    pub(super) fn read(mut fields: Fields<'_, '_>, said: Option<&str>) -> Option<Self> {
        let subject = match said {
            None => fields.required_text("subject", "say what the message was published to"),
            Some(said) => fields.text("subject").or(Some(said)),
        };
        let subject = subject.map(str::to_owned);
        let headers = fields.pairs("headers").unwrap_or_default();
        let payload = payload(&mut fields);
        let id = fields.text("id").map(str::to_owned);
        let key = fields.text("key").map(str::to_owned);
        let sequence = fields.number("sequence");
        let published_at_ms = fields.number("published_at_ms");
        fields.finish();
        Some(Self { subject: subject?, headers, payload: payload?, id, key, sequence, published_at_ms })
    }

    /// The message that a consumer with this manifest, or with none, makes of it at a time.
    ///
    /// # Errors
    /// If there can be no such message, in words that follow the field's name.
    pub(super) fn make(&self, manifest: Option<&Manifest>, now_ms: u64) -> Result<Made, (&'static str, String)> {
        if !grants::is_concrete_subject(&self.subject) {
            return Err(("subject", format!("{:?} is not a subject without wildcards", self.subject)));
        }
        let mut headers = self.headers.clone();
        if let Some(id) = self.id.as_ref().filter(|id| self.header(MESSAGE_ID) != Some(id)) {
            check_id(self, manifest)?;
            headers.push((MESSAGE_ID.to_owned(), id.clone()));
        }
        // As the host has them: sorted by name, the values of one name as they came.
        headers.sort_by(|(a, _), (b, _)| a.cmp(b));
        let name = manifest.map_or(NO_STREAM, |manifest| manifest.subscription.stream.as_str());
        let message = Message {
            id: Box::default(),
            mark: None,
            subject: self.subject.as_str().into(),
            key: None,
            headers: headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            payload: self.payload.clone().into(),
            sequence: self.sequence.unwrap_or(1),
            published_at_ms: self.published_at_ms.unwrap_or(now_ms),
            stream: Arc::new(StreamIdentity { name: name.into(), created_ns: 0 }),
            entity_version: None,
        };
        let Some(manifest) = manifest else { return Ok(self.without_manifest(message)) };
        let (message, unreadable) = Ingest::new(manifest).read(message, &|_| IdHash(0));
        if let Some(key) = &self.key
            && message.key.as_deref() != Some(key)
        {
            let rule = message.key.as_deref().map_or_else(|| "no key".to_owned(), |key| format!("the key {key:?}"));
            return Err(("key", format!("is {key:?}, but by the manifest's rule the message has {rule}: remove it")));
        }
        Ok(Made { message, unreadable })
    }

    fn without_manifest(&self, message: Message) -> Made {
        let id = message.header(MESSAGE_ID).map_or_else(|| message.id_by_sequence(), Box::from);
        let key = self.key.as_deref().map(Arc::from);
        Made { message: Message { id, key, ..message }, unreadable: None }
    }

    fn header(&self, name: &str) -> Option<&String> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// The id that a description names is a `Nats-Msg-Id`: it must be the only one, and what the manifest looks at.
fn check_id(described: &Described, manifest: Option<&Manifest>) -> Result<(), (&'static str, String)> {
    if described.header(MESSAGE_ID).is_some() {
        return Err(("id", format!("the headers hold another {MESSAGE_ID}: remove one of the two")));
    }
    let place = match manifest.map(|manifest| &manifest.id) {
        None | Some(IdSource::MessageId) => return Ok(()),
        Some(IdSource::Header(name)) => format!("the header {name:?}"),
        Some(IdSource::JsonPointer(pointer)) => format!("{pointer} in the payload"),
    };
    Err(("id", format!("the manifest takes ids from {place}: write it there")))
}

/// At most one of `json`, `payload` and `payload_base64`; without any the payload is empty.
fn payload(fields: &mut Fields<'_, '_>) -> Option<Vec<u8>> {
    let json = fields.value("json").map(|value| value.to_string().into_bytes());
    let text = fields.text("payload").map(|text| text.as_bytes().to_vec());
    let decoded = match fields.text("payload_base64").map(from_base64) {
        Some(Err(flaw)) => {
            fields.report("payload_base64", flaw);
            return None;
        }
        Some(Ok(bytes)) => Some(bytes),
        None => None,
    };
    let mut given = [json, text, decoded].into_iter().flatten();
    let payload = given.next();
    if given.next().is_some() {
        fields.report("payload", "there can be only one of json, payload and payload_base64");
        return None;
    }
    Some(payload.unwrap_or_default())
}
