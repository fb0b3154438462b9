//! A broker that knows less than it did: streams that went backwards, durable consumers that are other than they were.

use std::path::Path;

use super::follower::Follower;
use super::*;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The server as it was when the copy was made; `meanwhile` happens before its clients find it.
async fn set_back(server: &mut TestServer, backup: &Path, meanwhile: u64) {
    server.down();
    let store = server.directory.path().join("jetstream");
    std::fs::remove_dir_all(&store).unwrap();
    copy(backup, &store);
    if meanwhile > 0 {
        let port = std::mem::replace(&mut server.port, free_port());
        server.up();
        fill(&server.jetstream().await, 1..=meanwhile).await;
        server.down();
        server.port = port;
    }
    server.up();
}

#[tokio::test]
async fn a_stream_that_went_backwards_is_noticed_also_when_it_has_grown_again() {
    for retention in [RetentionPolicy::Limits, RetentionPolicy::WorkQueue] {
        for (meanwhile, ends_at) in [(0, 100), (20, 120), (50, 149), (80, 149)] {
            let mut server = TestServer::start();
            make_stream(&server.jetstream().await, retention).await;
            fill(&server.jetstream().await, 1..=100).await;
            let connection = server.open().await;
            let mut follower = Follower::start(&connection, reader_settings());
            // On a work queue the last message is gone once it is settled.
            follower.settle_max = 149;
            follower.until(100).await;
            server.down();
            let backup = TempDir::new().unwrap();
            copy(&server.directory.path().join("jetstream"), backup.path());
            server.up();
            fill(&server.jetstream().await, 101..=150).await;
            follower.until(150).await;
            let before = follower.last_seqs.len();
            set_back(&mut server, backup.path(), meanwhile).await;
            soon("the next look at the stream", async {
                while follower.last_seqs.len() == before {
                    follower.one().await;
                }
            })
            .await;
            assert_eq!(follower.last_seqs.last(), Some(&ends_at), "{retention:?}, {meanwhile} more since");
            follower.reader.subscription.stop().await;
        }
    }
}

#[tokio::test]
async fn a_durable_consumer_that_somebody_made_anew_otherwise_is_put_right() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    let stream = jetstream.get_stream("S").await.unwrap();
    let connection = server.open().await;
    let mut follower = Follower::start(&connection, reader_settings());
    fill(&jetstream, 1..=10).await;
    follower.until(10).await;
    let other = |deliver_policy| jetstream::consumer::pull::Config {
        durable_name: Some("pelton-reader".into()),
        deliver_policy,
        filter_subject: "s.3".into(),
        ..Default::default()
    };
    for (round, policy) in
        [jetstream::consumer::DeliverPolicy::All, jetstream::consumer::DeliverPolicy::New].into_iter().enumerate()
    {
        stream.delete_consumer("pelton-reader").await.unwrap();
        // It may be put right before we get to it, and then it is not ours to make.
        let _ = stream.create_consumer(other(policy)).await;
        follower.until_lost(round + 1).await;
        let next = 11 + u64::try_from(round).unwrap();
        fill(&jetstream, next..=next).await;
        follower.until(next).await;
    }
    assert_eq!(follower.sequences(), (1..=12).collect::<Vec<_>>());
    assert!(follower.seen.values().all(|(_, times)| *times == 1), "what is settled never comes again");
}
