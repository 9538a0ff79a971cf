//! File and environment into a [`Config`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use config::{ConfigError, Environment, File, FileFormat, Map, Source as _, Value, ValueKind};
use serde::Deserialize as _;
use serde_path_to_error::Segment;

use super::fault::Faults;
use super::source::Reading;
use super::{Config, PREFIX, SEPARATOR, jwt, reference, rules, secrets, variable};
use crate::tls::Files;

/// Reads `file`, if there is one, then lets the `environment` have its say, and checks the whole.
///
/// # Errors
/// Everything that is wrong.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, Faults> {
    read(file, environment).config
}

/// The same, with the files that were looked at.
pub(super) fn read(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Reading {
    let mut faults = Faults::default();
    let mut table = file.map(|path| parse(path, &mut faults)).unwrap_or_default();
    secrets::refuse_in_file(&mut table, "", &mut faults);
    let variables = variables(environment, &mut faults);
    let mut config = match tree(&table, &variables) {
        Ok(tree) => deserialized(tree, &variables, &mut faults),
        Err(error) => {
            faults.push("configuration", error.to_string());
            Config::default()
        }
    };
    let mut files: Vec<_> = file.into_iter().chain(secrets::files(&config)).map(Path::to_owned).collect();
    // A fault in one of them is a fault of the whole, until the file is mended.
    files.extend(config.grpc.tls().iter().flat_map(Files::paths).cloned());
    secrets::resolve(&mut config, &mut faults);
    jwt::resolve(&mut config, &mut faults);
    rules::check(&config, &mut faults);
    Reading { files, config: if faults.0.is_empty() { Ok(config) } else { Err(faults) } }
}

fn parse(path: &Path, faults: &mut Faults) -> toml::Table {
    let shown = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            faults.push(shown, format!("cannot be read: {error}"));
            return toml::Table::new();
        }
    };
    toml::from_str(&text).unwrap_or_else(|error: toml::de::Error| {
        // The error's own display would quote the line, and a secret may stand in it.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.lines().count().max(1) + usize::from(before.ends_with('\n'));
        faults.push(format!("{shown}, line {line}"), format!("is not TOML: {}", error.message()));
        toml::Table::new()
    })
}

/// The variables that are meant for the configuration.
fn variables(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    faults: &mut Faults,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        match value.into_string() {
            // An empty one is as good as none, so that a template need not leave it out.
            Ok(value) if value.is_empty() => {}
            Ok(value) => {
                variables.insert(name.to_owned(), value);
            }
            Err(_) => faults.push(name, "is not UTF-8"),
        }
    }
    variables
}

fn tree(table: &toml::Table, variables: &BTreeMap<String, String>) -> Result<Value, ConfigError> {
    let text = toml::to_string(table).map_err(|error| ConfigError::Foreign(Box::new(error)))?;
    let variables: Map<String, String> = variables.clone().into_iter().collect();
    let environment = Environment::with_prefix(PREFIX.trim_end_matches('_'))
        .prefix_separator("_")
        .separator(SEPARATOR)
        .source(Some(variables));
    let sources = config::Config::builder()
        .add_source(File::from_str(&text, FileFormat::Toml))
        .add_source(environment)
        .build()?;
    Ok(Value::new(None, ValueKind::Table(sources.collect()?)))
}

/// Reads the tree; what cannot be read is noted and taken out, until the rest can.
fn deserialized(mut tree: Value, variables: &BTreeMap<String, String>, faults: &mut Faults) -> Config {
    let place = |key: &str| {
        let variable = variable(key);
        if variables.contains_key(&variable) { format!(" (from {variable})") } else { String::new() }
    };
    loop {
        let mut unknown = Vec::new();
        let mut track = serde_path_to_error::Track::new();
        let tracked = serde_path_to_error::Deserializer::new(tree.clone(), &mut track);
        let mut note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
        let all = serde_ignored::Deserializer::new(tracked, &mut note);
        let error = match Config::deserialize(all) {
            Ok(config) => {
                for key in unknown {
                    let key = key.replace(".?", "");
                    let near = reference::nearest(&key);
                    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                    faults.push(&key, format!("is not a key{}{hint}", place(&key)));
                }
                return config;
            }
            Err(error) => error,
        };
        let path = track.path();
        let names: Vec<_> = path
            .iter()
            .filter_map(|segment| match segment {
                Segment::Map { key } => Some(key.as_str()),
                _ => None,
            })
            .collect();
        let key = names.join(".");
        let text = if secrets::is_secret(&key) {
            "must be a text (its value is not shown)".to_owned()
        } else {
            described(&error, &key, value(&tree, &names))
        };
        faults.push(if key.is_empty() { "configuration" } else { &key }, format!("{text}{}", place(&key)));
        if !remove(&mut tree, &names) {
            return Config::default();
        }
    }
}

/// An error without the place, which its fault names already.
fn described(error: &ConfigError, key: &str, value: Option<String>) -> String {
    match (error, value) {
        (ConfigError::At { error, .. }, value) => described(error, key, value),
        (ConfigError::Type { unexpected, expected, .. }, _) => {
            format!("invalid value: {unexpected}, expected {expected}")
        }
        (error, Some(value)) => match reference::choices(key) {
            Some(choices) => format!("is `{value}`, must be one of {choices}"),
            None => format!("is `{value}`: {error}"),
        },
        (error, None) => error.to_string(),
    }
}

/// The text of the value at the end of `names`, if it has one.
fn value(tree: &Value, names: &[&str]) -> Option<String> {
    match (&tree.kind, names) {
        (ValueKind::Table(table), [name, rest @ ..]) => value(table.get(*name)?, rest),
        (ValueKind::Table(_) | ValueKind::Array(_) | ValueKind::Nil, _) => None,
        (_, _) => Some(tree.to_string()),
    }
}

/// Takes the value at the end of `names` out of the tree. Returns whether there was one.
fn remove(tree: &mut Value, names: &[&str]) -> bool {
    let ValueKind::Table(table) = &mut tree.kind else { return false };
    match names {
        [] => false,
        [name] => table.remove(*name).is_some(),
        [name, rest @ ..] => table.get_mut(*name).is_some_and(|section| remove(section, rest)),
    }
}
