//! Credit, order, and everything that ends a generation.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_messages_come_in_order_and_without_a_gap() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    fill(&jetstream, 1..=20_000).await;
    let connection = server.open().await;
    let mut reader = Reader::start(&connection, reader_settings());
    reader.position(1, 0).await;
    reader.handle.pull(1, 3_000);
    let mut expected = 1;
    while expected <= 20_000 {
        match reader.next().await {
            Incoming::Delivered { deliveries, .. } => {
                for delivery in &deliveries {
                    assert_eq!(delivery.sequence, expected);
                    assert_eq!(delivery.payload, expected.to_string());
                    assert_eq!(*delivery.subject, format!("s.{expected}"));
                    assert!(delivery.published_at_ms > 0 && delivery.pending == 20_000 - expected);
                    expected += 1;
                }
                reader.handle.settle(expected - 1, vec![]);
                reader.handle.pull(1, u32::try_from(deliveries.len()).unwrap());
            }
            Incoming::PullEnded { undelivered, .. } => reader.handle.pull(1, undelivered),
            other => panic!("{other:?}"),
        }
    }
    reader.subscription.stop().await;
    let info = jetstream.get_stream("S").await.unwrap().consumer_info("pelton-reader").await.unwrap();
    assert_eq!(info.ack_floor.stream_sequence, 20_000);
}

#[tokio::test]
async fn nothing_is_pulled_without_credit_and_no_more_than_that() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    fill(&jetstream, 1..=100).await;
    let connection = server.open().await;
    let mut reader = Reader::start(&connection, reader_settings());
    reader.position(1, 0).await;
    reader.handle.pull(99, 50);
    reader.handle.pull(1, 5);
    assert_eq!(reader.sequences(1, 5).await, [1, 2, 3, 4, 5]);
    let info = jetstream.get_stream("S").await.unwrap().consumer_info("pelton-reader").await.unwrap();
    assert_eq!((info.delivered.stream_sequence, info.num_pending), (5, 95), "the credit of another generation is void");
    reader.handle.pull(1, 1);
    assert_eq!(reader.sequences(1, 1).await, [6]);
    reader.subscription.stop().await;
}

#[tokio::test]
async fn silence_while_nothing_is_asked_for_is_no_loss_and_a_frozen_server_is_one() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    fill(&jetstream, 1..=2).await;
    let connection = server.open().await;
    let mut reader = Reader::start(&connection, reader_settings());
    reader.position(1, 0).await;
    reader.handle.pull(1, 1);
    assert_eq!(reader.sequences(1, 1).await, [1]);
    // It is the time that passes that is tried here.
    tokio::time::sleep(super::super::subscription::running::SILENCE_MAX + Duration::from_millis(500)).await;
    reader.handle.pull(1, 1);
    assert_eq!(reader.sequences(1, 1).await, [2]);

    reader.handle.pull(1, 1);
    server.signal(rustix::process::Signal::STOP);
    let reason = reader.lost().await;
    server.signal(rustix::process::Signal::CONT);
    assert!(matches!(reason, LostReason::Silent(_)), "{reason}");
    reader.position(2, 2).await;
    reader.handle.pull(2, 1);
    fill(&jetstream, 3..=3).await;
    assert_eq!(reader.sequences(2, 1).await, [3]);
    reader.subscription.stop().await;
}

#[tokio::test]
async fn a_message_above_the_byte_limit_gets_through_in_its_place() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    for size in [10, 500_000, 20, 900_000, 900_000, 30] {
        jetstream.publish("s.x", vec![b'x'; size].into()).await.unwrap().await.unwrap();
    }
    let connection = server.open().await;
    let mut reader = Reader::start(&connection, SubscriptionSettings { pull_bytes_max: 2_000, ..reader_settings() });
    reader.position(1, 0).await;
    reader.handle.pull(1, 6);
    assert_eq!(reader.sequences(1, 6).await, [1, 2, 3, 4, 5, 6]);
    reader.subscription.stop().await;
}

#[tokio::test]
async fn headers_arrive_sorted_with_all_their_values() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    let mut headers = async_nats::HeaderMap::new();
    for (name, value) in [("b", "1"), ("a", "2"), ("b", "0")] {
        headers.append(name, value);
    }
    jetstream.publish_with_headers("s.x", headers, "p".into()).await.unwrap().await.unwrap();
    let connection = server.open().await;
    let mut reader = Reader::start(&connection, reader_settings());
    reader.position(1, 0).await;
    reader.handle.pull(1, 1);
    let taken = reader.take(1, 1).await;
    let expected: Vec<(Box<str>, Box<str>)> =
        [("a", "2"), ("b", "1"), ("b", "0")].map(|(n, v)| (n.into(), v.into())).into();
    assert_eq!(taken[0].headers, expected);
    reader.subscription.stop().await;
}

#[tokio::test]
async fn a_server_killed_in_the_middle_is_reported_and_nothing_is_lost() {
    let mut server = TestServer::start_on(free_port(), &[]);
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    fill(&jetstream, 1..=5_000).await;
    let connection = server.open().await;
    let mut reader = Reader::start(&connection, reader_settings());
    reader.position(1, 0).await;
    reader.handle.pull(1, 1_000);
    let last = *reader.sequences(1, 1_000).await.last().unwrap();
    reader.handle.settle(400, vec![]);
    reader.handle.pull(1, 2_000);
    server.down();
    assert_eq!(reader.lost().await, LostReason::Disconnected);
    server.up();
    assert_eq!(last, 1_000);
    assert_eq!(reader.position(2, last).await.last_seq, 5_000);
    reader.handle.pull(2, 4_000);
    assert_eq!(reader.sequences(2, 4_000).await, (1_001..=5_000).collect::<Vec<_>>());
    reader.subscription.stop().await;
}

#[tokio::test]
async fn a_durable_consumer_that_is_deleted_or_reset_by_somebody_is_noticed() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    let stream = jetstream.get_stream("S").await.unwrap();
    let connection = server.open().await;
    let mut reader = Reader::start(&connection, reader_settings());
    reader.position(1, 0).await;
    reader.handle.pull(1, 100);
    fill(&jetstream, 1..=10).await;
    reader.take(1, 10).await;
    stream.delete_consumer("pelton-reader").await.unwrap();
    assert_eq!(reader.lost().await, LostReason::ConsumerDeleted);

    reader.position(2, 10).await;
    reader.handle.pull(2, 100);
    fill(&jetstream, 11..=12).await;
    assert_eq!(reader.sequences(2, 2).await, [11, 12]);
    stream.reset_consumer("pelton-reader", Some(1)).await.unwrap();
    assert_eq!(reader.lost().await, LostReason::Gap { expected: 3, found: 1 }, "nothing old is taken for new");

    reader.position(3, 12).await;
    reader.handle.pull(3, 100);
    fill(&jetstream, 13..=13).await;
    assert_eq!(reader.sequences(3, 1).await, [13]);
    reader.subscription.stop().await;
}

#[tokio::test]
async fn deliveries_that_somebody_else_took_are_a_gap() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    fill(&jetstream, 1..=10).await;
    let connection = server.open().await;
    let mut reader = Reader::start(&connection, reader_settings());
    reader.position(1, 0).await;
    reader.handle.pull(1, 4);
    reader.take(1, 4).await;
    let thief: jetstream::consumer::PullConsumer =
        jetstream.get_stream("S").await.unwrap().get_consumer("pelton-reader").await.unwrap();
    let stolen = thief.fetch().max_messages(2).messages().await.unwrap();
    assert_eq!(futures_util::StreamExt::count(stolen).await, 2);
    reader.handle.pull(1, 4);
    assert_eq!(reader.lost().await, LostReason::Gap { expected: 5, found: 7 });
    reader.subscription.stop().await;
}

#[tokio::test]
async fn a_missing_stream_fails_with_the_way_out_and_is_found_when_it_is_back() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    let connection = server.open().await;
    let mut reader = Reader::start(&connection, reader_settings());
    reader.handle.position(1, 0, None);
    let Incoming::Failed { error, .. } = reader.next().await else { panic!("not failed") };
    assert!(error.to_string().contains("stream S doesn't exist: create it, or declare it"), "{error}");
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    assert_eq!(reader.lost().await, LostReason::WorthTrying);
    let old = reader.position(2, 0).await.identity;
    reader.handle.pull(2, 10);
    fill(&jetstream, 1..=3).await;
    assert_eq!(reader.sequences(2, 3).await, [1, 2, 3]);

    jetstream.delete_stream("S").await.unwrap();
    assert_eq!(reader.lost().await, LostReason::ConsumerDeleted);
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    let anew = reader.position(3, 3).await;
    assert!(anew.identity != old && anew.last_seq == 0, "the host can tell that it was made anew");
    reader.subscription.stop().await;
}

#[tokio::test]
async fn a_stream_made_anew_after_it_was_reported_is_not_touched() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    let connection = server.open().await;
    let mut reader = Reader::start(&connection, reader_settings());
    reader.position(1, 0).await;
    jetstream.delete_stream("S").await.unwrap();
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    reader.handle.pull(1, 10);
    assert_eq!(reader.lost().await, LostReason::StreamChanged);
    reader.subscription.stop().await;
}
