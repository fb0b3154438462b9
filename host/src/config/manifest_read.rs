//! From the TOML of a manifest to a [`Manifest`]: the top level here, the sections in modules by what they are about.

mod component;
mod deploy;
mod limits;
mod order;
mod policies;
mod reading;
mod streams;
mod subjects;

use pelton_core::grants::Grants;
use pelton_core::policy::Policy;

use super::manifest::{Loaded, Manifest, Places};
use super::reader::{Context, Section};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// None if something that it can't be without is missing; otherwise as much as could be read, with the context's problems beside it.
pub(super) fn read(context: &Context<'_>, name: &str) -> Option<Loaded> {
    let mut places = Places::default();
    let mut root = context.root()?;
    let (component, component_poll_ms) = component::component(context, &mut root);
    let digest = deploy::digest(context, &mut root);
    let mut section =
        root.required_section("subscription", "add [subscription] with stream = \"…\" and subjects = [\"…\"]");
    let mode = section.as_mut().and_then(reading::mode);
    let subscription = section.and_then(|section| reading::subscription(context, section, &mut places));
    let key = reading::key(context, &mut root, mode, subscription.as_ref());
    let id = reading::id(context, root.section("id"));
    let order = order::order(context, root.section("order"), mode);
    let (entity_version, versions) = order.unzip();
    let grants = grants(context, root.section("grants"));
    let shared_state = scope(root.section("state"));
    let policy = Policy { versions, shared_state, ..policies(context, &mut root, &mut places) };
    let (policy, effects, run) = limits::limits(root.section("limits"), policy);
    let isolation = limits::isolation(context, &mut root);
    let config = root.section("config").free_texts();
    let deploy = deploy::deploy(root.section("deploy"));
    let streams = streams::streams(context, &mut root, &mut places);
    root.finish();
    let manifest = Manifest {
        name: name.into(),
        component: component?,
        component_poll_ms,
        digest,
        deploy,
        subscription: subscription?,
        key: key?,
        id,
        entity_version,
        grants,
        policy,
        effects,
        run,
        isolation,
        config,
        streams,
        file: context.file.into(),
    };
    Some(Loaded { manifest, places })
}

/// The policies that have sections of their own.
fn policies(context: &Context<'_>, root: &mut Section<'_, '_>, places: &mut Places) -> Policy {
    let (retry, on_exhausted) = policies::retry(context, root.section("retry"));
    Policy {
        retry,
        on_exhausted,
        release: policies::release(context, root.section("release")),
        park: policies::park(context, root.section("park")),
        breaker: policies::breaker(context, root.section("breaker")),
        dead_letter_subject: policies::dead_letters(context, root.section("dead_letters"), places),
        rate: policies::rate(root.section("rate")),
        weight: policies::share(root.section("share")),
        ..Policy::default()
    }
}

fn grants(context: &Context<'_>, mut section: Section<'_, '_>) -> Grants {
    let emit = section.texts("emit").unwrap_or_default();
    let field = section.name_of("emit");
    subjects::patterns(context, &field, &emit);
    subjects::not_reserved(context, &field, &emit);
    section.finish();
    Grants { emit: emit.into_iter().map(|pattern| pattern.value.into()).collect() }
}

fn scope(mut section: Section<'_, '_>) -> bool {
    let shared = section.choice("scope", &[("key", false), ("consumer", true)]);
    section.finish();
    shared.is_some_and(|shared| shared.value)
}
