//! Connections that are refused, rejected, and come; streams that are missing, made, and otherwise than declared.

use super::*;

#[tokio::test]
async fn a_server_that_appears_later_is_found() {
    let port = free_port();
    let connection = Connection::open(settings(port, Credentials::None), "test", &CancellationToken::new());
    let mut status = connection.status();
    let refused = |status: &ConnectionStatus| matches!(status, ConnectionStatus::Waiting(ConnectFailure::Unreachable { server, .. }) if server.ends_with(&port.to_string()));
    soon("the refusal", status.wait_for(refused)).await.unwrap();
    let mut server = TestServer::start_on(port, &[]);
    assert!(soon("the connection", connection.connected()).await);
    server.down();
    soon("the end", status.wait_for(|status| matches!(status, ConnectionStatus::Waiting(_)))).await.unwrap();
    server.up();
    assert!(soon("the connection", connection.connected()).await);
    connection.close().await;
    assert_eq!(*status.borrow(), ConnectionStatus::Closed);
}

#[tokio::test]
async fn wrong_credentials_are_named_and_right_ones_work() {
    let server = TestServer::start_on(free_port(), &["--user", "me", "--pass", "right"]);
    let as_me = |password: &str| Credentials::UserPassword { user: "me".into(), password: password.into() };
    let rejected = Connection::open(settings(server.port, as_me("wrong")), "test", &CancellationToken::new());
    let mut status = rejected.status();
    let waiting = |status: &ConnectionStatus| matches!(status, ConnectionStatus::Waiting(_));
    let status = soon("the rejection", status.wait_for(waiting)).await.unwrap().clone();
    let ConnectionStatus::Waiting(failure) = status else { panic!("{status:?}") };
    assert!(matches!(failure, ConnectFailure::Rejected { .. }), "{failure}");
    assert!(failure.to_string().contains("rejected the credentials: check [nats]"), "{failure}");
    let connection = Connection::open(settings(server.port, as_me("right")), "test", &CancellationToken::new());
    assert!(soon("the connection", connection.connected()).await);
}

#[tokio::test]
async fn credentials_that_cant_be_sent_and_urls_that_are_none_are_named() {
    let garbage = Credentials::CredentialsFile("garbage".into());
    let bad_url = ConnectSettings { urls: vec!["http://u:secret@x".into()], ..settings(1, Credentials::None) };
    for (settings, unusable) in [(settings(1, garbage), true), (bad_url, false)] {
        let connection = Connection::open(settings, "test", &CancellationToken::new());
        let mut status = connection.status();
        let waiting = |status: &ConnectionStatus| matches!(status, ConnectionStatus::Waiting(_));
        let status = soon("the failure", status.wait_for(waiting)).await.unwrap().clone();
        let ConnectionStatus::Waiting(failure) = status else { panic!("{status:?}") };
        assert_eq!(matches!(failure, ConnectFailure::UnusableCredentials { .. }), unusable, "{failure}");
        assert!(failure.to_string().contains("check [nats]") && !failure.to_string().contains("secret"), "{failure}");
    }
}

fn declaration() -> StreamDeclaration {
    StreamDeclaration {
        name: "D".into(),
        subjects: vec!["d.>".into(), "e".into()],
        retention: Retention::WorkQueue,
        max_age: Duration::from_secs(3600),
        max_bytes: 0,
        duplicate_window: Duration::from_secs(60),
        replicas: 1,
    }
}

#[tokio::test]
async fn a_declared_stream_is_made_once_and_never_changed() {
    let server = TestServer::start();
    let connection = server.open().await;
    let missing = connection.stream("D").await.unwrap_err();
    assert_eq!(missing, StreamError::Missing { stream: "D".into() });
    assert!(missing.to_string().contains("[[streams]]"));

    assert_eq!(connection.ensure_stream(&declaration()).await, Ok(Ensured::Created));
    assert_eq!(connection.ensure_stream(&declaration()).await, Ok(Ensured::Present));
    let facts = connection.stream("D").await.unwrap();
    assert_eq!((facts.last_seq, facts.retention, facts.subjects.len()), (0, Retention::WorkQueue, 2));
    assert!(facts.identity.created_ns > 0);

    let other = StreamDeclaration { subjects: vec!["f".into()], retention: Retention::Limits, ..declaration() };
    let Ok(Ensured::Differs(warning)) = connection.ensure_stream(&other).await else { panic!("not told apart") };
    assert!(warning.contains("subjects") && warning.contains("work-queue"), "{warning}");
    assert_eq!(connection.stream("D").await.unwrap(), facts, "it was left as it is");

    let overlapping = StreamDeclaration { name: "E".into(), ..declaration() };
    let refused = connection.ensure_stream(&overlapping).await.unwrap_err();
    assert!(matches!(refused, StreamError::Refused { .. }) && refused.to_string().contains("overlap"), "{refused}");
}
