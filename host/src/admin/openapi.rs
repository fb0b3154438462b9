//! The description of the admin API, as OpenAPI 3.1: made from the list of routes and from the types that they take and give.

use std::sync::LazyLock;

use axum::response::Json;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::failed::ErrorView;
use super::routes::{self, About, Content, Described};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| document(&routes::all().described));

/// `GET /openapi.json`.
pub(super) async fn answer() -> Json<&'static Value> {
    Json(&DOCUMENT)
}

fn document(routes: &[Described]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let refused = json!({
        "description": "The request was not answered; the code says why",
        "content": of_json(generator.subschema_for::<ErrorView>().to_value()),
    });
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let operation = operation(route, &refused, &mut generator);
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(methods) = methods.as_object_mut() {
            methods.insert(route.method.as_str().to_ascii_lowercase(), operation);
        }
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pelton admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What an operator can ask a running host and have it do. Lists come in pages: the header `Link` names the next one.",
        },
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Asked for with every request if admin.token_file or PELTON_ADMIN_TOKEN is set.",
                },
            },
        },
    })
}

fn operation(route: &Described, refused: &Value, generator: &mut SchemaGenerator) -> Value {
    let About { answer, also_503, query, body } = route.about;
    let mut parameters: Vec<Value> = of_path(route.path).collect();
    if let Some(query) = query {
        parameters.extend(of_query(query(generator).to_value()));
    }
    let answer = json!({ "description": "Done", "content": content(answer, generator) });
    let mut responses = Map::new();
    if also_503 {
        responses.insert("503".into(), answer.clone());
    }
    responses.insert("200".into(), answer);
    responses.insert("default".into(), refused.clone());
    let mut operation = Map::new();
    operation.insert("summary".into(), route.summary.into());
    operation.insert("operationId".into(), operation_id(route).into());
    operation.insert("parameters".into(), parameters.into());
    operation.insert("responses".into(), responses.into());
    if let Some(body) = body {
        let body = json!({ "required": true, "content": content(body, generator) });
        operation.insert("requestBody".into(), body);
    }
    operation.into()
}

fn operation_id(route: &Described) -> String {
    let words = route.path.split(['/', '.']).filter(|part| !part.is_empty());
    let words = words.map(|part| part.trim_matches(['{', '}']).replace('-', "_"));
    std::iter::once(route.method.as_str().to_ascii_lowercase()).chain(words).collect::<Vec<_>>().join("_")
}

fn of_path(path: &str) -> impl Iterator<Item = Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| {
        let kind = if matches!(name, "id" | "sequence") { "integer" } else { "string" };
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": kind } })
    })
}

fn of_query(schema: Value) -> Vec<Value> {
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let parameter = |(name, mut property): (String, Value)| {
        let description = property.as_object_mut().and_then(|property| property.remove("description"));
        let required = required.iter().any(|required| *required == name);
        json!({ "name": name, "in": "query", "required": required, "description": description, "schema": property })
    };
    properties.into_iter().map(parameter).collect()
}

fn content(content: Content, generator: &mut SchemaGenerator) -> Value {
    let bytes = json!({ "schema": { "type": "string", "format": "binary" } });
    match content {
        Content::Json(schema) => of_json(schema(generator).to_value()),
        Content::Bytes => json!({ "application/octet-stream": bytes }),
        Content::JsonOrBytes => json!({ "application/json": { "schema": {} }, "application/octet-stream": bytes }),
    }
}

fn of_json(schema: Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn sources() -> Vec<(String, String)> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin");
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let read = |file: std::path::PathBuf| (file.display().to_string(), std::fs::read_to_string(&file).unwrap());
        files.filter(|file| file.is_file()).map(read).collect()
    }

    /// The public fields of each view, as its source says.
    fn views() -> Vec<(String, Vec<String>)> {
        let mut views = Vec::new();
        for (_, text) in sources() {
            for part in text.split("\npub struct ").skip(1) {
                let (head, rest) = part.split_once('\n').unwrap();
                let Some(name) = head.strip_suffix(" {").filter(|name| name.ends_with("View")) else { continue };
                let body = rest.split("\n}").next().unwrap();
                let mut fields = Vec::new();
                let mut flat = false;
                for line in body.lines().map(str::trim) {
                    if let Some((field, _)) = line.strip_prefix("pub ").and_then(|line| line.split_once(':')) {
                        if !flat {
                            fields.push(field.to_owned());
                        }
                        flat = false;
                    }
                    flat |= line.contains("flatten");
                }
                views.push((name.to_owned(), fields));
            }
        }
        views
    }

    #[test]
    fn every_field_of_every_view_is_described() {
        let schemas = &DOCUMENT["components"]["schemas"];
        let views = views();
        assert!(views.len() >= 12, "views are found: {views:?}");
        for (view, fields) in views {
            let properties = &schemas[&view]["properties"];
            for field in fields {
                let described = &properties[&field]["description"];
                let known = properties[&field].is_object();
                assert!(known && described.is_string(), "{view}.{field} is not in /openapi.json: {}", schemas[&view]);
            }
        }
        assert!(schemas["ParkedView"]["properties"]["headers"].is_object(), "what is flattened is described as well");
    }

    #[test]
    fn every_route_is_in_the_one_list() {
        for (file, text) in sources().into_iter().filter(|(file, _)| !file.ends_with("routes.rs")) {
            let code = text.split("#[cfg(test)]").next().unwrap();
            assert!(!code.contains(".route("), "{file}: add the route in routes.rs, so that /openapi.json has it");
        }
        let routes = routes::all().described;
        for Described { method, path, .. } in &routes {
            let operation = &DOCUMENT["paths"][path][method.as_str().to_ascii_lowercase()];
            assert!(operation["summary"].is_string(), "{method} {path}");
        }
        let ids: std::collections::BTreeSet<String> = routes.iter().map(operation_id).collect();
        assert_eq!(ids.len(), routes.len(), "operations have names of their own");
    }

    #[test]
    fn whatever_is_referred_to_is_there() {
        let text = DOCUMENT.to_string();
        let schemas = DOCUMENT["components"]["schemas"].as_object().unwrap();
        let mut count = 0;
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            let name = pointer.strip_prefix("/components/schemas/").unwrap_or_else(|| panic!("{pointer}"));
            assert!(schemas.contains_key(name), "{pointer}");
            count += 1;
        }
        assert!(count > 20);
    }

    #[test]
    fn parameters_are_told_with_whether_they_are_needed() {
        let parameters = &DOCUMENT["paths"]["/consumers/{name}/explain"]["get"]["parameters"];
        let told: Vec<_> = parameters
            .as_array()
            .unwrap()
            .iter()
            .map(|p| (p["name"].as_str(), p["in"].as_str(), p["required"].as_bool()))
            .collect();
        assert_eq!(told, [(Some("name"), Some("path"), Some(true)), (Some("key"), Some("query"), Some(true))]);
    }
}
