//! `[oci]`: the registries that components come from.

use std::path::PathBuf;

use super::{beside, readable};
use crate::config::component::is_registry;
use crate::config::host::{OciConfig, OciLogin};
use crate::config::reader::{At, Context, Section, listed};
use crate::config::report::Code;

pub(super) fn oci(context: &Context<'_>, mut section: Section<'_, '_>) -> OciConfig {
    let default = OciConfig::default();
    let config = OciConfig {
        login: login(context, &mut section),
        docker_config: file(context, &mut section, "docker_config", "the logins in"),
        insecure: insecure(context, &mut section).unwrap_or(default.insecure),
        ca_file: file(context, &mut section, "ca_file", "the certificates in"),
        fetch_timeout_ms: section
            .number_or("fetch_timeout_ms", default.fetch_timeout_ms, 100..=3_600_000, "milliseconds")
            .value,
    };
    section.finish();
    config
}

fn file(context: &Context<'_>, section: &mut Section<'_, '_>, name: &'static str, what: &str) -> Option<PathBuf> {
    let given = section.text(name)?;
    let file = At { value: beside(context.file, given.value), offset: given.offset };
    readable(context, &file, what);
    Some(file.value)
}

/// All three fields or none.
fn login(context: &Context<'_>, section: &mut Section<'_, '_>) -> Option<OciLogin> {
    const FIELDS: [&str; 3] = ["registry", "user", "password_file"];
    let there = section.those_of(&FIELDS);
    let registry = section.text("registry");
    let user = section.text("user");
    let password_file = file(context, section, "password_file", "the password in");
    if let Some(registry) = &registry {
        check_registry(context, "registry", registry);
    }
    if !there.is_empty() && there.len() < FIELDS.len() {
        let missing: Vec<_> = FIELDS.into_iter().filter(|field| !there.contains(field)).collect();
        let message = format!("{} in [oci] needs {} beside it", listed(&there, "and"), listed(&missing, "and"));
        let help = "a login is registry, user and password_file; remove what is there, or add what is missing";
        context.report(Code::Conflict, section.offset, message, help);
    }
    Some(OciLogin { registry: registry?.value, user: user?.value, password_file: password_file? })
}

fn insecure(context: &Context<'_>, section: &mut Section<'_, '_>) -> Option<Vec<String>> {
    let given = section.texts("insecure")?;
    for registry in &given {
        check_registry(context, "insecure", registry);
    }
    Some(given.into_iter().map(|registry| registry.value).collect())
}

fn check_registry(context: &Context<'_>, field: &str, given: &At<String>) {
    if !is_registry(&given.value) {
        let message = format!("\"{field}\" in [oci] can't be \"{}\": it is not a registry", given.value);
        context.report(
            Code::InvalidAddress,
            given.offset,
            message,
            "write its host, and its port if that is not the usual one",
        );
    }
}
