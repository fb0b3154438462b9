//! Registries in trouble: a small HTTP server that answers as each test wants, and what is kept meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pelton_core::ids::Version;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::kept::Kept;
use super::oci::Registries;
use super::{SourceError, Sources, Wanted};
use crate::board::Board;
use crate::config::{ComponentSource, OciConfig, OciPick, OciSource};
use crate::nats::{ConnectSettings, Connection, Credentials, Objects};

const BYTES_MAX: usize = 1 << 20;

/// How the server answers a request.
#[derive(Clone)]
enum Answer {
    Whole(u16, Vec<u8>),
    /// Announces all of it, sends half of it, and hangs up.
    Cut(Vec<u8>),
    /// Sends a byte from time to time.
    Slow(Vec<u8>),
}

/// A registry that has one image, and answers each path as it was told.
struct Registry {
    address: SocketAddr,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", Version(Sha256::digest(bytes).into()))
}

fn version(bytes: &[u8]) -> Version {
    Version(Sha256::digest(bytes).into())
}

/// The manifest of an image with this component.
fn manifest(component: &[u8]) -> Vec<u8> {
    let layer =
        serde_json::json!({"mediaType": "application/wasm", "digest": sha256(component), "size": component.len()});
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.wasm.config.v0+json", "digest": sha256(b"{}"), "size": 2},
        "layers": [layer],
    }))
    .unwrap()
}

const TAG: &str = "/v2/plugin/manifests/1";

impl Registry {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Self { address, answers: Arc::default(), asked: Arc::default() };
        let (answers, asked) = (Arc::clone(&registry.answers), Arc::clone(&registry.asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&answers), Arc::clone(&asked)));
            }
        });
        registry.set("/v2/", Answer::Whole(200, b"{}".to_vec()));
        registry
    }

    fn set(&self, path: &str, answer: Answer) {
        self.answers.lock().insert(path.to_owned(), answer);
    }

    /// Tag 1 is the image with this component.
    fn publish(&self, component: &[u8]) {
        self.set(TAG, Answer::Whole(200, manifest(component)));
        self.set(&layer_path(component), Answer::Whole(200, component.to_vec()));
    }

    fn source(&self, pick: OciPick) -> ComponentSource {
        let registry = self.address.to_string();
        ComponentSource::Oci(OciSource { registry, repository: "plugin".into(), pick })
    }

    fn tag(&self) -> ComponentSource {
        self.source(OciPick::Tag("1".into()))
    }

    fn times_asked(&self, path: &str) -> usize {
        self.asked.lock().iter().filter(|asked| *asked == path).count()
    }
}

fn layer_path(component: &[u8]) -> String {
    format!("/v2/plugin/blobs/{}", sha256(component))
}

async fn answer(
    mut stream: TcpStream,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let found = answers.lock().get(&path).cloned().unwrap_or(Answer::Whole(404, b"not here".to_vec()));
    asked.lock().push(path);
    let (status, body) = match &found {
        Answer::Whole(status, body) => (*status, body),
        Answer::Cut(body) | Answer::Slow(body) => (200, body),
    };
    let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    match &found {
        Answer::Whole(..) => stream.write_all(body).await?,
        Answer::Cut(_) => stream.write_all(&body[..body.len() / 2]).await?,
        Answer::Slow(_) => {
            for byte in body.chunks(1) {
                stream.write_all(byte).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    stream.shutdown().await
}

fn config() -> OciConfig {
    // Whatever the user who runs the tests has in ~/.docker is not looked at.
    let docker_config = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source/no-logins.json"));
    OciConfig { docker_config, fetch_timeout_ms: 2_000, ..OciConfig::default() }
}

fn kept() -> (TempDir, Arc<Kept>) {
    let directory = tempfile::tempdir().unwrap();
    let kept = Arc::new(Kept::open(directory.path().join("sources"), BYTES_MAX).unwrap());
    (directory, kept)
}

/// Fetches and keeps, as the task of a source does.
async fn fetch(source: &ComponentSource, kept: &Arc<Kept>) -> Result<Version, SourceError> {
    let ComponentSource::Oci(image) = source else { panic!("{source} is no image") };
    let (version, arrived) = Registries::new(config()).fetch(source, image, kept).await?;
    kept.note(source, version, arrived)?;
    Ok(version)
}

fn files(directory: &Path) -> BTreeSet<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn an_image_is_fetched_once_and_kept() {
    let registry = Registry::start().await;
    let (_directory, kept) = kept();
    registry.publish(b"one");
    let tag = registry.tag();
    assert!(kept.read(&tag).unwrap_err().to_string().contains("was not fetched yet"));
    for _ in 0..2 {
        assert_eq!(fetch(&tag, &kept).await.unwrap(), version(b"one"));
    }
    assert_eq!(kept.read(&tag).unwrap(), b"one");
    assert_eq!((registry.times_asked(TAG), registry.times_asked(&layer_path(b"one"))), (2, 1));
    // The same component under another name costs a manifest only.
    registry.set("/v2/plugin/manifests/2", Answer::Whole(200, manifest(b"one")));
    let other = registry.source(OciPick::Tag("2".into()));
    assert_eq!(fetch(&other, &kept).await.unwrap(), version(b"one"));
    assert_eq!(registry.times_asked(&layer_path(b"one")), 1);
    registry.publish(b"two");
    assert_eq!(fetch(&tag, &kept).await.unwrap(), version(b"two"));
    assert_eq!((kept.read(&tag).unwrap(), kept.read(&other).unwrap()), (b"two".to_vec(), b"one".to_vec()));
}

#[tokio::test]
async fn a_digest_binds_and_is_asked_for_once() {
    let registry = Registry::start().await;
    let (_directory, kept) = kept();
    let digest = sha256(&manifest(b"one"));
    let source = registry.source(OciPick::Digest(digest.clone()));
    let path = format!("/v2/plugin/manifests/{digest}");
    registry.publish(b"one");
    // Another image under the same digest.
    registry.set(&path, Answer::Whole(200, manifest(b"two")));
    registry.set(&layer_path(b"two"), Answer::Whole(200, b"two".to_vec()));
    let error = fetch(&source, &kept).await.unwrap_err().to_string();
    assert!(error.contains("binds") && error.contains(&sha256(&manifest(b"two"))), "{error}");
    assert!(kept.read(&source).is_err());
    registry.set(&path, Answer::Whole(200, manifest(b"one")));
    for _ in 0..3 {
        assert_eq!(fetch(&source, &kept).await.unwrap(), version(b"one"));
    }
    assert_eq!(registry.times_asked(&path), 2);
}

#[tokio::test]
async fn whatever_goes_wrong_leaves_what_is_kept() {
    let registry = Registry::start().await;
    let (_directory, kept) = kept();
    registry.publish(b"one");
    let tag = registry.tag();
    fetch(&tag, &kept).await.unwrap();
    let layer = |answer: Answer| {
        registry.set(TAG, Answer::Whole(200, manifest(b"two, which is longer")));
        registry.set(&layer_path(b"two, which is longer"), answer);
    };
    let failed = async |says: &str| {
        let error = fetch(&tag, &kept).await.unwrap_err().to_string();
        assert!(error.contains(says), "{says:?} in {error:?}");
        assert_eq!(kept.read(&tag).unwrap(), b"one", "{says}");
    };
    registry.set(TAG, Answer::Whole(500, b"out of order".to_vec()));
    failed("HTTP status 500 out of order").await;
    registry.set(TAG, Answer::Whole(503, vec![b'x'; 100_000])); // Not all of that is shown.
    failed("HTTP status 503 xxx").await;
    let denied = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    registry.set(TAG, Answer::Whole(404, denied.to_vec()));
    failed("manifest unknown").await;
    registry.set(TAG, Answer::Whole(401, Vec::new()));
    failed("refuses access (asked without a login").await;
    registry.set(TAG, Answer::Whole(200, b"<html>".to_vec()));
    failed("not an image of a component").await;
    registry.set(TAG, Answer::Cut(manifest(b"two")));
    failed("can't be asked").await;
    layer(Answer::Whole(500, b"out of order".to_vec()));
    failed("HTTP status 500").await;
    layer(Answer::Cut(b"two, which is longer".to_vec()));
    failed("can't be asked").await;
    layer(Answer::Whole(200, b"something else".to_vec()));
    failed("digest").await;
    // And then it goes well.
    layer(Answer::Whole(200, b"two, which is longer".to_vec()));
    fetch(&tag, &kept).await.unwrap();
    assert_eq!(kept.read(&tag).unwrap(), b"two, which is longer");
}

#[tokio::test]
async fn more_than_the_limit_is_refused_when_it_is_announced_and_when_it_comes() {
    let registry = Registry::start().await;
    let (_directory, kept) = kept();
    let large = vec![7; BYTES_MAX + 1];
    registry.publish(&large);
    let too_large = |outcome| matches!(outcome, Err(SourceError::TooLarge { most: BYTES_MAX, .. }));
    assert!(too_large(fetch(&registry.tag(), &kept).await));
    assert_eq!(registry.times_asked(&layer_path(&large)), 0, "not even begun");
    // A manifest that lies about it.
    let lie = String::from_utf8(manifest(&large)).unwrap().replace(&large.len().to_string(), "10");
    registry.set(TAG, Answer::Whole(200, lie.into_bytes()));
    assert!(too_large(fetch(&registry.tag(), &kept).await));
}

#[tokio::test]
async fn a_component_that_was_damaged_on_the_disk_is_not_used_and_fetched_again() {
    let registry = Registry::start().await;
    let (directory, kept) = kept();
    let digest = sha256(&manifest(b"one"));
    let source = registry.source(OciPick::Digest(digest.clone()));
    registry.publish(b"one");
    registry.set(&format!("/v2/plugin/manifests/{digest}"), Answer::Whole(200, manifest(b"one")));
    fetch(&source, &kept).await.unwrap();
    let file = directory.path().join("sources").join(format!("{}.wasm", version(b"one")));
    std::fs::write(&file, "0ne").unwrap();
    assert!(kept.read(&source).unwrap_err().to_string().contains("damaged"));
    let before = kept.note_file(&source).metadata().unwrap().modified().unwrap();
    fetch(&source, &kept).await.unwrap();
    assert_eq!(kept.read(&source).unwrap(), b"one");
    let after = kept.note_file(&source).metadata().unwrap().modified().unwrap();
    assert!(after > before, "whoever watches the note must look again");
}

#[tokio::test]
async fn what_nobody_needs_any_more_is_deleted_but_for_the_last_few() {
    let registry = Registry::start().await;
    let (directory, kept) = kept();
    let mut sources = Vec::new();
    for n in 0..8 {
        let component = format!("component {n}");
        registry.set(&format!("/v2/plugin/manifests/{n}"), Answer::Whole(200, manifest(component.as_bytes())));
        registry.set(&layer_path(component.as_bytes()), Answer::Whole(200, component.into_bytes()));
        let source = registry.source(OciPick::Tag(n.to_string()));
        fetch(&source, &kept).await.unwrap();
        sources.push(source);
        // Their age is what is told apart.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _coming = kept.receive(&sources[0]).await.unwrap();
    let _given_up = kept.receive(&sources[5]).await.unwrap();
    kept.prune(&BTreeSet::from([sources[0].clone(), sources[1].clone()])).unwrap();
    let readable: Vec<bool> = sources.iter().map(|source| kept.read(source).is_ok()).collect();
    assert_eq!(readable, [true, true, false, false, true, true, true, true]);
    // Six notes, six components, and the one that is coming.
    assert_eq!(files(&directory.path().join("sources")).len(), 13);
}

/// Sources over a directory, and a board that shows what they say.
fn sources(directory: &Path) -> (Sources, Arc<Board>) {
    let nowhere = ConnectSettings { urls: Vec::new(), credentials: Credentials::None, name: "test".into() };
    let connection = Arc::new(Connection::open(nowhere, "test", &CancellationToken::new()));
    let board = Arc::new(Board::default());
    board.note("a", |_| {});
    let (directory, objects) = (directory.join("sources"), Objects::new(connection));
    let sources = Sources::new(directory, BYTES_MAX, config(), objects, Arc::clone(&board)).unwrap();
    (sources, board)
}

fn trouble(board: &Board) -> String {
    board.entries()["a"].source.clone().unwrap_or_default()
}

fn wants(source: &ComponentSource, poll_ms: u64) -> BTreeMap<String, Wanted> {
    [("a".to_owned(), Wanted { source: source.clone(), poll_ms, written: None })].into()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited too long until {what}");
}

#[tokio::test]
async fn a_tag_is_asked_again_when_somebody_deploys_and_at_no_other_time() {
    let registry = Registry::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (sources, board) = sources(directory.path());
    registry.publish(b"one");
    let tag = registry.tag();
    sources.follow(wants(&tag, 0), std::iter::empty());
    until("it is fetched", || sources.read(&tag).is_ok()).await;
    registry.publish(b"two");
    sources.follow(wants(&tag, 0), std::iter::empty());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((sources.read(&tag).unwrap(), registry.times_asked(TAG)), (b"one".to_vec(), 1));
    sources.ask_again(Duration::from_secs(30)).await;
    assert_eq!((sources.read(&tag).unwrap(), registry.times_asked(TAG)), (b"two".to_vec(), 2));
    // A manifest that is written again is a deployment.
    registry.publish(b"three");
    let written = Some(std::time::SystemTime::now());
    let again = wants(&tag, 0).into_iter().map(|(name, wanted)| (name, Wanted { written, ..wanted })).collect();
    sources.follow(again, std::iter::empty());
    until("it is fetched", || sources.read(&tag).unwrap() == b"three").await;
    // Polled, it is asked without any of that.
    sources.follow(wants(&tag, 50), std::iter::empty());
    until("it is polled", || registry.times_asked(TAG) > 8).await;
    registry.publish(b"four");
    until("it is fetched", || sources.read(&tag).unwrap() == b"four").await;
    assert_eq!(trouble(&board), "");
}

#[tokio::test]
async fn what_is_kept_serves_while_the_registry_is_away_and_the_board_says_so() {
    let registry = Registry::start().await;
    let directory = tempfile::tempdir().unwrap();
    registry.publish(b"one");
    let tag = registry.tag();
    {
        let (sources, _) = sources(directory.path());
        sources.follow(wants(&tag, 0), std::iter::empty());
        until("it is fetched", || sources.read(&tag).is_ok()).await;
    }
    registry.set(TAG, Answer::Whole(500, b"out of order".to_vec()));
    let (sources, board) = sources(directory.path());
    assert_eq!(sources.read(&tag).unwrap(), b"one", "before anybody is asked");
    sources.follow(wants(&tag, 0), std::iter::empty());
    until("the trouble is told", || trouble(&board).contains("out of order")).await;
    assert!(trouble(&board).contains(&format!("version {} serves", version(b"one").short())), "{}", trouble(&board));
    // Nobody has to do anything when it is back.
    registry.publish(b"two");
    until("it is fetched", || sources.read(&tag).unwrap() == b"two").await;
    until("the trouble is over", || trouble(&board).is_empty()).await;
    registry.set(TAG, Answer::Whole(500, b"out of order".to_vec()));
    sources.ask_again(Duration::from_secs(30)).await;
    assert!(!trouble(&board).is_empty());
    // A manifest that can't be read any more changes nothing; one that is gone takes its trouble along.
    sources.follow(BTreeMap::new(), [&"a".to_owned()].into_iter());
    assert!(!trouble(&board).is_empty());
    sources.follow(BTreeMap::new(), std::iter::empty());
    assert_eq!(trouble(&board), "");
}

#[tokio::test]
async fn one_slow_registry_is_given_up_in_time_and_holds_up_no_other() {
    let (slow, quick) = (Registry::start().await, Registry::start().await);
    let directory = tempfile::tempdir().unwrap();
    let (sources, board) = sources(directory.path());
    slow.set(TAG, Answer::Whole(200, manifest(&[7; 1_000])));
    slow.set(&layer_path(&[7; 1_000]), Answer::Slow(vec![7; 1_000]));
    quick.publish(b"one");
    let mut wanted = wants(&slow.tag(), 0);
    wanted.insert("b".into(), Wanted { source: quick.tag(), poll_ms: 0, written: None });
    sources.follow(wanted, std::iter::empty());
    until("the other one is fetched", || sources.read(&quick.tag()).is_ok()).await;
    assert_eq!(trouble(&board), "", "the slow one is still coming");
    until("the slow one is given up", || trouble(&board).contains("longer than 2000 ms")).await;
    assert!(trouble(&board).contains("nothing of it was fetched before"), "{}", trouble(&board));
}
