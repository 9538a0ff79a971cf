//! What the code knows of the contract: names, what must be there, what may be null, and the values it lists.

use std::collections::BTreeSet;

use guest_connection_adapter::domain::drift::{Drift, DriftKind};
use guest_connection_adapter::domain::guest_connection;
use guest_connection_adapter::domain::record::JsonText;
use guest_connection_adapter::domain::reply::{Answer, error_drifts};
use guest_connection_adapter::mycreditapp::wire;
use serde_json::{Map, Value, json};

use crate::document::Document;

/// How the code finds `value` to depart from the contract.
fn drifts(value: &Value) -> Vec<Drift> {
    guest_connection::read(&JsonText::object(&value.to_string()).unwrap()).1
}

/// The fields in which a kind of difference is found.
fn fields(value: &Value, kind: DriftKind) -> BTreeSet<String> {
    drifts(value).into_iter().filter(|drift| drift.kind == kind).map(|drift| drift.field).collect()
}

/// Every field of the document with this value.
fn all(document: &Document, value: &Value) -> Value {
    let names = document.schema("GuestConnection")["properties"].as_object().unwrap().keys();
    Value::Object(names.map(|name| (name.clone(), value.clone())).collect::<Map<_, _>>())
}

/// Whether a field may be null, by the document.
fn nullable(document: &Document, schema: &Value) -> bool {
    document.departures(schema, &Value::Null).is_empty()
}

#[test]
fn the_fields_of_a_connection_are_those_of_the_document() {
    let document = Document::read();
    let schema = document.schema("GuestConnection");
    let properties = schema["properties"].as_object().unwrap();
    let required: BTreeSet<String> =
        schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    let not_null: BTreeSet<String> = properties
        .iter()
        .filter(|(_, schema)| !nullable(&document, schema))
        .map(|(name, _)| name.clone())
        .collect();
    assert_eq!(required, not_null, "a nullable field may be missing");
    assert_eq!(fields(&json!({}), DriftKind::Missing), required);
    let nulls = all(&document, &Value::Null);
    assert_eq!(fields(&nulls, DriftKind::Null), not_null);
    assert_eq!(fields(&nulls, DriftKind::UnknownField), BTreeSet::new(), "the code knows every one");
    let names: BTreeSet<String> = properties.keys().cloned().collect();
    assert_eq!(fields(&all(&document, &json!([1])), DriftKind::Mistyped), names, "each has a type");
    // What the document does not have is new to the code: it knows no more.
    assert_eq!(names.len(), 16);
}

#[test]
fn types_and_forms_are_those_of_the_document() {
    let document = Document::read();
    let values = [
        json!("text"),
        json!("0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a01"),
        json!("2023-11-07T05:31:56Z"),
        json!("2025-12-12T10:30:00.123456"),
        json!(true),
        json!(1.5),
        json!({}),
    ];
    for (name, schema) in document.schema("GuestConnection")["properties"].as_object().unwrap() {
        for value in &values {
            // A value that is not listed, and what is no e-mail address, are texts all the same.
            let is_text = value.is_string()
                && (!document.resolved(schema)["enum"].is_null() || name.ends_with("_email"));
            let fits = is_text || document.departures(schema, value).is_empty();
            let mistyped = fields(&json!({ name: value }), DriftKind::Mistyped).contains(name);
            assert_eq!(fits, !mistyped, "{name}: {value}");
        }
    }
}

#[test]
fn the_values_that_are_listed_are_those_of_the_document() {
    let document = Document::read();
    for (name, schema) in document.schema("GuestConnection")["properties"].as_object().unwrap() {
        let listed = document.resolved(schema)["enum"].as_array();
        for value in listed.into_iter().flatten() {
            assert!(fields(&json!({ name: value }), DriftKind::UnknownValue).is_empty(), "{name}: {value}");
        }
        let novel = fields(&json!({ name: "novel" }), DriftKind::UnknownValue);
        assert_eq!(novel.contains(name), listed.is_some(), "{name}");
    }
}

#[test]
fn the_forms_of_errors_and_tokens_are_those_of_the_document() {
    let document = Document::read();
    let answer = |status, body: &Value| Answer {
        status,
        retry_after: None,
        body: Some(body.to_string().into_bytes()),
    };
    let entry = json!({"loc": ["body", 1], "msg": "m", "type": "t", "code": "c"});
    let mut errors =
        vec![json!({"detail": [entry]}), json!({"detail": []}), json!({}), json!([]), json!({"detail": 1})];
    for name in ["loc", "msg", "type", "code"] {
        let (mut fewer, mut other) = (entry.clone(), entry.clone());
        fewer.as_object_mut().unwrap().remove(name);
        other[name] = json!({});
        errors.extend([json!({"detail": [fewer]}), json!({"detail": [other]})]);
    }
    errors.extend([
        json!({"detail": [], "novel": 1}),
        json!({"detail": [{"loc": [null], "msg": "m", "type": "t", "code": "c"}]}),
    ]);
    for error in errors {
        let fits = document.departures(document.schema("Error"), &error).is_empty();
        assert_eq!(error_drifts(&answer(500, &error)).is_empty(), fits, "{error}");
    }
    for token in [
        json!({"access_token": "a.b.c", "expires_in": 3600}),
        json!({"access_token": "a.b.c"}),
        json!({"expires_in": 3600}),
        json!({"access_token": 1, "expires_in": 3600}),
        json!({"access_token": "a.b.c", "expires_in": "3600"}),
        json!({"access_token": "a.b.c", "expires_in": 1, "token_type": "bearer"}),
        json!([]),
    ] {
        let fits = document.departures(document.schema("Token"), &token).is_empty();
        assert_eq!(wire::token_drifts(&answer(200, &token)).is_empty(), fits, "{token}");
    }
}
