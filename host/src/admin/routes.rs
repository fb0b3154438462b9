//! Every route of the admin server, in one list: its handler and what is said of it in `/openapi.json`. A route is one entry here, and can't be anywhere else, so
//! none is missing in the description.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::actions::Which;
use super::api::{ConsumerDetailView, ConsumerView, HealthView, StatusView};
use super::consumers::{Key, Pause};
use super::messages::{DeadLetterView, DoneView, ExplainView, ParkedView, ResumedView};
use super::outbox::OutboxRowView;
use super::pages::Wanted;
use super::rewind::{Rewind, RewindView};
use super::server::{Admin, livez, readyz, status};
use super::state::{StateChanges, StateView};
use super::versions::{DeployView, DeployWhat, RollBackTo, RolledBackView, VersionView};
use super::{consumers, dead_letters, metrics, openapi, outbox, parked, rewind, state, versions};

/// Makes the schema of a type.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What a route takes and gives.
#[derive(Clone, Copy)]
pub(super) struct About {
    pub(super) answer: Content,
    /// Also given with status 503, by a host that is not well.
    pub(super) also_503: bool,
    /// Whose fields are the parameters of the query.
    pub(super) query: Option<SchemaOf>,
    pub(super) body: Option<Content>,
}

/// What a body is.
#[derive(Clone, Copy)]
pub(super) enum Content {
    /// JSON.
    Json(SchemaOf),
    /// Bytes as they are.
    Bytes,
    /// JSON that is not looked at, or bytes that are.
    JsonOrBytes,
}

/// Answers with JSON.
pub(super) fn json<T: JsonSchema>() -> About {
    About { answer: Content::Json(schema_of::<T>), also_503: false, query: None, body: None }
}

/// Answers with bytes as they are.
pub(super) fn bytes() -> About {
    About { answer: Content::Bytes, also_503: false, query: None, body: None }
}

impl About {
    /// The query has these parameters.
    pub(super) fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(inline_schema_of::<T>), ..self }
    }

    /// The body is this, as JSON.
    pub(super) fn takes<T: JsonSchema>(self) -> Self {
        Self { body: Some(Content::Json(schema_of::<T>)), ..self }
    }

    /// The body is bytes as they are.
    pub(super) fn takes_bytes(self) -> Self {
        Self { body: Some(Content::Bytes), ..self }
    }

    fn takes_json_or_bytes(self) -> Self {
        Self { body: Some(Content::JsonOrBytes), ..self }
    }

    fn or_503(self) -> Self {
        Self { also_503: true, ..self }
    }
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn inline_schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

/// What is said of one route.
pub(super) struct Described {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) about: About,
}

/// Routes and what is said of them.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) router: Router<Arc<Admin>>,
    pub(super) described: Vec<Described>,
}

impl Routes {
    fn add<H, T>(
        mut self,
        method: (Method, MethodFilter),
        (path, summary): (&'static str, &'static str),
        about: About,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Admin>>,
        T: 'static,
    {
        self.described.push(Described { method: method.0, path, summary, about });
        Self { router: self.router.route(path, on(method.1, handler)), described: self.described }
    }

    fn get<H, T>(self, path: &'static str, summary: &'static str, about: About, handler: H) -> Self
    where
        H: Handler<T, Arc<Admin>>,
        T: 'static,
    {
        self.add((Method::GET, MethodFilter::GET), (path, summary), about, handler)
    }

    fn post<H, T>(self, path: &'static str, summary: &'static str, about: About, handler: H) -> Self
    where
        H: Handler<T, Arc<Admin>>,
        T: 'static,
    {
        self.add((Method::POST, MethodFilter::POST), (path, summary), about, handler)
    }

    fn put<H, T>(self, path: &'static str, summary: &'static str, about: About, handler: H) -> Self
    where
        H: Handler<T, Arc<Admin>>,
        T: 'static,
    {
        self.add((Method::PUT, MethodFilter::PUT), (path, summary), about, handler)
    }
}

/// All of them.
pub(super) fn all() -> Routes {
    let routes = Routes::default()
        .get("/livez", "Whether the host's driver turns", json::<HealthView>().or_503(), livez)
        .get(
            "/readyz",
            "Whether the host can work: connected, room on the disk, consumers deployed, not draining",
            json::<HealthView>().or_503(),
            readyz,
        )
        .get("/openapi.json", "This description", json::<serde_json::Value>(), openapi::answer)
        .get("/metrics", "What Prometheus scrapes, as OpenMetrics or the older text", bytes(), metrics::metrics)
        .get("/status", "What the host and every consumer do", json::<StatusView>(), status);
    let routes = about_one_consumer(about_consumers(routes));
    about_dead_letters(about_parked(about_versions(routes)))
}

fn about_consumers(routes: Routes) -> Routes {
    routes
        .get("/consumers", "All consumers", json::<Vec<ConsumerView>>(), consumers::list)
        .post(
            "/consumers/{name}/pause",
            "Begin no attempt and pull nothing until resumed",
            json::<DoneView>().takes::<Pause>(),
            consumers::pause,
        )
        .post(
            "/consumers/{name}/resume",
            "Go on after a pause, a halt or an open breaker",
            json::<ResumedView>(),
            consumers::resume,
        )
        .get(
            "/consumers/{name}/explain",
            "Why a key is where it is",
            json::<ExplainView>().query::<Key>(),
            consumers::explain,
        )
}

fn about_versions(routes: Routes) -> Routes {
    routes
        .post(
            "/deploy",
            "Look at the manifests and components and do what follows, or only say what that would be",
            json::<DeployView>().takes::<DeployWhat>(),
            versions::deploy,
        )
        .get(
            "/consumers/{name}/versions",
            "What served it, what was refused and what was taken back",
            json::<Vec<VersionView>>(),
            versions::list,
        )
        .post(
            "/consumers/{name}/rollback",
            "Bring back a version that served before",
            json::<RolledBackView>().takes::<RollBackTo>(),
            versions::roll_back,
        )
}

fn about_one_consumer(routes: Routes) -> Routes {
    routes
        .get("/consumers/{name}", "All that is known of one consumer", json::<ConsumerDetailView>(), consumers::show)
        .post(
            "/consumers/{name}/rewind",
            "Handle messages again from a place on, or skip to it",
            json::<RewindView>().takes::<Rewind>(),
            rewind::rewind,
        )
        .post(
            "/consumers/{name}/purge",
            "Forget all that is left of a consumer without a manifest",
            json::<DoneView>(),
            rewind::purge,
        )
        .get(
            "/consumers/{name}/state",
            "Its state, in pages",
            json::<Vec<StateView>>().query::<state::Wanted>(),
            state::list,
        )
        .post("/consumers/{name}/state", "Change its state", json::<DoneView>().takes::<StateChanges>(), state::change)
        .get(
            "/consumers/{name}/state/entry",
            "One entry of its state",
            json::<StateView>().query::<state::One>(),
            state::get,
        )
        .get(
            "/outbox",
            "Events that wait to be published, in pages",
            json::<Vec<OutboxRowView>>().query::<outbox::Wanted>(),
            outbox::list,
        )
}

fn about_parked(routes: Routes) -> Routes {
    routes
        .get("/parked", "Parked messages, in pages", json::<Vec<ParkedView>>().query::<Wanted>(), parked::list)
        .post(
            "/parked/{consumer}/release",
            "Bring keys back now",
            json::<DoneView>().takes::<Which>(),
            parked::release_many,
        )
        .post(
            "/parked/{consumer}/drop",
            "Forget parked messages",
            json::<DoneView>().takes::<Which>(),
            parked::drop_many,
        )
        .get("/parked/{consumer}/{id}", "One parked message", json::<ParkedView>(), parked::show)
        .post(
            "/parked/{consumer}/{id}/release",
            "Bring a message without a key back now",
            json::<DoneView>(),
            parked::release,
        )
        .post("/parked/{consumer}/{id}/drop", "Forget a parked message", json::<DoneView>(), parked::drop_one)
        .get("/parked/{consumer}/{id}/payload", "Its payload", bytes(), parked::payload)
        .put("/parked/{consumer}/{id}/payload", "Replace its payload", json::<DoneView>().takes_bytes(), parked::edit)
}

fn about_dead_letters(routes: Routes) -> Routes {
    routes
        .get(
            "/dead-letters",
            "Dead letters, in pages",
            json::<Vec<DeadLetterView>>().query::<Wanted>(),
            dead_letters::list,
        )
        .post(
            "/dead-letters/{consumer}/replay",
            "Handle dead letters again",
            json::<DoneView>().takes::<Which>(),
            dead_letters::replay_many,
        )
        .post(
            "/dead-letters/{consumer}/drop",
            "Forget dead letters",
            json::<DoneView>().takes::<Which>(),
            dead_letters::drop_many,
        )
        .get("/dead-letters/{consumer}/{sequence}", "One dead letter", json::<DeadLetterView>(), dead_letters::show)
        .get("/dead-letters/{consumer}/{sequence}/payload", "Its payload", bytes(), dead_letters::payload)
        .post(
            "/dead-letters/{consumer}/{sequence}/replay",
            "Handle it again, with another payload if there is one",
            json::<DoneView>().takes_json_or_bytes(),
            dead_letters::replay,
        )
        .post("/dead-letters/{consumer}/{sequence}/drop", "Forget it", json::<DoneView>(), dead_letters::drop_one)
}
