//! The example file and the table of keys, made of the doc comments and the defaults of [`sections`](super::sections).

use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::{Config, secrets, variable};

/// A key as the schema knows it.
struct Key {
    /// Its section, `organizations.<name>` for one below a name that operators choose.
    section: String,
    name: String,
    description: String,
    /// The default, or an example where there is none.
    value: Option<Value>,
    has_default: bool,
    /// The values that it can have, if they are few.
    choices: Vec<String>,
}

/// A section.
struct Section {
    name: String,
    description: String,
    /// Whether it is there without being written.
    is_present: bool,
    keys: Vec<Key>,
}

/// What the keys are that stand before any section.
const TOP: &str = "Keys that stand before every section.";

/// What an operator writes in the place of a name of their choice.
const PLACEHOLDER: &str = "<name>";

fn sections() -> Vec<Section> {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let amqp = serde_json::to_value(super::sections::Amqp::default()).unwrap_or_default();
    let jwt = serde_json::to_value(super::sections::Jwt::default()).unwrap_or_default();
    let (sections, keys): (Vec<_>, Vec<_>) =
        properties(&schema).into_iter().flatten().partition(|(_, schema)| is_section(schema));
    let top = keys.into_iter().map(|(name, schema)| key("", name, schema, &defaults)).collect();
    let top = Section { name: String::new(), description: TOP.to_owned(), is_present: true, keys: top };
    let sections = sections.into_iter().map(|(name, schema)| {
        let defaults = match name.as_str() {
            "amqp" => &amqp,
            "jwt" => &jwt,
            _ => &defaults[name],
        };
        let (section, inner) = match schema.get("additionalProperties") {
            Some(entry) if entry.is_object() => (format!("{name}.{PLACEHOLDER}"), entry),
            _ => (name.clone(), schema),
        };
        let keys = properties(inner).into_iter().flatten();
        let keys = keys.map(|(name, schema)| key(&section, name, schema, defaults)).collect();
        let is_present = section == *name && !["amqp", "jwt"].contains(&name.as_str());
        Section { name: section, description: description(schema), is_present, keys }
    });
    std::iter::once(top).chain(sections).collect()
}

/// Whether a schema has keys below it.
fn is_section(schema: &Value) -> bool {
    properties(schema).is_some() || schema.get("additionalProperties").is_some_and(Value::is_object)
}

fn key(section: &str, name: &str, schema: &Value, defaults: &Value) -> Key {
    let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let default = defaults.get(name).filter(|value| !is_empty(value)).cloned();
    let example = schema.pointer("/examples/0").cloned();
    Key {
        section: section.to_owned(),
        name: name.to_owned(),
        description: description(schema),
        has_default: default.is_some(),
        choices: choices_of(schema),
        value: default.or(example),
    }
}

/// A key in full.
fn full(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// The keys below a schema; those of an optional section stand in an alternative.
fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    let direct = schema.get("properties").and_then(Value::as_object);
    direct.or_else(|| schema.get("anyOf")?.as_array()?.iter().find_map(properties))
}

/// The values of an enumeration.
fn choices_of(schema: &Value) -> Vec<String> {
    let variants = schema.get("oneOf").and_then(Value::as_array);
    let names = variants.into_iter().flatten().filter_map(|variant| variant.get("const")?.as_str());
    names.map(str::to_owned).collect()
}

/// A doc comment on one line.
fn description(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A file with every key, its meaning and its default. As it stands it says what saying nothing says.
#[must_use]
pub fn example() -> String {
    let mut text = String::from(
        "# The configuration of guest-connection-adapter. Every value below is the default; what is commented out has\n\
         # none. Times are written like 500ms, 30s, 5m, 24h, 7days, lengths in bytes.\n\
         #\n\
         # Each key can be set by an environment variable as well, which then has the last word:\n\
         # grpc.listen by GCA_GRPC__LISTEN. Secrets come by files of their own or by the environment only.\n",
    );
    for section in sections() {
        let mark = if section.is_present { "" } else { "# " };
        let example = if section.name.starts_with("principals") { "billing" } else { "acme" };
        let name = section.name.replace(PLACEHOLDER, example);
        if !name.is_empty() {
            let _ = write!(text, "\n{}{mark}[{name}]\n", comment(&section.description));
        }
        for key in section.keys {
            let _ = match (&key.value, secrets::is_secret(&key.name)) {
                (_, true) => {
                    let variable = variable(&full(&name, &key.name));
                    write!(text, "\n{}#   {variable}\n", comment(&key.description))
                }
                (value, false) => {
                    let mark = if section.is_present && key.has_default { "" } else { "# " };
                    let value = value.clone().unwrap_or_default();
                    let value = if key.name == "id" { key_example() } else { value };
                    write!(text, "\n{}{mark}{} = {value}\n", comment(&key.description), key.name)
                }
            };
        }
    }
    text
}

/// An id can have no default that works.
fn key_example() -> Value {
    Value::from("0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a77")
}

/// `text` as comment lines of a bearable width.
fn comment(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < 110 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("# {word}")),
        }
    }
    lines.join("\n") + "\n"
}

/// The page `docs/configuration.md`.
#[must_use]
pub fn page() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         <!-- Made of the doc comments in src/config/sections.rs; a test keeps it equal. To write it anew:\n     \
         UPDATE_DOCS=1 cargo test --test config the_page -->\n\n\
         A TOML file (`--config`, else `guest-connection-adapter.toml` if it is there) and environment variables, which\n\
         have the last word. Everything has a default; `guest-connection-adapter example-config` prints a file with all\n\
         of it, `guest-connection-adapter check` tells every fault at once.\n\n\
         Times are written like `500ms`, `30s`, `5m`, `24h`, `7days`; lengths are in bytes. Secrets come by a file of\n\
         their own that others cannot read, or by the environment; in the configuration file they are refused.\n\
         The name of an organisation or a principal is set by the environment in small letters, a list with commas.\n",
    );
    for section in sections() {
        let title =
            if section.name.is_empty() { "Top level".to_owned() } else { format!("`[{}]`", section.name) };
        let _ = write!(text, "\n## {title}\n\n{}\n\n", section.description);
        text.push_str("| key | default | meaning | environment variable |\n| --- | --- | --- | --- |\n");
        for key in section.keys {
            let default = match key.value.filter(|_| key.has_default) {
                Some(Value::String(value)) if value.is_empty() => "none".to_owned(),
                Some(Value::String(value)) => format!("`{value}`"),
                Some(value) => format!("`{value}`"),
                None => "none".to_owned(),
            };
            let variable = variable(&full(&key.section, &key.name));
            let meaning = key.description.replace('|', "\\|");
            let _ = writeln!(text, "| `{}` | {default} | {meaning} | `{variable}` |", key.name);
        }
    }
    text
}

/// Every key in full, with `<name>` in the place of a name of the operator's choice.
#[must_use]
pub fn keys() -> Vec<String> {
    let keys = sections().into_iter().flat_map(|section| section.keys);
    keys.map(|key| full(&key.section, &key.name)).collect()
}

/// The values that the key can have, if they are few.
pub(super) fn choices(key: &str) -> Option<String> {
    let (section, name) = key.rsplit_once('.')?;
    let section = sections().into_iter().find(|known| known.name == section)?;
    let key = section.keys.into_iter().find(|key| key.name == name)?;
    let choices: Vec<_> = key.choices.iter().map(|choice| format!("`{choice}`")).collect();
    (!choices.is_empty()).then(|| choices.join(", "))
}

/// Whether the key holds a time.
pub(super) fn is_duration(section: &str, name: &str) -> bool {
    let times = [
        "timeout",
        "settle",
        "delay_base",
        "delay_max",
        "margin",
        "hold",
        "interval",
        "retention",
        "lease",
        "give_up_after",
    ];
    !["organizations", "principals"].contains(&section) && times.iter().any(|time| name.ends_with(time))
}

/// The key that someone who wrote `key` may have meant.
pub(super) fn nearest(key: &str) -> Option<String> {
    const DISTANCE_MAX: usize = 3;
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let known = sections();
    let candidates: Vec<String> = if section.is_empty() {
        let (top, sections): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|section| section.name.is_empty());
        let keys = top.into_iter().flat_map(|top| top.keys).map(|key| key.name);
        let first = |section: Section| section.name.split('.').next().unwrap_or_default().to_owned();
        keys.chain(sections.into_iter().map(first)).collect()
    } else {
        let section = match section.split('.').next() {
            Some("organizations") => "organizations.<name>",
            Some("principals") => "principals.<name>",
            _ => section,
        };
        let section = known.into_iter().find(|known| known.name == section)?;
        section.keys.into_iter().map(|key| key.name).collect()
    };
    let distances = candidates.into_iter().map(|candidate| (distance(&candidate, name), candidate));
    let (distance, nearest) = distances.min()?;
    let near = distance <= DISTANCE_MAX && distance * 2 < name.len();
    near.then(|| if section.is_empty() { nearest } else { format!("{section}.{nearest}") })
}

/// The number of letters to put in, take out or change (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in right.bytes().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
