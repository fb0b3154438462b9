//! Events out: ids, order, refusals, and a server that goes away.

use pelton_core::effects::Event;
use pelton_core::ids::RowId;

use super::*;

pub(super) struct Writer {
    pub(super) publisher: Publisher,
    handle: PublisherHandle,
    pub(super) reports: UnboundedReceiver<PublishReport>,
    pub(super) session: u64,
}

impl Writer {
    pub(super) async fn start(connection: &Connection) -> Self {
        let (sender, reports) = unbounded_channel();
        let publisher = Publisher::start(connection, Arc::new(move |report| sender.send(report).unwrap_or(())));
        let mut writer = Self { handle: publisher.handle(), publisher, reports, session: 0 };
        writer.connected().await;
        writer
    }

    pub(super) async fn connected(&mut self) {
        match soon("a report", self.reports.recv()).await {
            Some(PublishReport::Connected { session }) => self.session = session,
            other => panic!("not connected: {other:?}"),
        }
    }

    pub(super) fn publish(&self, row: u64, event: &Event) {
        self.handle.publish(self.session, RowId(row), Arc::new(event.clone()));
    }

    pub(super) async fn results(&mut self, count: usize) -> Vec<PublishResult> {
        let mut results = Vec::new();
        while results.len() < count {
            match soon("results", self.reports.recv()).await {
                Some(PublishReport::Results(more)) => results.extend(more),
                other => panic!("{other:?} after {} results", results.len()),
            }
        }
        results
    }

    /// Publishes until it is acknowledged.
    pub(super) async fn insist(&mut self, row: u64, event: &Event) {
        self.publish(row, event);
        loop {
            match self.reports.recv().await.expect("the publisher's task is gone") {
                PublishReport::Connected { session } => self.session = session,
                PublishReport::Results(results) if results == [PublishResult::Acked(RowId(row))] => return,
                PublishReport::Results(_) => self.publish(row, event),
            }
        }
    }

    pub(super) async fn result(&mut self) -> PublishResult {
        self.results(1).await.remove(0)
    }
}

pub(super) fn event(id: &str, subject: &str) -> Event {
    Event {
        id: id.into(),
        subject: subject.into(),
        key: None,
        headers: vec![("x".into(), "y".into())],
        payload: id.to_owned().into(),
    }
}

fn error(result: PublishResult) -> PublishError {
    match result {
        PublishResult::Refused { error, .. } => error,
        PublishResult::Acked(row) => panic!("{row:?} was acknowledged"),
    }
}

#[tokio::test]
async fn an_id_is_stored_once_however_often_it_is_published() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    let connection = server.open().await;
    let mut writer = Writer::start(&connection).await;
    for row in [1, 2, 1] {
        writer.publish(row, &event("same", "s.a"));
        assert_eq!(writer.result().await, PublishResult::Acked(RowId(row)));
    }
    let stream = jetstream.get_stream("S").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 1);
    let stored = stream.get_raw_message(1).await.unwrap();
    let header = |name: &str| stored.headers.get(name).map(|value| value.as_str().to_owned());
    assert_eq!((header("Nats-Msg-Id").as_deref(), header("x").as_deref()), (Some("same"), Some("y")));
    writer.publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_stored_in_the_order_of_the_calls() {
    const COUNT: u64 = 20_000;
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    let connection = server.open().await;
    let mut writer = Writer::start(&connection).await;
    let (mut sent, mut acked) = (0, 0);
    while acked < COUNT {
        while sent < COUNT && sent - acked < 4_096 {
            sent += 1;
            writer.publish(
                sent,
                &Event { payload: vec![b'x'; 256].into(), ..event(&format!("id-{sent}"), &format!("s.{sent}")) },
            );
        }
        for result in writer.results(1).await {
            assert!(matches!(result, PublishResult::Acked(_)), "{result:?}");
            acked += 1;
        }
    }
    let mut reader = Reader::start(&connection, reader_settings());
    reader.position(1, 0).await;
    reader.handle.pull(1, u32::try_from(COUNT).unwrap());
    for (expected, delivery) in (1..).zip(reader.take(1, usize::try_from(COUNT).unwrap()).await) {
        assert_eq!(*delivery.subject, format!("s.{expected}"));
    }
    reader.subscription.stop().await;
    writer.publisher.stop().await;
}

#[tokio::test]
async fn what_cant_be_stored_is_refused_by_name_and_the_rest_goes_on() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    let sealed =
        Config { name: "FULL".into(), subjects: vec!["full".into()], max_message_size: 1, ..Config::default() };
    jetstream.create_stream(sealed).await.unwrap();
    let connection = server.open().await;
    let mut writer = Writer::start(&connection).await;

    writer.publish(1, &event("a", "nowhere"));
    assert_eq!(error(writer.result().await), PublishError::NoStream { subject: "nowhere".into() });
    writer.publish(2, &event("b", "full"));
    assert!(matches!(error(writer.result().await), PublishError::Stream { code: 10054, .. }));
    writer.publish(3, &Event { payload: vec![0; 1024 * 1024].into(), ..event("c", "s.a") });
    assert!(matches!(error(writer.result().await), PublishError::TooLarge { bytes_max: 1_048_576, .. }));
    writer.publish(4, &Event { headers: vec![("x".into(), "a\r\nb".into())], ..event("d", "s.a") });
    assert!(matches!(error(writer.result().await), PublishError::Invalid { .. }));
    writer.publish(5, &event("e", "s. a"));
    assert!(matches!(error(writer.result().await), PublishError::Invalid { .. }));
    writer.publish(6, &event("f", "s.a"));
    assert_eq!(writer.result().await, PublishResult::Acked(RowId(6)));
    writer.publisher.stop().await;
}

#[tokio::test]
async fn a_server_that_goes_away_refuses_what_is_under_way_and_what_comes_too_late() {
    let mut server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    let connection = server.open().await;
    let mut writer = Writer::start(&connection).await;
    let old = writer.session;
    writer.publish(1, &event("a", "s.a"));
    assert_eq!(writer.result().await, PublishResult::Acked(RowId(1)));
    server.down();
    for row in 2..=100 {
        writer.publish(row, &event(&row.to_string(), "s.a"));
    }
    for result in writer.results(99).await {
        assert_eq!(error(result), PublishError::Disconnected);
    }
    server.up();
    writer.connected().await;
    writer.handle.publish(old, RowId(101), Arc::new(event("late", "s.a")));
    assert_eq!(error(writer.result().await), PublishError::Disconnected, "its caller didn't know of the refusals yet");
    for row in 2..=100 {
        writer.publish(row, &event(&row.to_string(), "s.a"));
    }
    for (row, result) in (2..).zip(writer.results(99).await) {
        assert_eq!(result, PublishResult::Acked(RowId(row)));
    }
    writer.publisher.stop().await;
}
