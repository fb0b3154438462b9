//! The embedded server: started, killed and started again, stopped; left behind and found.

use super::*;

fn embedded(directory: &TempDir) -> EmbeddedSettings {
    EmbeddedSettings {
        binary: server_binary(),
        port: 0,
        data_directory: directory.path().to_path_buf(),
        sync_always: false,
        stop_timeout: PATIENCE,
    }
}

fn pid(directory: &TempDir) -> Option<i32> {
    std::fs::read_to_string(directory.path().join("nats/nats-server.pid")).ok()?.trim().parse().ok()
}

fn kill(pid: i32) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

fn connect_to(server: &EmbeddedServer) -> Connection {
    let settings = ConnectSettings { urls: vec![server.url()], credentials: Credentials::None, name: "pelton".into() };
    Connection::open(settings, "test", &CancellationToken::new())
}

#[tokio::test]
async fn a_killed_server_comes_back_on_its_port_with_its_streams() {
    let directory = TempDir::new().unwrap();
    let server = EmbeddedServer::start(embedded(&directory)).await.unwrap();
    let connection = connect_to(&server);
    assert!(soon("the connection", connection.connected()).await);
    let jetstream = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    fill(&jetstream, 1..=3).await;

    let mut status = connection.status();
    let first = pid(&directory).unwrap();
    kill(first);
    soon("the end", status.wait_for(|status| matches!(status, ConnectionStatus::Waiting(_)))).await.unwrap();
    assert!(soon("the connection", connection.connected()).await);
    assert_ne!(pid(&directory), Some(first));
    assert_eq!(connection.stream("S").await.unwrap().last_seq, 3);

    let port = server.port();
    server.stop().await;
    assert_eq!(pid(&directory), None);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());

    let again = EmbeddedServer::start(embedded(&directory)).await.unwrap();
    assert_eq!(again.port(), port, "a free port is kept from start to start");
    again.stop().await;
}

#[tokio::test]
async fn a_server_left_behind_is_ended_and_a_strangers_pid_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let first = EmbeddedServer::start(embedded(&directory)).await.unwrap();
    let left_behind = pid(&directory).unwrap();
    let port = first.port();
    // As after a kill of the host: the second start knows nothing but the files.
    let second = EmbeddedServer::start(embedded(&directory)).await;
    drop(first);
    let second = second.unwrap();
    assert_ne!(pid(&directory), Some(left_behind));
    assert_eq!(second.port(), port);
    second.stop().await;

    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::write(directory.path().join("nats/nats-server.pid"), stranger.id().to_string()).unwrap();
    let third = EmbeddedServer::start(embedded(&directory)).await.unwrap();
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger lives");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    third.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_that_shows_the_log() {
    let directory = TempDir::new().unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let settings = EmbeddedSettings { port: taken.local_addr().unwrap().port(), ..embedded(&directory) };
    let Err(error) = EmbeddedServer::start(settings).await else { panic!("it started") };
    assert!(matches!(error, ServerError::NotStarted { .. }), "{error}");
    assert!(error.to_string().contains("address already in use"), "{error}");
    assert_eq!(pid(&directory), None);
}
