//! The document, and how an exchange departs from it.

use std::collections::BTreeMap;

use jsonschema::Draft;
use serde_json::{Map, Value, json};

/// What HTTP and tracing add to every message, whatever it is about.
const TRANSPORT_REQUEST: &[&str] =
    &["host", "user-agent", "accept", "content-length", "content-type", "traceparent", "tracestate"];
const TRANSPORT_RESPONSE: &[&str] = &["content-type", "content-length", "date", "connection"];

/// A request or an answer, with the names of its headers in small letters.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// The OpenAPI document.
pub struct Document(Value);

impl Document {
    pub fn read() -> Self {
        let text =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/mycreditapp.openapi.yaml"));
        Self(serde_saphyr::from_str(&text.unwrap()).unwrap())
    }

    /// A schema by its name.
    pub fn schema(&self, name: &str) -> &Value {
        &self.0["components"]["schemas"][name]
    }

    /// The object that `value` refers to, or is.
    pub fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => {
                self.0.pointer(reference.trim_start_matches('#')).expect("what is referred to")
            }
            None => value,
        }
    }

    /// How `value` departs from a schema. Fields that the document does not name are departures too, though the API may
    /// bring new ones: neither the client nor the simulator does.
    pub fn departures(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut components = self.0["components"].clone();
        close(&mut components);
        let mut schema = schema.clone();
        close(&mut schema);
        let whole = json!({"allOf": [schema], "components": components});
        let options = jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true);
        let validator = options.build(&whole).expect("a schema");
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    /// The operation of a method on a path below the server's, and the values of the path's parameters.
    fn operation(&self, method: &str, path: &str) -> Option<(&Value, BTreeMap<String, String>)> {
        let base = self.0["servers"][0]["url"].as_str()?.split('/').skip(3).collect::<Vec<_>>().join("/");
        let rest = path.strip_prefix(&format!("/{base}"))?;
        self.0["paths"].as_object()?.iter().find_map(|(template, operations)| {
            let values = matched(template, rest)?;
            Some((operations.get(method.to_lowercase())?, values))
        })
    }

    /// How a request departs.
    pub fn request_departures(&self, method: &str, path: &str, request: &Message) -> Vec<String> {
        let Some((operation, values)) = self.operation(method, path) else {
            return vec![format!("no such operation: {method} {path}")];
        };
        let mut known: Vec<String> = TRANSPORT_REQUEST.iter().map(|name| (*name).to_owned()).collect();
        let mut found = Vec::new();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().expect("a name");
            let value = if parameter["in"] == "path" {
                values.get(name)
            } else {
                known.push(name.to_lowercase());
                request.headers.get(&name.to_lowercase())
            };
            match value {
                Some(value) => found.extend(self.departures(&parameter["schema"], &json!(value))),
                None => found.push(format!("{name} is missing")),
            }
        }
        let secured = operation
            .get("security")
            .unwrap_or(&self.0["security"])
            .as_array()
            .is_some_and(|all| !all.is_empty());
        if secured {
            known.push("authorization".to_owned());
            if request.headers.get("authorization").is_none_or(|value| !value.starts_with("Bearer ")) {
                found.push("no bearer token".to_owned());
            }
        }
        found.extend(unknown(&request.headers, &known));
        found.extend(self.content_departures(&operation["requestBody"]["content"], request));
        if request.headers.get("accept").is_none_or(|value| value != "application/json") {
            found.push("does not accept application/json".to_owned());
        }
        found
    }

    /// How the answer to a request departs.
    pub fn response_departures(
        &self,
        method: &str,
        path: &str,
        status: u16,
        response: &Message,
    ) -> Vec<String> {
        let Some((operation, _)) = self.operation(method, path) else {
            return vec![format!("no such operation: {method} {path}")];
        };
        let responses = &operation["responses"];
        let range = format!("{}XX", status / 100);
        let Some(declared) = responses.get(status.to_string()).or_else(|| responses.get(range)) else {
            return vec![format!("status {status} is not declared")];
        };
        let declared = self.resolved(declared);
        let mut known: Vec<String> = TRANSPORT_RESPONSE.iter().map(|name| (*name).to_owned()).collect();
        known.extend(
            declared["headers"].as_object().into_iter().flat_map(Map::keys).map(|name| name.to_lowercase()),
        );
        let mut found = unknown(&response.headers, &known);
        found.extend(self.content_departures(&declared["content"], response));
        found
    }

    fn content_departures(&self, content: &Value, message: &Message) -> Vec<String> {
        let kind = message.headers.get("content-type").map_or("", String::as_str);
        let Some(declared) = content.get(kind) else {
            return vec![format!("content type `{kind}` is not declared")];
        };
        match serde_json::from_slice(&message.body) {
            Ok(value) => self.departures(&declared["schema"], &value),
            Err(error) => vec![format!("the body is not JSON: {error}")],
        }
    }
}

/// Names of headers that are not known.
fn unknown(headers: &BTreeMap<String, String>, known: &[String]) -> Vec<String> {
    headers
        .keys()
        .filter(|name| !known.contains(name))
        .map(|name| format!("header {name} is not declared"))
        .collect()
}

/// The values of the parameters in a path, if it has the form of `template`.
fn matched(template: &str, path: &str) -> Option<BTreeMap<String, String>> {
    let (names, parts): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    if names.len() != parts.len() {
        return None;
    }
    let mut values = BTreeMap::new();
    for (name, part) in names.into_iter().zip(parts) {
        match name.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => drop(values.insert(name.to_owned(), part.to_owned())),
            None if name == part => {}
            None => return None,
        }
    }
    Some(values)
}

/// Lets no object have fields that are not named.
fn close(value: &mut Value) {
    if let Value::Object(fields) = value {
        if fields.get("properties").is_some_and(Value::is_object) {
            fields.insert("additionalProperties".to_owned(), json!(false));
        }
        fields.values_mut().for_each(close);
    } else if let Value::Array(items) = value {
        items.iter_mut().for_each(close);
    }
}

#[test]
fn what_departs_is_found() {
    const PATH: &str = "/v1-beta/guest-connections/0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a02";
    const ID: &str = "0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a01";
    let document = Document::read();
    let message = |headers: &[(&str, &str)], body: &str| Message {
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: body.as_bytes().to_vec(),
    };
    let all = [
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("authorization", "Bearer t"),
        ("requester-organization-id", ID),
        ("target-organization-id", ID),
    ];
    let good = message(&all, r#"{"archived": true}"#);
    let found = |request: &Message| document.request_departures("PATCH", PATH, request).len();
    assert_eq!(found(&good), 0);
    for missing in 0..all.len() {
        let mut fewer = all.to_vec();
        fewer.remove(missing);
        assert_eq!(found(&message(&fewer, r#"{"archived": true}"#)), 1, "{:?}", all[missing]);
    }
    assert_eq!(
        found(&message(&[&all[..], &[("idempotency-key", "x")]].concat(), r#"{"archived": true}"#)),
        1
    );
    for body in ["", "{}", r#"{"archived": 1}"#, r#"{"archived": true, "novel": 1}"#] {
        assert_eq!(found(&message(&all, body)), 1, "{body}");
    }
    for (method, path) in
        [("PUT", PATH), ("PATCH", "/guest-connections/x"), ("PATCH", "/v1-beta/guest-connections")]
    {
        assert_eq!(document.request_departures(method, path, &good).len(), 1, "{method} {path}");
    }
    assert_eq!(document.request_departures("PATCH", "/v1-beta/guest-connections/x", &good).len(), 1);

    let json = ("content-type", "application/json");
    let error = r#"{"detail": [{"loc": ["a", 1], "msg": "m", "type": "t", "code": "c"}]}"#;
    let found =
        |status, response: &Message| document.response_departures("PATCH", PATH, status, response).len();
    assert_eq!(found(404, &message(&[json], error)), 0);
    assert_eq!(found(429, &message(&[json, ("retry-after", "1")], error)), 0);
    assert_eq!(found(404, &message(&[json, ("retry-after", "1")], error)), 1);
    assert_eq!(found(302, &message(&[json], error)), 1);
    assert_eq!(found(404, &message(&[("content-type", "text/html")], "<html>")), 1);
    assert_eq!(found(404, &message(&[json], r#"{"detail": [], "novel": 1}"#)), 1);
    assert_eq!(
        found(
            404,
            &message(&[json], r#"{"detail": [{"loc": [true], "msg": "m", "type": "t", "code": "c"}]}"#)
        ),
        1
    );
    assert!(found(200, &message(&[json], "{}")) > 0);
}
