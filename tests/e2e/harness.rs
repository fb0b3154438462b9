//! The harness itself: what the other tests rely on.

use std::time::Duration;

use anyhow::Result;
use pelton_tests::client::{Outgoing, StreamSpec};
use pelton_tests::nats::{NatsOptions, NatsServer};

#[tokio::test]
async fn a_killed_server_comes_back_with_its_streams_and_readers_go_on() -> Result<()> {
    let mut nats = NatsServer::with(NatsOptions { sync_always: true, ..NatsOptions::default() }).await?;
    let client = nats.client().await?;
    client.create_stream(&StreamSpec::new("S", "s.>")).await?;
    let mut reader = client.read("S");
    let message = |n: u32| Outgoing::new("s.a", n.to_string()).id(n.to_string());
    client.publish_all(&(0..1_000).map(message).collect::<Vec<_>>()).await?;
    let first = reader.take(1_000, Duration::from_secs(10)).await?;
    nats.kill()?;
    nats.start_again().await?;
    // The client finds the server again in the background.
    let again = pelton_tests::wait::until("publishing works again", Duration::from_secs(20), || async {
        Ok(client.publish(&message(1_000)).await.ok())
    });
    assert_eq!(again.await?, 1_001);
    let second = reader.take(1, Duration::from_secs(10)).await?;
    let numbers: Vec<String> =
        first.iter().chain(&second).map(|m| String::from_utf8_lossy(&m.payload).into_owned()).collect();
    assert_eq!(numbers, (0..=1_000).map(|n: u32| n.to_string()).collect::<Vec<_>>());
    assert_eq!(second[0].id(), Some("1000"));
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_of_a_dropped_server() -> Result<()> {
    let nats = NatsServer::start().await?;
    let pid = nats.pid().unwrap_or_default();
    assert!(pelton_tests::process::Usage::of(pid).is_ok());
    drop(nats);
    assert!(pelton_tests::process::Usage::of(pid).is_err());
    Ok(())
}
