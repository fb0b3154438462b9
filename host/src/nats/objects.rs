//! Objects of JetStream object stores, for components that are kept there.
//!
//! They are read over a connection of their own, made when the first one is wanted, so that whatever is stored in a bucket can end that
//! connection and no consumer's. Every call here ends by itself: when its session does, or when nothing comes for a while.

use std::error::Error as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::context::GetStreamError;
use async_nats::jetstream::object_store::{GetErrorKind, InfoErrorKind, Object, ObjectStore};
use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use futures_util::StreamExt as _;
use thiserror::Error;
use tokio::io::AsyncReadExt as _;

use super::connect::{Connection, Session};
use super::streams::{StreamError, lookup_error};

/// How long a call waits for a session.
const CONNECT_GRACE: Duration = Duration::from_secs(5);
/// How long nothing may come while an object is read. One that is replaced meanwhile loses the rest of its chunks, and nobody says so.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// What is asked for at once; the usual size of a chunk.
const READ_BYTES: usize = 128 << 10;

/// Why an object can't be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ObjectError {
    /// There is no such bucket.
    #[error("there is no object store {bucket}: create it, for example with `nats object add {bucket}`")]
    NoBucket {
        /// Its name.
        bucket: String,
    },
    /// There never was such an object.
    #[error(
        "there is no object {name} in {bucket}: put it there, for example with `nats object put {bucket} FILE --name {name}`"
    )]
    Missing {
        /// Where it was looked for.
        bucket: String,
        /// Its name.
        name: String,
    },
    /// It was deleted.
    #[error("object {name} of {bucket} was deleted: put it there again, or change the manifest")]
    Deleted {
        /// Where it was.
        bucket: String,
        /// Its name.
        name: String,
    },
    /// It only names another one.
    #[error("object {name} of {bucket} is a link: name what it leads to")]
    Link {
        /// Where it is.
        bucket: String,
        /// Its name.
        name: String,
    },
    /// There is nothing to check it by.
    #[error("object {name} of {bucket} has no sha-256 digest to check it by: put it there again with a current client")]
    NoDigest {
        /// Where it is.
        bucket: String,
        /// Its name.
        name: String,
    },
    /// No answer now; it may be different in a moment.
    #[error("the object store can't be read at the moment: {0}")]
    Unavailable(String),
}

/// What the store says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFacts {
    /// Its length in bytes.
    pub bytes: u64,
    /// The sha-256 digest of its bytes.
    pub sha256: [u8; 32],
}

/// The object stores of the server that consumers read from.
pub struct Objects {
    parent: Arc<Connection>,
    own: OnceLock<Connection>,
}

impl Objects {
    /// Nothing is connected before the first object is asked for.
    #[must_use]
    pub fn new(parent: Arc<Connection>) -> Self {
        Self { parent, own: OnceLock::new() }
    }

    /// Looks an object up; its bytes are fetched as they are read.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn open(&self, bucket: &str, name: &str) -> Result<OpenObject, ObjectError> {
        let session = self.session().await?;
        let ended = session.ended.clone();
        let opened =
            ended.run_until_cancelled(open(&session, bucket, name)).await.unwrap_or_else(|| Err(connection_ended()))?;
        session.was_of_use();
        Ok(OpenObject { object: opened.0, facts: opened.1, session, buffer: vec![0; READ_BYTES] })
    }

    /// Announcements of changes of an object.
    #[must_use]
    pub fn watch(&self, bucket: &str, name: &str) -> ObjectWatch {
        let subject = format!("$O.{bucket}.M.{}", URL_SAFE.encode(name));
        ObjectWatch { sessions: self.connection().sessions(), subject, announcements: None }
    }

    fn connection(&self) -> &Connection {
        self.own.get_or_init(|| self.parent.another("components"))
    }

    async fn session(&self) -> Result<Session, ObjectError> {
        let mut sessions = self.connection().sessions();
        let session = tokio::time::timeout(CONNECT_GRACE, sessions.live()).await.ok().flatten();
        session.ok_or_else(|| ObjectError::Unavailable("there is no nats connection".into()))
    }
}

fn connection_ended() -> ObjectError {
    ObjectError::Unavailable("the connection ended".into())
}

async fn open(session: &Session, bucket: &str, name: &str) -> Result<(Object, ObjectFacts), ObjectError> {
    let names = || (bucket.to_owned(), name.to_owned());
    let missing = || {
        let (bucket, name) = names();
        ObjectError::Missing { bucket, name }
    };
    let store = store(session, bucket).await?;
    let info = store.info(name).await.map_err(|error| match error.kind() {
        InfoErrorKind::NotFound => missing(),
        _ => unavailable(&error),
    })?;
    let (bucket, name) = names();
    if info.deleted {
        return Err(ObjectError::Deleted { bucket, name });
    }
    if info.options.is_some_and(|options| options.link.is_some()) {
        return Err(ObjectError::Link { bucket, name });
    }
    // Not what was looked up above: it may have been replaced meanwhile.
    let object = store.get(&name).await.map_err(|error| match error.kind() {
        GetErrorKind::NotFound => missing(),
        _ => unavailable(&error),
    })?;
    let info = object.info();
    let Some(sha256) = info.digest.as_deref().and_then(sha256) else {
        return Err(ObjectError::NoDigest { bucket, name });
    };
    let facts = ObjectFacts { bytes: u64::try_from(info.size).unwrap_or(u64::MAX), sha256 };
    Ok((object, facts))
}

async fn store(session: &Session, bucket: &str) -> Result<ObjectStore, ObjectError> {
    session.jetstream.get_object_store(bucket).await.map_err(|error| {
        let Some(cause) = error.source().and_then(|source| source.downcast_ref::<GetStreamError>()) else {
            return unavailable(&error);
        };
        match lookup_error(&format!("OBJ_{bucket}"), cause) {
            StreamError::Missing { .. } => ObjectError::NoBucket { bucket: bucket.into() },
            error => ObjectError::Unavailable(error.to_string()),
        }
    })
}

fn unavailable(error: &dyn std::error::Error) -> ObjectError {
    ObjectError::Unavailable(error.to_string())
}

/// Stores write `SHA-256=` and base64 for URLs, some with padding and some without.
fn sha256(digest: &str) -> Option<[u8; 32]> {
    let (algorithm, value) = digest.split_once('=')?;
    if !algorithm.eq_ignore_ascii_case("SHA-256") {
        return None;
    }
    URL_SAFE_NO_PAD.decode(value.trim_end_matches('=')).ok()?.try_into().ok()
}

/// An object that can be read once, from its beginning to its end.
pub struct OpenObject {
    object: Object,
    facts: ObjectFacts,
    session: Session,
    buffer: Vec<u8>,
}

impl OpenObject {
    /// What the store says of it.
    #[must_use]
    pub fn facts(&self) -> &ObjectFacts {
        &self.facts
    }

    /// The next bytes; none are left if they are empty. Whether all of them together are what the facts say is the caller's to check.
    ///
    /// # Errors
    /// `Unavailable` if the connection ends, nothing comes for 10 s, or the object is replaced while it is read.
    pub async fn read(&mut self) -> Result<&[u8], ObjectError> {
        let reading = tokio::time::timeout(SILENCE_MAX, self.object.read(&mut self.buffer));
        let read = match self.session.ended.run_until_cancelled(reading).await {
            None => return Err(connection_ended()),
            Some(Err(_)) => {
                return Err(ObjectError::Unavailable("nothing comes any more; was it replaced meanwhile?".into()));
            }
            Some(Ok(Err(error))) => return Err(unavailable(&error)),
            Some(Ok(Ok(read))) => read,
        };
        Ok(self.buffer.get(..read).unwrap_or_default())
    }
}

/// Tells when an object may have changed.
pub struct ObjectWatch {
    sessions: super::connect::Sessions,
    subject: String,
    /// What the server sends on the object's subject. It stores that as well, so there is no consumer to keep.
    announcements: Option<Subscriber>,
}

impl ObjectWatch {
    /// Waits for the next announcement, and also returns whenever some may have been missed: after each connection. It is a hint: an account
    /// may not let us listen, and a bucket that mirrors another announces nothing.
    pub async fn changed(&mut self) {
        loop {
            if let Some(announcements) = &mut self.announcements {
                if announcements.next().await.is_some() {
                    return;
                }
                self.announcements = None;
            }
            let Some(session) = self.sessions.live().await else { return std::future::pending().await };
            match session.client.subscribe(self.subject.clone()).await {
                Ok(announcements) => {
                    self.announcements = Some(announcements);
                    // So that what is looked up from now on is not older than the subscription.
                    _ = session.client.flush().await;
                    return;
                }
                // The client is gone; its session is about to be.
                Err(_) => session.ended.cancelled().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_with_and_without_padding() {
        let text = URL_SAFE.encode([251; 32]);
        assert!(text.contains(['-', '_']) && text.ends_with('='));
        assert_eq!(sha256(&format!("SHA-256={text}")), Some([251; 32]));
        assert_eq!(sha256(&format!("sha-256={}", text.trim_end_matches('='))), Some([251; 32]));
        for other in ["", "SHA-256=", "SHA-256=AAAA", "SHA-512=AAAA", "SHA-256"] {
            assert_eq!(sha256(other), None, "{other}");
        }
    }
}
