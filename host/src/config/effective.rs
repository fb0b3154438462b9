//! The settings that are in effect, one by one, with where each value is from: the file and its line, the environment, or the default.
//!
//! The defaults are those of the reference files in `host/config.example/`, which tests keep equal to the code's. Secrets are never shown: they stay in files
//! of their own, and what a plug-in's `[config]` calls a secret is covered.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::reader::Context;

/// The reference of `pelton.toml`.
const HOST_REFERENCE: &str = include_str!("../../config.example/pelton.toml");
/// The reference of manifests.
const MANIFEST_REFERENCE: &str = include_str!("../../config.example/consumers/orders.toml");
/// What the reference of manifests shows and is no default.
pub(super) const MANIFEST_OWN: &str = "component = \"orders.wasm\"\n[subscription]\nstream = \"ORDERS\"\n\
    subjects = [\"orders.>\"]\n[key]\nsubject_token = 2\n[grants]\nemit = [\"totals.>\"]\n[config]\nthreshold = \"1000\"\n\
    [[streams]]\nname = \"ORDERS\"\nsubjects = [\"orders.>\"]\n";
/// Parts of a name of `[config]` whose value is nobody's business.
const SECRET_WORDS: [&str; 7] = ["password", "passwd", "secret", "token", "credential", "apikey", "api_key"];
/// What is shown instead of a secret.
const COVERED: &str = "(secret)";

/// Where a value is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The file has it in this line, from 1.
    File(usize),
    /// This environment variable has it.
    Environment(&'static str),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(line) => write!(f, "line {line}"),
            Self::Environment(name) => write!(f, "{name}"),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// Section and field with a dot between them; items of a list of sections have their number, from 0, between.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// Where that is from.
    pub source: Source,
}

/// A value of a file, and its line.
pub(super) type Given = BTreeMap<String, (Value, usize)>;

/// The settings of a host. `environment`: what the environment has set, the names of the setting and of the variable.
pub(super) fn of_host(context: &Context<'_>, environment: &[(&'static str, &'static str, Value)]) -> Vec<Setting> {
    let mut settings = in_effect(context, HOST_REFERENCE, "");
    for (name, variable, value) in environment {
        settings.retain(|setting| setting.name != *name);
        let source = Source::Environment(variable);
        settings.push(Setting { name: (*name).into(), value: value.clone(), source });
    }
    settings.sort_by(|a, b| a.name.cmp(&b.name));
    settings
}

/// The settings of a consumer.
pub(super) fn of_manifest(context: &Context<'_>) -> Vec<Setting> {
    in_effect(context, MANIFEST_REFERENCE, MANIFEST_OWN)
}

fn in_effect(context: &Context<'_>, reference: &str, own: &str) -> Vec<Setting> {
    let mut defaults = values(reference);
    for name in values(own).keys() {
        defaults.remove(name);
    }
    let given = context.given();
    let mut found = BTreeMap::new();
    for known in context.known_fields() {
        let name = known.trim_start_matches('.');
        let Some((section, field)) = name.split_once('.') else { continue };
        let Some(default) = defaults.get(name) else { continue };
        let places = items_of(&given, section).map_or_else(
            || vec![name.to_owned()],
            |count| (0..count).map(|item| format!("{section}.{item}.{field}")).collect(),
        );
        found.extend(places.into_iter().map(|place| (place, (default.clone(), Source::Default))));
    }
    found.extend(given.into_iter().map(|(name, (value, line))| (name, (value, Source::File(line)))));
    let setting = |(name, (value, source)): (String, (Value, Source))| {
        let value = if is_secret(&name) { COVERED.into() } else { value };
        Setting { name, value, source }
    };
    found.into_iter().map(setting).collect()
}

/// How many sections of this name there are; none: it is not one of which there may be any number.
fn items_of(given: &Given, section: &str) -> Option<usize> {
    let number =
        |name: &String| name.strip_prefix(section)?.strip_prefix('.')?.split_once('.')?.0.parse::<usize>().ok();
    given.keys().filter_map(number).max().map(|last| last + 1)
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.strip_prefix("config.").is_some_and(|field| SECRET_WORDS.iter().any(|word| field.contains(word)))
}

/// The values of a TOML text by their names; of sections that may occur any number of times, those of the first.
fn values(text: &str) -> BTreeMap<String, Value> {
    let (table, _) = DeTable::parse_recoverable(text);
    let mut found = BTreeMap::new();
    for (name, value) in table.get_ref() {
        let fields = match value.get_ref() {
            DeValue::Table(fields) => Some(fields),
            DeValue::Array(items) => items.iter().next().and_then(|first| first.get_ref().as_table()),
            _ => None,
        };
        match fields {
            Some(fields) => found.extend(fields.iter().filter_map(|(field, value)| {
                Some((
                    format!("{name}.{field}", name = name.get_ref(), field = field.get_ref()),
                    plain(value.get_ref())?,
                ))
            })),
            None => found.extend(plain(value.get_ref()).map(|value| (name.get_ref().to_string(), value))),
        }
    }
    found
}

/// A value of TOML as one of JSON; none for a section.
pub(super) fn plain(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok()?.into(),
        DeValue::Float(float) => float.as_str().parse::<f64>().ok()?.into(),
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Datetime(date) => date.to_string().into(),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| plain(item.get_ref())).collect::<Option<_>>()?),
        DeValue::Table(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{host_read, manifest_read};

    fn shown(settings: &[Setting], name: &str) -> Option<String> {
        let setting = settings.iter().find(|setting| setting.name == name)?;
        Some(format!("{} from {}", setting.value, setting.source))
    }

    #[test]
    fn a_hosts_settings_tell_what_is_set_where_and_what_is_a_default() {
        let context = Context::new(Path::new("pelton.toml"), "[limits]\ndrain_ms = 5_0\n");
        host_read::read(&context, true).unwrap();
        let settings = of_host(&context, &[("admin.token", "PELTON_ADMIN_TOKEN", COVERED.into())]);
        let wanted = [
            ("limits.drain_ms", "50 from line 2"),
            ("store.processed_ids_hours", "24 from default"),
            ("admin.token", "\"(secret)\" from PELTON_ADMIN_TOKEN"),
        ];
        for (name, text) in wanted {
            assert_eq!(shown(&settings, name).as_deref(), Some(text), "{name}");
        }
        assert_eq!(shown(&settings, "nats.user"), None, "what has no default and is not set");
    }

    #[test]
    fn every_field_with_a_default_is_among_the_settings() {
        let context = Context::new(Path::new("pelton.toml"), "");
        host_read::read(&context, false).unwrap();
        let settings = of_host(&context, &[]);
        for name in values(HOST_REFERENCE).keys() {
            assert!(shown(&settings, name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_consumers_settings_show_each_stream_and_cover_secrets() {
        let text = "component = \"a.wasm\"\n[subscription]\nstream = \"S\"\nsubjects = [\"s.*\"]\n[key]\nsubject_token = 2\n[config]\n\
                    api_token = \"abc\"\nunit = 3\n[[streams]]\nname = \"S\"\nsubjects = [\"s.>\"]\n[[streams]]\nname = \"T\"\nsubjects = [\"t\"]\n\
                    replicas = 3\n";
        let context = Context::new(Path::new("a.toml"), text);
        manifest_read::read(&context, "a").unwrap();
        let settings = of_manifest(&context);
        let wanted = [
            ("component", "\"a.wasm\" from line 1"),
            ("subscription.subjects", "[\"s.*\"] from line 4"),
            ("config.api_token", "\"(secret)\" from line 8"),
            ("config.unit", "3 from line 9"),
            ("streams.0.replicas", "1 from default"),
            ("streams.1.replicas", "3 from line 16"),
            ("retry.attempts_max", "5 from default"),
        ];
        for (name, text) in wanted {
            assert_eq!(shown(&settings, name).as_deref(), Some(text), "{name}");
        }
        assert_eq!(shown(&settings, "grants.emit"), None, "the reference's own grants are no defaults");
    }
}
