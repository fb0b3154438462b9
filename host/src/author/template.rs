//! `pelton new`: the files of a plug-in that builds, with a manifest, cases and a NATS server of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::BadInput;

/// The languages that there is a template for.
pub const LANGUAGES: [&str; 1] = ["rust"];
/// Longest name, in bytes: it becomes the consumer's.
const NAME_BYTES_MAX: usize = 63;
/// What Cargo takes for something else, or what the plug-in depends on.
const TAKEN: [&str; 12] = [
    "alloc",
    "build",
    "core",
    "deps",
    "examples",
    "pelton-sdk",
    "proc-macro",
    "release",
    "serde",
    "serde-json",
    "std",
    "test",
];
/// Words of the language that look like a name.
const KEYWORDS: [&str; 46] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "unsafe", "use", "where",
];

/// What is made.
#[derive(Clone, Debug)]
pub struct NewOptions {
    /// The plug-in's directory. Its last part is the plug-in's name.
    pub directory: PathBuf,
    /// One of [`LANGUAGES`].
    pub language: String,
    /// Where the sdk is; none: where the host was built from, if it is still there, else the published one.
    pub sdk: Option<PathBuf>,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// Its name.
    pub name: String,
    /// Where the sdk comes from, in words.
    pub sdk: String,
    /// The files below the directory.
    pub files: Vec<&'static str>,
}

/// Makes a plug-in's directory.
///
/// # Errors
/// [`BadInput`] if the name can't be one, there is something of that name, or the language or the sdk is not there; or what the file system says.
pub fn create(options: &NewOptions) -> anyhow::Result<Created> {
    let directory = &options.directory;
    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    check_name(name)?;
    if !LANGUAGES.contains(&options.language.as_str()) {
        let there = LANGUAGES.join(", ");
        let advice = "plug-ins in other languages are made from wit/consumer.wit";
        return Err(BadInput(format!("--lang {}: there are templates for {there}; {advice}", options.language)).into());
    }
    if directory.symlink_metadata().is_ok() {
        let text = format!("{} exists already: choose another name, or remove it first", directory.display());
        return Err(BadInput(text).into());
    }
    let (dependency, sdk) = sdk(options.sdk.as_deref())?;
    let files = files(name, &dependency);
    for (below, text) in &files {
        let path = directory.join(below.replace("NAME", name));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| cannot_write(parent, &error))?;
        }
        std::fs::write(&path, text).map_err(|error| cannot_write(&path, &error))?;
    }
    Ok(Created { name: name.to_owned(), sdk, files: files.into_iter().map(|(below, _)| below).collect() })
}

fn cannot_write(path: &Path, error: &std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("{} can't be written: {error}", path.display())
}

fn check_name(name: &str) -> Result<(), BadInput> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !first || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
        let rule = "1 to 63 of a-z, 0-9 and \"-\", beginning with a letter";
        return Err(BadInput(format!("{name:?} can't be a plug-in's name: it has {rule}")));
    }
    if TAKEN.contains(&name) || KEYWORDS.contains(&name) {
        return Err(BadInput(format!(
            "{name:?} can't be a plug-in's name: Rust has another use for it; choose another one"
        )));
    }
    Ok(())
}

/// The dependency's line, and where the sdk comes from, in words.
fn sdk(named: Option<&Path>) -> Result<(String, String), BadInput> {
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk");
    let is_sdk = |path: &Path| path.join("Cargo.toml").is_file() && path.join("src/testing").is_dir();
    let at = |path: &Path| {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        (format!("{{ path = {:?} }}", path.display().to_string()), format!("from {}", path.display()))
    };
    match named {
        Some(path) if is_sdk(path) => Ok(at(path)),
        Some(path) => Err(BadInput(format!("--sdk {}: that is not the directory of pelton-sdk", path.display()))),
        None if is_sdk(&built_from) => Ok(at(&built_from)),
        None => {
            let version = env!("CARGO_PKG_VERSION");
            Ok((
                format!("{version:?}"),
                format!("as version {version} from the registry; --sdk PATH takes it from a directory"),
            ))
        }
    }
}

fn files(name: &str, sdk: &str) -> Vec<(&'static str, String)> {
    let with = |text: &str| text.replace("NAME", name).replace("CRATE", &name.replace('-', "_")).replace("SDK", sdk);
    let mut manifest = with(MANIFEST);
    _ = write!(manifest, "{STREAMS}");
    vec![
        ("Cargo.toml", with(CARGO)),
        ("src/lib.rs", with(SOURCE)),
        ("consumers/NAME.toml", manifest),
        ("pelton.toml", PELTON.to_owned()),
        ("tests/NAME.toml", CASES.to_owned()),
        ("README.md", with(README)),
        (".gitignore", "/target\n/data\n".to_owned()),
    ]
}

const CARGO: &str = r#"[package]
name = "NAME"
version = "0.1.0"
edition = "2024"

[lib]
crate-type = ["cdylib"]

[dependencies]
pelton-sdk = SDK
serde = { version = "1", features = ["derive"] }

[profile.release]
opt-level = "s"
lto = true
strip = true

# It stands alone, wherever it lies.
[workspace]
"#;

const SOURCE: &str = r##"//! Counts the orders of each customer, and tells when one becomes a regular.

use pelton_sdk::{Message, Result, context, outbox, state};

#[derive(serde::Deserialize)]
struct Order {
    customer: String,
}

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    let order: Order = message.json()?; // not such JSON: a dead letter
    let orders = state::get::<u64>("orders")?.unwrap_or(0) + 1;
    state::set("orders", &orders)?;
    if orders == context::config_parsed("regular_from")?.unwrap_or(3) {
        outbox::emit(format!("regulars.{}", order.customer), &orders)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pelton_sdk::testing::{Host, message};

    use super::*;

    #[test]
    fn a_customer_becomes_a_regular_once() {
        let mut host = Host::new(handle).emits("regulars.>").config("regular_from", 2);
        for id in ["order-1", "order-2", "order-2", "order-3"] {
            let order = message("orders.new").key("alice").id(id).text(r#"{"customer": "alice"}"#);
            host.handle(&order);
        }
        assert_eq!(host.state::<u64>("alice", "orders"), Some(3));
        assert_eq!(host.events().len(), 1);
        assert_eq!(host.events()[0].subject, "regulars.alice");
    }
}
"##;

const MANIFEST: &str = r#"# The consumer NAME: what it runs, what it reads, and what it may do. `pelton check` reports every mistake.
component = "../target/wasm32-wasip2/release/CRATE.wasm"

[subscription]
stream = "ORDERS"
subjects = ["orders.>"]

[key]
json_pointer = "/customer"    # one customer's orders are handled one at a time, in order

[grants]
emit = ["regulars.>"]
"#;

const STREAMS: &str = r#"
# Made if they are missing.
[[streams]]
name = "ORDERS"
subjects = ["orders.>"]

[[streams]]
name = "REGULARS"
subjects = ["regulars.>"]
"#;

const PELTON: &str = r#"# The host: with a NATS server of its own, for trying out. Paths are relative to this file.
[nats]
embedded = true
port = 4222    # choose another one if a NATS server runs here already
"#;

const CASES: &str = r#"# Cases for `pelton test`: what goes in, and what is expected to come out. What `expect` doesn't name is not looked at.

[[case]]
name = "the third order makes a regular"
state = { orders = 2 }

[case.message]
subject = "orders.new"
json = { customer = "alice" }

[case.expect]
state = { orders = 3 }
events = [{ subject = "regulars.alice", json = 3 }]
"#;

const README: &str = r#"# NAME

    pelton dev       # a NATS server and the host; builds and swaps the plug-in whenever its source changes, and prints what every message does
    pelton test      # the cases in tests/, with the component itself
    cargo test       # the handler natively, over an in-memory host
    pelton build     # the component, and whether the host would take it

The handler is in `src/lib.rs`, what it reads and may do in `consumers/NAME.toml`, the host's configuration in `pelton.toml`.
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(directory: &Path, language: &str, sdk: Option<&str>) -> String {
        let options =
            NewOptions { directory: directory.to_owned(), language: language.to_owned(), sdk: sdk.map(PathBuf::from) };
        create(&options).unwrap_err().to_string()
    }

    #[test]
    fn what_is_made_is_whole_and_its_manifest_is_sound() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("my-orders2");
        let options = NewOptions { directory: directory.clone(), language: "rust".to_owned(), sdk: None };
        let created = create(&options).unwrap();
        assert_eq!((created.name.as_str(), created.files.len()), ("my-orders2", 7));
        let project = super::super::project::Project::open(&directory).unwrap();
        let component = project.manifest(None).unwrap().component.path().unwrap().to_owned();
        assert!(component.ends_with("target/wasm32-wasip2/release/my_orders2.wasm"), "{}", component.display());
        assert_eq!(project.case_files().unwrap().len(), 1);
        let cargo = std::fs::read_to_string(directory.join("Cargo.toml")).unwrap();
        assert!(cargo.contains("pelton-sdk = { path = ") && !cargo.contains("NAME"), "{cargo}");
        assert!(refusal(&directory, "rust", None).contains("exists already"));
    }

    #[test]
    fn names_languages_and_sdks_that_cannot_be_are_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        for name in ["Orders", "1st", "-x", "a_b", "größe", &"n".repeat(64)] {
            assert!(refusal(&root.path().join(name), "rust", None).contains("can't be a plug-in's name"), "{name}");
        }
        assert!(refusal(&root.path().join("fn"), "rust", None).contains("another use"));
        assert!(refusal(&root.path().join("a"), "cobol", None).contains("there are templates for rust"));
        assert!(refusal(&root.path().join("a"), "rust", Some("nowhere")).contains("--sdk nowhere"));
        assert!(std::fs::read_dir(root.path()).unwrap().next().is_none(), "nothing was made");
    }
}
