//! Connections that go silent, and connections that are reset in the middle of a message.

use pelton_core::ids::RowId;
use rustix::process::Signal;

use super::follower::Follower;
use super::proxy::Proxy;
use super::publishing::{Writer, event};
use super::*;

/// The client gives a silent peer up after three pings, 5 s apart.
const NOTICED: Duration = Duration::from_secs(20);

async fn through(proxy: &Proxy) -> Connection {
    let connection = Connection::open(settings(proxy.port, Credentials::None), "test", &CancellationToken::new());
    assert!(soon("a connection", connection.connected()).await);
    connection
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_given_up_when_it_is_silent() {
    let server = TestServer::start();
    let connection = server.open().await;
    let mut status = connection.status();
    server.signal(Signal::STOP);
    let gone = status.wait_for(|status| !matches!(status, ConnectionStatus::Connected { .. }));
    tokio::time::timeout(NOTICED, gone).await.expect("noticed in time").unwrap();
    server.signal(Signal::CONT);
    let back = status.wait_for(|status| matches!(status, ConnectionStatus::Connected { .. }));
    tokio::time::timeout(NOTICED, back).await.expect("back in time").unwrap();
}

#[tokio::test]
async fn a_subscription_survives_a_proxy_that_swallows_everything() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    let proxy = Proxy::before(server.port).await;
    let connection = through(&proxy).await;
    let mut follower = Follower::start(&connection, reader_settings());
    fill(&jetstream, 1..=10).await;
    follower.until(10).await;
    proxy.silence(true);
    fill(&jetstream, 11..=20).await;
    tokio::time::timeout(NOTICED, follower.until_lost(1)).await.expect("noticed in time");
    assert!(matches!(follower.lost[0], LostReason::Silent(_)), "{:?}", follower.lost);
    proxy.silence(false);
    tokio::time::timeout(NOTICED, follower.until(20)).await.expect("resumed in time");
    assert_eq!(follower.sequences(), (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_publisher_survives_a_proxy_that_swallows_everything() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    let proxy = Proxy::before(server.port).await;
    let connection = through(&proxy).await;
    let mut writer = Writer::start(&connection).await;
    writer.publish(1, &event("a", "s.a"));
    assert_eq!(writer.result().await, PublishResult::Acked(RowId(1)));
    proxy.silence(true);
    writer.publish(2, &event("b", "s.a"));
    assert_eq!(writer.result().await, PublishResult::Refused { row: RowId(2), error: PublishError::Timeout });
    proxy.silence(false);
    // As the relay does: again and again, under whatever session there is.
    tokio::time::timeout(NOTICED, writer.insist(2, &event("b", "s.a"))).await.expect("resumed in time");
    assert_eq!(jetstream.get_stream("S").await.unwrap().cached_info().state.messages, 2);
    writer.publisher.stop().await;
}

#[tokio::test]
async fn a_publisher_on_a_frozen_server_gets_a_new_session_when_it_goes_on() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    let connection = server.open().await;
    let mut writer = Writer::start(&connection).await;
    let before = writer.session;
    server.signal(Signal::STOP);
    writer.publish(1, &event("a", "s.a"));
    assert_eq!(writer.result().await, PublishResult::Refused { row: RowId(1), error: PublishError::Timeout });
    writer.publish(1, &event("a", "s.a"));
    let PublishResult::Refused { .. } = writer.result().await else { panic!("the server is frozen") };
    let mut status = connection.status();
    let gone = status.wait_for(|status| !matches!(status, ConnectionStatus::Connected { .. }));
    tokio::time::timeout(NOTICED, gone).await.expect("noticed in time").unwrap();
    server.signal(Signal::CONT);
    tokio::time::timeout(NOTICED, writer.connected()).await.expect("back in time");
    assert!(writer.session > before);
    writer.publish(1, &event("a", "s.a"));
    assert_eq!(writer.result().await, PublishResult::Acked(RowId(1)));
    assert_eq!(jetstream.get_stream("S").await.unwrap().cached_info().state.messages, 1, "once, by its id");
    writer.publisher.stop().await;
}

#[tokio::test]
async fn resets_in_the_middle_of_messages_lose_nothing() {
    const COUNT: u64 = 200;
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    for n in 1..=COUNT {
        let payload = vec![b'x'; 20_000 + usize::try_from(n).unwrap()];
        jetstream.publish("s.x", payload.into()).await.unwrap().await.unwrap();
    }
    let proxy = Proxy::before(server.port).await;
    let connection = through(&proxy).await;
    let mut follower = Follower::start(&connection, reader_settings());
    for (round, bytes) in [30_000, 70_001, 45_678, 100_003].into_iter().enumerate() {
        proxy.reset_after(bytes);
        follower.until_lost(round + 1).await;
    }
    follower.until(COUNT).await;
    assert_eq!(follower.sequences(), (1..=COUNT).collect::<Vec<_>>());
    for (sequence, (delivery, _)) in &follower.seen {
        assert_eq!(delivery.payload.len(), 20_000 + usize::try_from(*sequence).unwrap());
    }
    assert!(follower.unreadable().is_empty());
}
