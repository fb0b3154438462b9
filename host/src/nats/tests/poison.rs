//! Messages that the client library can't read: one consumer at a time meets them, each is handed over once it is found, and all goes on behind them.

use super::follower::Follower;
use super::*;

const RETENTIONS: [RetentionPolicy; 3] =
    [RetentionPolicy::Limits, RetentionPolicy::Interest, RetentionPolicy::WorkQueue];

/// Subject, header block, and a part of the reason.
const POISON: [(&[u8], &[u8], &str); 6] = [
    (b"s.poison", b"NATS/1.0\r\nkey: k\r\nx: a\rb\r\n\r\n", "line break"),
    (b"s.poison", b"NATS/1.0\r\nkey: k\r\nx: \xff\xfe\r\n\r\n", "not UTF-8"),
    (b"s.poison", b"NATS/1.0\r\nkey: k\r\nno colon\r\n\r\n", "no colon"),
    (b"s.poison", b"NATS/1.0\r\nkey: k\r\na b: c\r\n\r\n", "name that is none"),
    (b"s.\xff", b"NATS/1.0\r\nkey: k\r\n\r\n", "subject is not UTF-8"),
    (b"s.\xc2\xa0", b"NATS/1.0\r\nkey: k\r\n\r\n", "white space"),
];

/// Publishes what no client would let through.
fn publish_raw(port: u16, subject: &[u8], header: &[u8], payload: &[u8]) {
    use std::io::{Read, Write};
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let mut text = b"CONNECT {\"verbose\":false,\"headers\":true}\r\nHPUB ".to_vec();
    text.extend(subject);
    text.extend(format!(" {} {}\r\n", header.len(), header.len() + payload.len()).bytes());
    text.extend([header, payload, b"\r\nPING\r\n"].concat());
    socket.write_all(&text).unwrap();
    let mut seen = Vec::new();
    while !seen.windows(4).any(|window| window == b"PONG") {
        let mut buffer = [0; 1024];
        let count = socket.read(&mut buffer).unwrap();
        assert!(count > 0, "the server hung up: {}", String::from_utf8_lossy(&seen));
        seen.extend(&buffer[..count]);
    }
}

async fn size(jetstream: &Context) -> u64 {
    jetstream.get_stream("S").await.unwrap().cached_info().state.messages
}

/// Nothing of this is settled, so the stream must keep it.
async fn all_there(jetstream: &Context, sequences: std::ops::RangeInclusive<u64>) {
    for sequence in sequences {
        let found = stored::get(jetstream, "S", stored::Which::exactly(sequence)).await.unwrap();
        assert!(found.is_some(), "{sequence} is gone");
    }
}

/// An interest stream keeps nothing that comes before its consumer.
async fn started(jetstream: &Context, follower: &mut Follower) {
    soon("the first position", async {
        while follower.last_seqs.is_empty() {
            follower.one().await;
        }
        let stream = jetstream.get_stream("S").await.unwrap();
        while stream.consumer_info("pelton-reader").await.is_err() {}
    })
    .await;
}

#[tokio::test]
async fn each_poison_is_handed_over_as_unreadable_and_what_is_behind_it_follows() {
    for retention in RETENTIONS {
        let server = TestServer::start();
        let jetstream = server.jetstream().await;
        make_stream(&jetstream, retention).await;
        let connection = server.open().await;
        let mut follower = Follower::start(&connection, reader_settings());
        started(&jetstream, &mut follower).await;
        let mut expected = Vec::new();
        for (subject, header, _) in POISON {
            fill(&jetstream, 1..=2).await;
            publish_raw(server.port, subject, header, b"payload");
            expected.push(3 * (expected.len() as u64 + 1));
        }
        let last = 3 * POISON.len() as u64 + 1;
        fill(&jetstream, 1..=1).await;
        follower.until(last).await;
        assert_eq!(follower.sequences(), (1..=last).collect::<Vec<_>>(), "{retention:?}");
        assert_eq!(follower.unreadable(), expected, "{retention:?}");
        for (sequence, (_, _, reason)) in expected.iter().zip(POISON) {
            let (delivery, _) = &follower.seen[sequence];
            let flaw = delivery.unreadable.as_deref().unwrap();
            assert!(flaw.contains(reason), "{flaw}");
            assert_eq!(delivery.payload, "payload");
            assert!(delivery.headers.contains(&("key".into(), "k".into())), "{delivery:?}");
            assert!(delivery.published_at_ms > 0);
        }
        if retention != RetentionPolicy::Limits {
            soon("the stream to let go of all", async {
                while size(&jetstream).await != 0 {
                    let _ = tokio::time::timeout(Duration::from_millis(20), follower.one()).await;
                }
            })
            .await;
        }
        // And it is pumped again: the durable consumer gets what comes now.
        fill(&jetstream, 5..=5).await;
        follower.until(last + 1).await;
        soon("the acknowledgement", async {
            let stream = jetstream.get_stream("S").await.unwrap();
            while stream.consumer_info("pelton-reader").await.unwrap().ack_floor.stream_sequence != last + 1 {}
        })
        .await;
        follower.reader.subscription.stop().await;
    }
}

#[tokio::test]
async fn other_consumers_never_notice() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    let connection = server.open().await;
    let mut meets = Follower::start(&connection, reader_settings());
    let sound = SubscriptionSettings { name: "sound".into(), subjects: vec!["s.1".into()], ..reader_settings() };
    let mut sound = Follower::start(&connection, sound);
    fill(&jetstream, 1..=1).await;
    tokio::join!(meets.until(1), sound.until(1));
    publish_raw(server.port, POISON[0].0, POISON[0].1, b"");
    fill(&jetstream, 1..=1).await;
    tokio::join!(meets.until(3), sound.until(3));
    assert_eq!(meets.unreadable(), [2]);
    assert!(meets.lost.contains(&LostReason::Disconnected), "it was poison: {:?}", meets.lost);
    assert!(sound.lost.is_empty(), "{:?}", sound.lost);
    assert!(connection.status().borrow().clone() != ConnectionStatus::Connecting);
}

#[tokio::test]
async fn a_message_held_below_the_poison_loses_nothing_and_the_poison_stays_until_it_is_settled() {
    for retention in RETENTIONS {
        let mut server = TestServer::start();
        let jetstream = server.jetstream().await;
        make_stream(&jetstream, retention).await;
        let connection = server.open().await;
        let mut follower = Follower::start(&connection, reader_settings());
        follower.settle_max = 1;
        started(&jetstream, &mut follower).await;
        fill(&jetstream, 1..=3).await;
        publish_raw(server.port, POISON[1].0, POISON[1].1, b"");
        fill(&jetstream, 1..=3).await;
        follower.until(7).await;
        assert_eq!((follower.floor, follower.unreadable()), (1, vec![4]), "{retention:?}");
        fill(&jetstream, 8..=8).await;
        follower.until(8).await;
        all_there(&jetstream, 2..=8).await;
        // The host was at 1 all the time, and begins there again.
        let before = follower.lost.len();
        server.down();
        server.up();
        follower.until_lost(before + 1).await;
        fill(&jetstream, 9..=9).await;
        follower.until(9).await;
        assert!(follower.seen[&4].1 >= 2, "{retention:?}: it is handed over again, as all above the floor");
        assert_eq!(follower.sequences(), (1..=9).collect::<Vec<_>>(), "{retention:?}");
        all_there(&jetstream, 2..=9).await;
        follower.settle_all();
        fill(&jetstream, 10..=10).await;
        follower.until(10).await;
        if retention != RetentionPolicy::Limits {
            soon("the stream to let go of all", async {
                while size(&jetstream).await != 0 {
                    let _ = tokio::time::timeout(Duration::from_millis(20), follower.one()).await;
                }
            })
            .await;
        }
        follower.reader.subscription.stop().await;
    }
}

#[tokio::test]
async fn poison_that_a_work_queue_kept_from_an_earlier_run_is_removed() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::WorkQueue).await;
    fill(&jetstream, 1..=1).await;
    publish_raw(server.port, POISON[2].0, POISON[2].1, b"");
    fill(&jetstream, 1..=1).await;
    let connection = server.open().await;
    let reader = Reader::start(&connection, reader_settings());
    // It was settled up to 2, and the host died before the queue knew of it.
    let mut follower = Follower::resumed(reader, 2);
    follower.until(3).await;
    assert_eq!(follower.sequences(), [3]);
    soon("the stream to let go of all", async {
        while size(&jetstream).await != 0 {
            let _ = tokio::time::timeout(Duration::from_millis(20), follower.one()).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_largest_messages_just_work_also_when_they_are_read_from_the_store() {
    const PAYLOAD_MAX: usize = 1024 * 1024;
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    // The most that JetStream takes is a little below 64 KiB.
    let wide = [b"NATS/1.0\r\nwide: ".to_vec(), vec![b'w'; 65_000], b"\r\n\r\n".to_vec()].concat();
    let many = format!("NATS/1.0\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    publish_raw(server.port, b"s.1", b"NATS/1.0\r\n\r\n", &vec![b'x'; PAYLOAD_MAX - 12]);
    publish_raw(server.port, b"s.2", &wide, &vec![b'x'; PAYLOAD_MAX - wide.len()]);
    publish_raw(server.port, b"s.3", many.as_bytes(), b"");
    publish_raw(server.port, POISON[0].0, POISON[0].1, b"");
    publish_raw(server.port, b"s.1", b"NATS/1.0\r\n\r\n", &vec![b'x'; PAYLOAD_MAX - 12]);
    publish_raw(server.port, b"s.2", &wide, &vec![b'x'; PAYLOAD_MAX - wide.len()]);
    publish_raw(server.port, b"s.3", many.as_bytes(), b"");
    let big = [b"NATS/1.0\r\nwide: ".to_vec(), vec![b'w'; 65_000], b"\rx\r\n\r\n".to_vec()].concat();
    publish_raw(server.port, b"s.4", &big, &vec![b'x'; PAYLOAD_MAX - big.len()]);
    fill(&jetstream, 1..=1).await;
    let connection = server.open().await;
    let mut follower = Follower::start(&connection, reader_settings());
    follower.until(9).await;
    assert_eq!(follower.unreadable(), [4, 8]);
    let found = |sequence: u64| {
        let Delivery { headers, payload, .. } = &follower.seen[&sequence].0;
        (headers.len(), payload.len())
    };
    assert_eq!([found(1), found(5)], [(0, PAYLOAD_MAX - 12); 2]);
    assert_eq!([found(2), found(6)], [(1, PAYLOAD_MAX - wide.len()); 2]);
    assert_eq!([found(3), found(7)], [(10_000, 0); 2]);
    assert_eq!(found(8), (1, PAYLOAD_MAX - big.len()));
}

#[tokio::test]
async fn a_status_that_a_publisher_wrote_is_no_word_of_the_server() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    for status in ["503", "409 Consumer Deleted", "100 Idle Heartbeat", "404 No Messages", "408 Request Timeout"] {
        publish_raw(server.port, b"s.x", format!("NATS/1.0 {status}\r\nkey: k\r\n\r\n").as_bytes(), b"p");
    }
    let connection = server.open().await;
    let mut follower = Follower::start(&connection, reader_settings());
    follower.until(5).await;
    assert_eq!((follower.sequences(), follower.lost.len()), ((1..=5).collect(), 0));
    assert_eq!(follower.seen[&2].0.headers, [("key".into(), "k".into())]);
}

#[tokio::test]
async fn a_thousand_poison_messages_among_others_are_all_found() {
    let server = TestServer::start();
    let jetstream = server.jetstream().await;
    make_stream(&jetstream, RetentionPolicy::Limits).await;
    let mut expected = Vec::new();
    for n in 0..20_u64 {
        fill(&jetstream, 1..=100).await;
        // Neighbours, and far from the ones before.
        for _ in 0..50 {
            publish_raw(server.port, POISON[0].0, POISON[0].1, b"");
        }
        expected.extend(150 * n + 101..=150 * n + 150);
    }
    fill(&jetstream, 1..=1).await;
    let connection = server.open().await;
    let mut follower = Follower::start(&connection, reader_settings());
    follower.until(3_001).await;
    assert_eq!(follower.unreadable(), expected);
    assert_eq!(follower.sequences().len(), 3_001);
}
