//! From the TOML of `pelton.toml` to a [`HostConfig`].

mod oci;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::host::{
    AdminConfig, AdminToken, Credentials, HostConfig, HostLimits, LogConfig, NatsConfig, NatsServer, StoreConfig,
    TelemetryConfig,
};
use super::reader::{At, Context, Section, listed};
use super::report::Code;
use super::values;
use crate::telemetry::{self, Format};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DEFAULT_URL: &str = "nats://127.0.0.1:4222";
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7411);

/// None if the file is not TOML; otherwise as much as could be read, with the context's problems beside it. `admin_token_given`: the environment has the
/// admin server's token.
pub(super) fn read(context: &Context<'_>, admin_token_given: bool) -> Option<HostConfig> {
    let mut root = context.root()?;
    let nats = nats(context, root.section("nats"));
    let store = store(context, root.section("store"));
    let (consumers, watch) = consumers(context, root.section("consumers"));
    let config = HostConfig {
        file: context.file.into(),
        nats,
        store,
        consumers,
        watch,
        admin: admin(context, root.section("admin"), admin_token_given),
        limits: limits(root.section("limits")),
        log: log(context, root.section("log")),
        telemetry: traces(context, root.section("telemetry")),
        oci: oci::oci(context, root.section("oci")),
    };
    root.finish();
    Some(config)
}

/// Paths in a file are relative to the directory that it is in.
pub(super) fn beside(file: &Path, path: impl AsRef<Path>) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

fn nats(context: &Context<'_>, mut section: Section<'_, '_>) -> NatsConfig {
    let embedded = section.flag("embedded");
    let url = section.text("url");
    let binary = section.text("server_binary");
    let port = section.number("port", 0..=u64::from(u16::MAX), "");
    let (credentials, credentials_at) = credentials(context, &mut section);
    section.finish();
    let conflict = |offset: usize, message: &str, help: &str| context.report(Code::Conflict, offset, message, help);
    if !embedded.as_ref().is_some_and(|embedded| embedded.value) {
        for (name, offset) in [("server_binary", binary.map(|at| at.offset)), ("port", port.map(|at| at.offset))] {
            if let Some(offset) = offset {
                let message = format!("\"{name}\" in [nats] has no effect without embedded = true");
                conflict(offset, &message, "remove it, or set embedded = true");
            }
        }
        let urls = url.map_or_else(|| vec![DEFAULT_URL.into()], |url| urls(context, &url));
        return NatsConfig { server: NatsServer::External { urls }, credentials };
    }
    if let Some(url) = url {
        conflict(url.offset, "\"url\" and embedded = true in [nats] exclude each other", "remove one of them");
    }
    if let Some(offset) = credentials_at {
        let help = "remove the credentials: the embedded server listens on loopback and asks for none";
        conflict(offset, "credentials and embedded = true in [nats] exclude each other", help);
    }
    let binary = binary.map_or_else(|| PathBuf::from("nats-server"), |binary| program(context.file, &binary.value));
    let port = port.and_then(|port| u16::try_from(port.value).ok()).unwrap_or(0);
    NatsConfig { server: NatsServer::Embedded { binary, port }, credentials }
}

/// A name without a slash is looked up on `PATH` when the program is started.
fn program(file: &Path, binary: &str) -> PathBuf {
    if binary.contains('/') { beside(file, binary) } else { binary.into() }
}

fn urls(context: &Context<'_>, given: &At<String>) -> Vec<String> {
    let urls: Vec<_> = given.value.split(',').map(str::trim).collect();
    for url in &urls {
        if let Some((flaw, help)) = values::server_url_flaw(url) {
            context.report(Code::InvalidUrl, given.offset, format!("\"{url}\" is not a NATS URL: {flaw}"), help);
        }
    }
    urls.into_iter().map(Into::into).collect()
}

/// The credentials, and where the first of them stands.
fn credentials(context: &Context<'_>, section: &mut Section<'_, '_>) -> (Credentials, Option<usize>) {
    let mut file = |name| section.text(name).map(|at| At { value: beside(context.file, at.value), offset: at.offset });
    let (creds, nkey, token, password) =
        (file("credentials_file"), file("nkey_seed_file"), file("token_file"), file("password_file"));
    let user = section.text("user");
    for file in [&creds, &nkey, &token, &password].into_iter().flatten() {
        readable(context, file, "credentials");
    }
    let mut given = Vec::new();
    for (name, file, kind) in [
        ("credentials_file", creds, Credentials::CredsFile as fn(PathBuf) -> Credentials),
        ("nkey_seed_file", nkey, Credentials::NkeySeedFile),
        ("token_file", token, Credentials::TokenFile),
    ] {
        given.extend(file.map(|file| (name, file.offset, kind(file.value))));
    }
    match (user, password) {
        (Some(user), Some(password)) => {
            let kind = Credentials::UserPassword { user: user.value, password_file: password.value };
            given.push(("user", user.offset.min(password.offset), kind));
        }
        (Some(user), None) => lonely(context, user.offset, "user", "password_file"),
        (None, Some(password)) => lonely(context, password.offset, "password_file", "user"),
        (None, None) => {}
    }
    let first = given.iter().map(|(_, offset, _)| *offset).min();
    if given.len() > 1 {
        let names: Vec<_> = given.iter().map(|(name, ..)| *name).collect();
        let last = given.iter().map(|(_, offset, _)| *offset).max().unwrap_or(section.offset);
        let message = format!("{} in [nats] are different kinds of credentials", listed(&names, "and"));
        context.report(Code::Conflict, last, message, "keep one of them");
    }
    (given.pop().map_or(Credentials::None, |(_, _, kind)| kind), first)
}

fn lonely(context: &Context<'_>, offset: usize, name: &str, other: &str) {
    let message = format!("\"{name}\" in [nats] needs \"{other}\" beside it");
    context.report(Code::Conflict, offset, message, format!("add {other} = \"…\", or remove {name}"));
}

fn readable(context: &Context<'_>, file: &At<PathBuf>, what: &str) {
    let opened = File::open(&file.value).and_then(|opened| opened.metadata());
    let flaw = match opened {
        Ok(metadata) if metadata.is_file() => return,
        Ok(_) => "it is not a file".to_owned(),
        Err(error) => error.to_string(),
    };
    let message = format!("{what} {} can't be read: {flaw}", file.value.display());
    let help = "correct the path (it is relative to this file) or the file's permissions";
    context.report(Code::NamedFileUnreadable, file.offset, message, help);
}

fn store(context: &Context<'_>, mut section: Section<'_, '_>) -> StoreConfig {
    let path = section.text("path").map_or_else(|| "data".into(), |at| at.value);
    let config = StoreConfig {
        path: beside(context.file, path),
        cache_bytes: section.size_or("cache_bytes", 64 << 20, MIB..=64 * GIB, "bytes"),
        overlay_bytes_max: section.size_or("overlay_bytes_max", 64 << 20, MIB..=16 * GIB, "bytes"),
        free_bytes_min: section.number_or("free_bytes_min", 128 << 20, 0..=1024 * GIB, "bytes").value,
        checkpoint_interval_ms: section
            .number_or("checkpoint_interval_ms", 10_000, 100..=3_600_000, "milliseconds")
            .value,
        processed_ids_hours: section.number_or("processed_ids_hours", 24, 24..=8_760, "hours").value,
    };
    section.finish();
    config
}

fn consumers(context: &Context<'_>, mut section: Section<'_, '_>) -> (PathBuf, bool) {
    let directory = section.text("directory").map_or_else(|| "consumers".into(), |at| at.value);
    let watch = section.flag("watch").is_none_or(|flag| flag.value);
    section.finish();
    (beside(context.file, directory), watch)
}

fn admin(context: &Context<'_>, mut section: Section<'_, '_>, token_given: bool) -> Option<AdminConfig> {
    let address = section.text("address");
    let file = section.text("token_file").map(|at| At { value: beside(context.file, at.value), offset: at.offset });
    section.finish();
    if let Some(file) = &file {
        readable(context, file, "the admin server's token");
    }
    let token = match file {
        _ if token_given => AdminToken::Environment,
        Some(file) => AdminToken::File(file.value),
        None => AdminToken::None,
    };
    let Some(given) = address else { return Some(AdminConfig { address: DEFAULT_ADMIN, token }) };
    if given.value == "off" {
        return None;
    }
    let refuse = |flaw: &str, help: &str| {
        let message = format!("\"address\" in [admin] can't be \"{}\": {flaw}", given.value);
        context.report(Code::InvalidAddress, given.offset, message, help);
        None
    };
    match given.value.parse::<SocketAddr>() {
        Err(_) => refuse("not an IP address with a port", "write IP:PORT, for example 127.0.0.1:7411, or \"off\""),
        Ok(address) if !address.ip().is_loopback() && token == AdminToken::None => refuse(
            "others can reach it, and there is no token that they would have to show",
            "add token_file = \"FILE\", or write 127.0.0.1:PORT, [::1]:PORT or \"off\"",
        ),
        Ok(address) => Some(AdminConfig { address, token }),
    }
}

fn limits(mut section: Section<'_, '_>) -> HostLimits {
    let limits = HostLimits {
        executor_threads: section.size_or("executor_threads", 0, 0..=64, "threads"),
        relay_in_flight_max: section.size_or("relay_in_flight_max", 4_096, 1..=65_536, "events"),
        component_bytes_max: section.size_or("component_bytes_max", 64 << 20, 64 << 10..=GIB, "bytes"),
        drain_ms: section.number_or("drain_ms", 10_000, 0..=600_000, "milliseconds").value,
    };
    section.finish();
    limits
}

fn log(context: &Context<'_>, mut section: Section<'_, '_>) -> LogConfig {
    let filter = section.text("filter");
    let format = section.choice("format", &[("text", Format::Text), ("json", Format::Json)]);
    section.finish();
    if let Some(filter) = &filter
        && let Err(flaw) = telemetry::check_filter(&filter.value)
    {
        let message = format!("\"filter\" in [log] can't be \"{}\": {}", filter.value, flaw.reason);
        let help = "write a level (error, warn, info, debug, trace, off) or target=level, with commas between";
        context.report(Code::InvalidFilter, filter.offset, message, help);
    }
    LogConfig {
        filter: filter.map_or_else(|| "info".into(), |filter| filter.value),
        format: format.map_or_else(Format::default, |format| format.value),
    }
}

fn traces(context: &Context<'_>, mut section: Section<'_, '_>) -> TelemetryConfig {
    let endpoint = section.text("otlp_endpoint");
    let sample_ratio = section.float_or("sample_ratio", 1.0, 0.0..=1.0);
    section.finish();
    if let Some(endpoint) = &endpoint
        && let Err(flaw) = telemetry::traces::check(&endpoint.value)
    {
        let message = format!("\"otlp_endpoint\" in [telemetry] can't be \"{}\": {flaw}", endpoint.value);
        context.report(Code::InvalidUrl, endpoint.offset, message, "write http://HOST:4318 or https://HOST:4318");
    }
    TelemetryConfig { otlp_endpoint: endpoint.map(|endpoint| endpoint.value), sample_ratio }
}
