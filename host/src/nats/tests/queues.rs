//! Work-queue streams: one consumer per subject, and what is held stays ours.

use std::collections::BTreeMap;

use futures_util::StreamExt;

use super::*;

fn named(name: &str, subjects: &[&str]) -> SubscriptionSettings {
    let subjects = subjects.iter().map(|subject| (*subject).into()).collect();
    SubscriptionSettings { name: name.into(), subjects, ..reader_settings() }
}

async fn refused(reader: &mut Reader, generation: u64) -> SubscriptionError {
    reader.position(generation, 0).await;
    reader.handle.pull(generation, 10);
    match reader.next().await {
        Incoming::Failed { error, .. } => error,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_second_consumer_of_a_work_queue_is_refused_with_the_first_ones_name() {
    for (first, second, subject) in
        [(&["s.>"][..], &["s.1"][..], "s.1"), (&["s.1", "s.2"], &["s.*.x", "s.*"], "s.*"), (&["s.>"], &["s.>"], "s.>")]
    {
        let server = TestServer::start();
        let jetstream = server.jetstream().await;
        make_stream(&jetstream, RetentionPolicy::WorkQueue).await;
        let connection = server.open().await;
        let mut holder = Reader::start(&connection, named("orders", first));
        holder.position(1, 0).await;
        holder.handle.pull(1, 10);
        fill(&jetstream, 1..=1).await;
        holder.take(1, 1).await;

        let mut late = Reader::start(&connection, named("billing", second));
        let error = refused(&mut late, 1).await;
        assert!(matches!(error, SubscriptionError::Taken { .. }), "{error}");
        for part in ["consumer billing", "consumer orders", "stream S", subject, "nats consumer rm S pelton-orders"] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        // The first one is not disturbed, and the second begins when it is gone.
        fill(&jetstream, 2..=2).await;
        holder.take(1, 1).await;
        holder.handle.settle(2, vec![]);
        holder.subscription.stop().await;
        jetstream.get_stream("S").await.unwrap().delete_consumer("pelton-orders").await.unwrap();
        assert_eq!(late.lost().await, LostReason::WorthTrying);
        late.position(2, 0).await;
        late.handle.pull(2, 10);
        // On a stream that deletes what is acknowledged, at the latest what comes now is left.
        fill(&jetstream, 1..=1).await;
        let taken = late.take(2, 1).await;
        assert!(&*taken[0].subject == "s.1");
        late.subscription.stop().await;
    }
}

#[tokio::test]
async fn a_consumer_that_grows_over_another_one_and_a_foreign_one_are_told_apart() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::WorkQueue).await;
    let stream = jetstream.get_stream("S").await.unwrap();
    let foreign = jetstream::consumer::pull::Config {
        durable_name: Some("legacy".into()),
        filter_subject: "s.old.>".into(),
        ..Default::default()
    };
    stream.create_consumer(foreign).await.unwrap();
    let connection = server.open().await;
    let mut reader = Reader::start(&connection, named("reader", &["s.new.>"]));
    reader.position(1, 0).await;
    reader.handle.pull(1, 10);
    jetstream.publish("s.new.1", "x".into()).await.unwrap().await.unwrap();
    reader.take(1, 1).await;
    reader.subscription.stop().await;

    let mut wider = Reader::start(&connection, named("reader", &["s.>"]));
    let error = refused(&mut wider, 1).await.to_string();
    assert!(error.contains("durable consumer legacy, which is not of Pelton"), "{error}");
    wider.subscription.stop().await;
}

#[tokio::test]
async fn every_message_that_is_held_is_reported_in_progress_until_it_is_settled() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::WorkQueue).await;
    fill(&jetstream, 1..=3).await;
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await.unwrap();
    let mut answers = client.subscribe("$JS.ACK.S.pelton-reader.>").await.unwrap();
    let connection = server.open().await;
    let ack_wait = Duration::from_millis(900);
    let mut reader = Reader::start(&connection, SubscriptionSettings { ack_wait, ..reader_settings() });
    reader.position(1, 0).await;
    reader.handle.pull(1, 10);
    assert_eq!(reader.sequences(1, 3).await, [1, 2, 3]);

    let mut reports: BTreeMap<u64, u32> = BTreeMap::new();
    let mut heard = async |reports: &mut BTreeMap<u64, u32>| {
        let answer = soon("a report", answers.next()).await.unwrap();
        let sequence = super::super::ack_reply::AckReply::parse(&answer.subject).unwrap().stream_sequence;
        if &*answer.payload == b"+WPI" {
            *reports.entry(sequence).or_default() += 1;
        }
        (sequence, answer.payload)
    };
    let began = tokio::time::Instant::now();
    while reports.len() < 3 || reports.values().any(|count| *count < 6) {
        heard(&mut reports).await;
    }
    // Six reports at a third of 900 ms each; a server that is asked at its own pace would have delivered again by now.
    assert!(began.elapsed() >= ack_wait, "not more often than it takes");
    reader.handle.settle(0, vec![2]);
    while heard(&mut reports).await != (2, "+ACK".into()) {}
    let so_far = reports[&2];
    while reports[&1] < 12 || reports[&3] < 12 {
        heard(&mut reports).await;
    }
    assert_eq!(reports[&2], so_far, "what is settled is not reported");
    reader.subscription.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_steady_flow_does_not_keep_reports_from_being_sent() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::WorkQueue).await;
    let connection = server.open().await;
    let ack_wait = Duration::from_millis(600);
    let mut reader = Reader::start(&connection, SubscriptionSettings { ack_wait, ..reader_settings() });
    reader.position(1, 0).await;
    reader.handle.pull(1, 1_000);
    let filling = tokio::spawn(async move {
        fill(&jetstream, 1..=60_000).await;
    });
    let (mut highest, mut again) = (0, vec![]);
    while highest < 60_000 {
        match reader.next().await {
            Incoming::Delivered { deliveries, .. } => {
                reader.handle.pull(1, u32::try_from(deliveries.len()).unwrap());
                again.extend(
                    deliveries.iter().map(|delivery| delivery.sequence).filter(|sequence| *sequence <= highest),
                );
                highest = deliveries.last().unwrap().sequence.max(highest);
                // The first message is held all the time; every other one is settled at once.
                reader.handle.settle(0, deliveries.iter().map(|d| d.sequence).filter(|s| *s > 1).collect());
            }
            Incoming::PullEnded { undelivered, .. } => reader.handle.pull(1, undelivered),
            other => panic!("{other:?}"),
        }
    }
    filling.await.unwrap();
    assert!(again.is_empty(), "delivered again: {again:?}");
    reader.subscription.stop().await;
}
