//! `pelton doctor`: looks at all that endangers the guarantees and is not the host's to decide. Judging what was found is in [`crate::doctor`].

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::args::Ask;
use super::commands::{reach, show};
use super::lists;
use crate::admin::StatusView;
use crate::app::connect_settings;
use crate::config::{AdminToken, HostConfig, Manifest, NatsServer, load_directory};
use crate::doctor::{self, Disk, Streams};
pub(super) use crate::doctor::{Finding, Level};
use crate::nats::{ConnectSettings, Inspector};

/// How often the disk is asked to make something durable.
const SYNCS: usize = 16;

#[derive(Args, Debug)]
pub(super) struct Doctor {
    #[command(flatten)]
    ask: Ask,
}

pub(super) fn run(Doctor { ask }: &Doctor) -> anyhow::Result<ExitCode> {
    let config = HostConfig::load(&ask.reach.config.file)?;
    let mut findings = Vec::new();
    let (manifests, report) = load_directory(&config.consumers);
    let files: Vec<_> = manifests.iter().flat_map(|manifest| manifest.check_files().problems().to_vec()).collect();
    findings.extend(doctor::configuration(manifests.len(), report.problems().iter().chain(&files)));
    let host = reach(&ask.reach).and_then(|client| Ok(client.status()?));
    findings.push(doctor::host(host.as_ref().map_err(|error| format!("{error:#}"))));
    if let Some(AdminToken::File(file)) = config.admin.as_ref().map(|admin| &admin.token) {
        findings.extend(token_file(file));
    }
    findings.extend(limits(manifests.len()));
    findings.extend(disk(&config));
    findings.extend(nats(&config, &manifests, host.ok().as_ref())?);
    show(ask, &findings, || lists::findings(&findings))?;
    let failed = findings.iter().any(|finding| finding.level == Level::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn token_file(file: &Path) -> Option<Finding> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    Some(doctor::token_file(file, mode))
}

fn limits(consumers: usize) -> Option<Finding> {
    let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    Some(doctor::open_files(open_files, consumers))
}

/// Room and the time of a sync, on the disk of the data directory, or of the directory that it will be made in.
fn disk(config: &HostConfig) -> Vec<Finding> {
    let wanted = &config.store.path;
    let there = wanted.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    let free_bytes = rustix::fs::statvfs(there).ok().map(|of| of.f_bavail.saturating_mul(of.f_frsize));
    let measured = measure_sync(there).map_err(|error| error.to_string());
    doctor::disk(&Disk { directory: there, free_bytes, free_bytes_min: config.store.free_bytes_min, measured })
}

/// The median time of a small write that is made durable.
fn measure_sync(directory: &Path) -> std::io::Result<Duration> {
    let path = directory.join(format!(".pelton-doctor-{}", std::process::id()));
    let measure = || {
        let mut file = std::fs::File::create(&path)?;
        let mut times = Vec::with_capacity(SYNCS);
        for _ in 0..SYNCS {
            file.write_all(&[0; 4096])?;
            let begun = Instant::now();
            file.sync_data()?;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        Ok(times.get(SYNCS / 2).copied().unwrap_or_default())
    };
    let measured = measure();
    // What was never made can't be removed.
    _ = std::fs::remove_file(&path);
    measured
}

fn nats(config: &HostConfig, manifests: &[Manifest], host: Option<&StatusView>) -> anyhow::Result<Vec<Finding>> {
    let Some(settings) = settings(config)? else {
        return Ok(vec![doctor::no_embedded_server()]);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let inspector = match Inspector::connect(&settings).await {
            Ok(inspector) => inspector,
            Err(failure) => return vec![doctor::unreachable(&failure.to_string())],
        };
        let embedded = matches!(config.nats.server, NatsServer::Embedded { .. });
        let mut findings = doctor::server(&inspector.server(), embedded);
        findings.push(doctor::account(inspector.account().await.as_ref().map_err(String::as_str)));
        findings.extend(Streams { inspector: &inspector, manifests, host }.look().await);
        findings
    }))
}

/// How to reach the server; none: it is embedded, and no host runs it.
fn settings(config: &HostConfig) -> anyhow::Result<Option<ConnectSettings>> {
    let mut settings = connect_settings(config, None)?;
    if let NatsServer::Embedded { .. } = config.nats.server {
        let Some(port) = std::fs::read_to_string(config.store.path.join("nats/nats-server.port")).ok() else {
            return Ok(None);
        };
        settings.urls = vec![format!("nats://127.0.0.1:{}", port.trim())];
    }
    Ok(Some(settings))
}
