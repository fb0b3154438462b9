//! Objects: looked up, read, replaced and deleted, and what is said of each.

use async_nats::jetstream::object_store::Config as StoreConfig;
use sha2::{Digest as _, Sha256};

use super::*;

async fn read(objects: &Objects, name: &str) -> Result<Vec<u8>, ObjectError> {
    let mut opened = objects.open("plugins", name).await?;
    let facts = opened.facts().clone();
    let mut bytes = Vec::new();
    loop {
        let more = opened.read().await?;
        if more.is_empty() {
            break;
        }
        bytes.extend_from_slice(more);
    }
    assert_eq!((facts.bytes, facts.sha256), (bytes.len() as u64, Sha256::digest(&bytes).into()));
    Ok(bytes)
}

#[tokio::test]
async fn objects_are_read_whole_and_their_changes_are_announced() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    let objects = Objects::new(Arc::new(server.open().await));
    let named = |name: &str| ("plugins".to_owned(), name.to_owned());
    let outcome = soon("an answer", read(&objects, "a")).await;
    assert_eq!(outcome, Err(ObjectError::NoBucket { bucket: "plugins".into() }));

    let store = jetstream.create_object_store(StoreConfig { bucket: "plugins".into(), ..StoreConfig::default() }).await;
    let store = store.unwrap();
    let (bucket, name) = named("team/a b.wasm");
    let outcome = soon("an answer", read(&objects, &name)).await;
    assert_eq!(outcome, Err(ObjectError::Missing { bucket: bucket.clone(), name: name.clone() }));

    let mut watch = objects.watch("plugins", &name);
    soon("the subscription", watch.changed()).await;
    // Several chunks, the last of them smaller.
    let large: Vec<u8> = (0..700_001_u32).flat_map(u32::to_le_bytes).collect();
    store.put(name.as_str(), &mut large.as_slice()).await.unwrap();
    soon("the announcement", watch.changed()).await;
    assert!(soon("the object", read(&objects, &name)).await.unwrap() == large);
    store.put("other", &mut &b"other"[..]).await.unwrap();
    store.put(name.as_str(), &mut &b"small"[..]).await.unwrap();
    soon("the announcement", watch.changed()).await;
    assert_eq!(soon("the object", read(&objects, &name)).await.unwrap(), b"small");

    let target = store.info("other").await.unwrap();
    store.add_link("link", &target).await.unwrap();
    let outcome = soon("an answer", read(&objects, "link")).await;
    assert_eq!(outcome, Err(ObjectError::Link { bucket: bucket.clone(), name: "link".into() }));

    store.delete(&name).await.unwrap();
    soon("the announcement", watch.changed()).await;
    let outcome = soon("an answer", read(&objects, &name)).await;
    assert_eq!(outcome, Err(ObjectError::Deleted { bucket, name }));
}

#[tokio::test]
async fn an_object_that_is_replaced_while_it_is_read_is_no_object_and_a_lost_server_is_told() {
    let mut server = TestServer::start();
    let jetstream = server.jetstream().await;
    let objects = Objects::new(Arc::new(server.open().await));
    let store = jetstream.create_object_store(StoreConfig { bucket: "plugins".into(), ..StoreConfig::default() }).await;
    let store = store.unwrap();
    store.put("a", &mut &vec![1_u8; 3_000_000][..]).await.unwrap();
    let mut opened = soon("the object", objects.open("plugins", "a")).await.unwrap();
    store.put("a", &mut &vec![2_u8; 1_000_000][..]).await.unwrap();
    let mut came = 0;
    let end = loop {
        match soon("the end", opened.read()).await {
            Ok([]) => break None,
            Ok(bytes) => came += bytes.len(),
            Err(error) => break Some(error),
        }
    };
    assert!(matches!(end, Some(ObjectError::Unavailable(_))), "{end:?} after {came} bytes");

    let mut watch = objects.watch("plugins", "a");
    soon("the subscription", watch.changed()).await;
    server.down();
    let gone = soon("an answer", objects.open("plugins", "a")).await.map(|_| ()).unwrap_err();
    assert!(matches!(gone, ObjectError::Unavailable(_)), "{gone}");
    server.up();
    soon("the new session", watch.changed()).await;
    assert_eq!(soon("the object", read(&objects, "a")).await.unwrap(), vec![2; 1_000_000]);
}
