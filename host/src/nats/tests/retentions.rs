//! Positions and acknowledgements on streams of each retention.

use super::*;

async fn messages(jetstream: &Context) -> u64 {
    jetstream.get_stream("S").await.unwrap().cached_info().state.messages
}

/// Asks until the stream holds so many messages.
async fn holds(jetstream: &Context, count: u64) {
    soon("the stream to let go of messages", async {
        while messages(jetstream).await != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn ack_floor(jetstream: &Context) -> u64 {
    let stream = jetstream.get_stream("S").await.unwrap();
    stream.consumer_info("pelton-reader").await.unwrap().ack_floor.stream_sequence
}

/// Waits for the durable consumer: an interest stream keeps nothing that comes before it.
async fn interested(jetstream: &Context) {
    let stream = jetstream.get_stream("S").await.unwrap();
    soon("the durable consumer", async { while stream.consumer_info("pelton-reader").await.is_err() {} }).await;
}

#[tokio::test]
async fn a_position_is_taken_at_the_start_in_the_middle_and_below_the_ack_floor() {
    for retention in [RetentionPolicy::Limits, RetentionPolicy::Interest] {
        let server = TestServer::start();
        let jetstream = server.jetstream().await;
        make_stream(&jetstream, retention).await;
        let connection = server.open().await;
        let mut reader = Reader::start(&connection, reader_settings());
        assert_eq!(reader.position(1, 0).await.last_seq, 0);
        reader.handle.pull(1, 10);
        interested(&jetstream).await;
        fill(&jetstream, 1..=1).await;
        assert_eq!(reader.sequences(1, 1).await, [1], "{retention:?}");
        fill(&jetstream, 2..=10).await;
        assert_eq!(reader.sequences(1, 9).await, (2..=10).collect::<Vec<_>>());

        assert_eq!(reader.position(2, 4).await.last_seq, 10);
        reader.handle.pull(2, 100);
        assert_eq!(reader.sequences(2, 6).await, (5..=10).collect::<Vec<_>>(), "{retention:?}");
        reader.handle.settle(7, vec![]);
        soon("the ack floor", async { while ack_floor(&jetstream).await != 7 {} }).await;

        // The host's store was set back: what the stream still has comes again.
        reader.position(3, 2).await;
        reader.handle.pull(3, 100);
        let kept = if retention == RetentionPolicy::Limits { 3 } else { 8 };
        let expected: Vec<u64> = (kept..=10).collect();
        assert_eq!(reader.sequences(3, expected.len()).await, expected, "{retention:?}");

        reader.position(4, 9).await;
        reader.handle.pull(4, 100);
        assert_eq!(reader.sequences(4, 1).await, [10], "{retention:?}");
        reader.handle.settle(10, vec![]);
        if retention == RetentionPolicy::Interest {
            holds(&jetstream, 0).await;
        } else {
            assert_eq!(messages(&jetstream).await, 10);
        }
        reader.subscription.stop().await;
    }
}

#[tokio::test]
async fn a_work_queue_gives_what_is_unsettled_and_lets_go_of_what_lost_its_acknowledgement() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::WorkQueue).await;
    fill(&jetstream, 1..=10).await;
    let connection = server.open().await;
    let mut reader = Reader::start(&connection, reader_settings());
    reader.position(1, 0).await;
    reader.handle.pull(1, 10);
    assert_eq!(reader.sequences(1, 10).await, (1..=10).collect::<Vec<_>>());
    reader.handle.settle(2, vec![5]);
    holds(&jetstream, 7).await;

    // 3 and 4 were settled too, but their acknowledgements never left: they are acknowledged now and not delivered.
    reader.position(2, 4).await;
    reader.handle.pull(2, 10);
    assert_eq!(reader.sequences(2, 5).await, (6..=10).collect::<Vec<_>>());
    holds(&jetstream, 5).await;

    reader.position(3, 0).await;
    reader.handle.pull(3, 10);
    assert_eq!(reader.sequences(3, 5).await, (6..=10).collect::<Vec<_>>(), "a position below the ack floor");
    reader.handle.settle(10, vec![]);
    holds(&jetstream, 0).await;
    reader.subscription.stop().await;
}

#[tokio::test]
async fn what_is_held_of_a_work_queue_is_not_delivered_again() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::WorkQueue).await;
    fill(&jetstream, 1..=3).await;
    let connection = server.open().await;
    let ack_wait = Duration::from_millis(600);
    let mut reader = Reader::start(&connection, SubscriptionSettings { ack_wait, ..reader_settings() });
    reader.position(1, 0).await;
    reader.handle.pull(1, 10);
    assert_eq!(reader.sequences(1, 3).await, [1, 2, 3]);
    // The absence of a redelivery can only be waited for.
    let more = tokio::time::timeout(ack_wait * 4, reader.reports.recv()).await;
    assert!(more.is_err(), "something came: {more:?}");
    fill(&jetstream, 4..=4).await;
    assert_eq!(reader.sequences(1, 1).await, [4]);
    reader.subscription.stop().await;
}

#[tokio::test]
async fn changed_subjects_lose_nothing_on_any_retention() {
    for retention in [RetentionPolicy::Limits, RetentionPolicy::Interest, RetentionPolicy::WorkQueue] {
        let server = TestServer::start();
        let jetstream = server.jetstream().await;
        make_stream(&jetstream, retention).await;
        let connection = server.open().await;
        let narrow = SubscriptionSettings { subjects: vec!["s.1".into(), "s.3".into()], ..reader_settings() };
        let mut reader = Reader::start(&connection, narrow);
        reader.position(1, 0).await;
        reader.handle.pull(1, 10);
        interested(&jetstream).await;
        fill(&jetstream, 1..=1).await;
        assert_eq!(reader.sequences(1, 1).await, [1]);
        fill(&jetstream, 2..=3).await;
        assert_eq!(reader.sequences(1, 1).await, [3], "{retention:?}");
        reader.subscription.stop().await;

        let mut reader = Reader::start(&connection, reader_settings());
        reader.position(1, 1).await;
        reader.handle.pull(1, 10);
        // An interest stream never kept 2, which nobody had asked for.
        let expected = if retention == RetentionPolicy::Interest { vec![3] } else { vec![2, 3] };
        assert_eq!(reader.sequences(1, expected.len()).await, expected, "{retention:?}");
        reader.subscription.stop().await;
    }
}

#[tokio::test]
async fn a_durable_consumer_that_must_not_be_deleted_is_left_to_the_operator() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Interest).await;
    let foreign =
        jetstream::consumer::pull::Config { durable_name: Some("pelton-reader".into()), ..Default::default() };
    jetstream.get_stream("S").await.unwrap().create_consumer(foreign).await.unwrap();
    let connection = server.open().await;
    let mut reader = Reader::start(&connection, reader_settings());
    reader.position(1, 0).await;
    reader.handle.pull(1, 10);
    let Incoming::Failed { error, .. } = reader.next().await else { panic!("not failed") };
    assert!(matches!(error, SubscriptionError::Unusable { .. }), "{error}");
    assert!(error.to_string().contains("nats consumer rm S pelton-reader"), "{error}");
    assert_eq!(reader.lost().await, LostReason::WorthTrying);
    reader.subscription.stop().await;
}
