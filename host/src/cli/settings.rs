//! `pelton config`: what is in effect, and where it is from.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::args::Settings;
use super::commands::print_as;
use super::tables;
use crate::config::{HostConfig, Manifest, Setting, Source, load_directory};

/// The settings of one file.
#[derive(Debug, Serialize)]
pub(super) struct OfFile {
    /// The consumer; none: the host.
    pub(super) consumer: Option<String>,
    pub(super) file: PathBuf,
    pub(super) settings: Vec<Setting>,
}

pub(super) fn run(wanted: &Settings) -> anyhow::Result<ExitCode> {
    let (config, settings) = HostConfig::load_settings(&wanted.config.file)?;
    let (manifests, report) = load_directory(&config.consumers);
    if !report.is_empty() {
        return Err(report.into());
    }
    let mut files = vec![OfFile { consumer: None, file: config.file, settings }];
    for Manifest { name, file, .. } in manifests {
        let settings = Manifest::settings(&file)?;
        files.push(OfFile { consumer: Some(name), file, settings });
    }
    if wanted.changed {
        for file in &mut files {
            file.settings.retain(|setting| setting.source != Source::Default);
        }
    }
    print_as(wanted.json, &files, || tables::settings(&files))
}
