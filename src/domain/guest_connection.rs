//! The upstream's guest connection, read tolerantly: whatever can be read is, and what cannot is named, never an error.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, NaiveDateTime};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;

use super::Timestamp;
use super::drift::{Drift, DriftKind};
use super::record::JsonText;

/// The fields of the contract as far as they could be read.
#[derive(Clone, Default, PartialEq)]
pub struct GuestConnection {
    /// The organisation that owns the connection.
    pub host_organization_id: Option<Uuid>,
    /// Its guest.
    pub guest_organization_id: Option<Uuid>,
    /// `connected`, `disconnected` or a value that is new to us, as it was sent.
    pub status: Option<String>,
    /// The guest's name.
    pub guest_name: Option<String>,
    /// The guest's e-mail address.
    pub guest_email: Option<String>,
    /// The owner's e-mail address.
    pub owner_email: Option<String>,
    /// The flag that commands set.
    pub archived: Option<bool>,
    /// When the connection was made.
    pub created_at: Option<Timestamp>,
    /// When it was changed last.
    pub updated_at: Option<Timestamp>,
    /// The guest's score.
    pub total_score: Option<f64>,
    /// When the score was computed.
    pub score_updated_at: Option<Timestamp>,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
    /// `analytics_request` or a value that is new to us, as it was sent.
    pub active_action_type: Option<String>,
    /// When that action was changed last.
    pub active_action_updated_at: Option<Timestamp>,
    /// The guest's parent organisation.
    pub parent_organization_id: Option<Uuid>,
    /// Its name.
    pub parent_organization_name: Option<String>,
}

/// Differences reported for one answer, at most: a wholly foreign body is no reason for a flood.
const DRIFTS_MAX: usize = 32;

/// Reads both time forms of the API: RFC 3339, and microseconds without a zone, which are UTC.
#[must_use]
pub fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok().map(|time| time.and_utc())
}

/// Reads `text`, and names what differs from the contract.
#[must_use]
pub fn read(text: &JsonText) -> (GuestConnection, Vec<Drift>) {
    let Ok(Fields(fields)) = serde_json::from_str(text.as_str()) else {
        return (GuestConnection::default(), vec![Drift::whole(DriftKind::Unreadable)]);
    };
    let mut reader = Reader { fields, drifts: Vec::new() };
    let connection = GuestConnection {
        host_organization_id: reader.required("host_organization_id", uuid),
        guest_organization_id: reader.required("guest_organization_id", uuid),
        status: reader.required("status", string),
        guest_name: reader.required("guest_name", string),
        guest_email: reader.required("guest_email", string),
        owner_email: reader.required("owner_email", string),
        archived: reader.required("archived", boolean),
        created_at: reader.required("created_at", time),
        updated_at: reader.required("updated_at", time),
        total_score: reader.nullable("total_score", number),
        score_updated_at: reader.nullable("score_updated_at", time),
        archived_at: reader.nullable("archived_at", time),
        active_action_type: reader.nullable("active_action_type", string),
        active_action_updated_at: reader.nullable("active_action_updated_at", time),
        parent_organization_id: reader.nullable("parent_organization_id", uuid),
        parent_organization_name: reader.nullable("parent_organization_name", string),
    };
    reader.expect("status", connection.status.as_deref(), &["connected", "disconnected"]);
    reader.expect("active_action_type", connection.active_action_type.as_deref(), &["analytics_request"]);
    (connection, reader.finish())
}

/// A field's value, as far as the contract has such values.
enum Scalar<'a> {
    Null,
    Boolean(bool),
    Number(f64),
    Text(Cow<'a, str>),
    /// An array, an object, or a number that is none of ours.
    Other,
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        #[allow(clippy::cast_precision_loss, reason = "a score is no count")]
        impl<'de> Visitor<'de> for Visit {
            type Value = Scalar<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Scalar::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Scalar::Boolean(value))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(value as f64))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(value as f64))
            }

            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(value.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(value.to_owned().into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

/// The fields of an object by their names. Of several with one name the last counts, as for every JSON reader.
struct Fields<'a>(BTreeMap<Cow<'a, str>, Scalar<'a>>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((Name(name), value)) = members.next_entry()? {
                    fields.insert(name, value);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// A name, borrowed where it is written as it is meant.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

fn string(value: &Scalar<'_>) -> Option<String> {
    text(value).map(str::to_owned)
}

fn text<'a>(value: &'a Scalar<'_>) -> Option<&'a str> {
    if let Scalar::Text(text) = value { Some(text) } else { None }
}

fn boolean(value: &Scalar<'_>) -> Option<bool> {
    if let Scalar::Boolean(value) = value { Some(*value) } else { None }
}

fn number(value: &Scalar<'_>) -> Option<f64> {
    if let Scalar::Number(value) = value { Some(*value) } else { None }
}

fn uuid(value: &Scalar<'_>) -> Option<Uuid> {
    text(value).and_then(|text| Uuid::try_parse(text).ok())
}

fn time(value: &Scalar<'_>) -> Option<Timestamp> {
    text(value).and_then(parse_time)
}

/// Takes fields out of an object and keeps book of what is odd.
struct Reader<'a> {
    fields: BTreeMap<Cow<'a, str>, Scalar<'a>>,
    drifts: Vec<Drift>,
}

impl Reader<'_> {
    fn required<T>(&mut self, name: &str, read: impl Fn(&Scalar<'_>) -> Option<T>) -> Option<T> {
        match self.fields.remove(name) {
            None => {
                self.drift(name, DriftKind::Missing);
                None
            }
            Some(Scalar::Null) => {
                self.drift(name, DriftKind::Null);
                None
            }
            Some(value) => self.typed(name, read(&value)),
        }
    }

    fn nullable<T>(&mut self, name: &str, read: impl Fn(&Scalar<'_>) -> Option<T>) -> Option<T> {
        match self.fields.remove(name) {
            None | Some(Scalar::Null) => None,
            Some(value) => self.typed(name, read(&value)),
        }
    }

    fn typed<T>(&mut self, name: &str, read: Option<T>) -> Option<T> {
        if read.is_none() {
            self.drift(name, DriftKind::Mistyped);
        }
        read
    }

    fn expect(&mut self, name: &str, value: Option<&str>, known: &[&str]) {
        if value.is_some_and(|value| !known.contains(&value)) {
            self.drift(name, DriftKind::UnknownValue);
        }
    }

    fn drift(&mut self, name: &str, kind: DriftKind) {
        if self.drifts.len() < DRIFTS_MAX {
            self.drifts.push(Drift::new(name, kind));
        }
    }

    fn finish(mut self) -> Vec<Drift> {
        for name in std::mem::take(&mut self.fields).keys() {
            self.drift(name, DriftKind::UnknownField);
        }
        self.drifts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::domain::drift::FIELD_LENGTH_MAX;

    fn json(text: &str) -> JsonText {
        JsonText::object(text).expect("an object")
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
            Just(Value::from("2025-12-12T10:30:00.123456")),
            Just(Value::from("0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a77")),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                (".{0,5}", inner).prop_map(|(name, value)| serde_json::json!({ name: value })),
            ]
        })
    }

    fn name() -> impl Strategy<Value = String> {
        const KNOWN: &[&str] =
            &["archived", "status", "guest_organization_id", "total_score", "created_at", "archived_at"];
        prop_oneof![4 => proptest::sample::select(KNOWN).prop_map(str::to_owned), 1 => ".{0,100}"]
    }

    proptest! {
        #[test]
        fn any_object_is_read_and_kept_as_it_came(members in proptest::collection::vec((name(), value()), 0..40)) {
            let members: Vec<_> = members
                .iter()
                .map(|(name, value)| format!("{}: {value}", Value::from(name.as_str())))
                .collect();
            let text = format!("{{{}}}", members.join(" , "));
            let kept = JsonText::object(&text).expect("an object");
            prop_assert_eq!(kept.as_str(), &text);
            let stored = serde_json::to_string(&kept).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<JsonText>(&stored).expect("JSON"), kept.clone());
            let (read, drifts) = read(&kept);
            prop_assert!(drifts.len() <= DRIFTS_MAX);
            prop_assert!(drifts.iter().all(|drift| drift.field.len() <= FIELD_LENGTH_MAX));
            // The last one of a name counts, as for every JSON reader.
            let parsed: Value = serde_json::from_str(&text).expect("JSON");
            prop_assert_eq!(read.archived, parsed["archived"].as_bool());
            prop_assert_eq!(read.total_score, parsed["total_score"].as_f64());
            prop_assert_eq!(read.status.as_deref(), parsed["status"].as_str());
        }

        #[test]
        fn any_text_is_an_object_or_none(text in ".{0,200}") {
            if let Some(kept) = JsonText::object(&text) {
                let parsed: Value = serde_json::from_str(kept.as_str()).expect("JSON");
                prop_assert!(parsed.is_object());
            }
            let _ = parse_time(&text);
        }
    }

    #[test]
    fn both_time_forms_are_read_as_utc() {
        let zoned = parse_time("2023-11-07T05:31:56Z").expect("RFC 3339");
        assert_eq!(zoned.to_rfc3339(), "2023-11-07T05:31:56+00:00");
        let bare = parse_time("2025-12-12T10:30:00.123456").expect("without a zone");
        assert_eq!(bare.timestamp_micros(), 1_765_535_400_123_456);
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_the_rest_is_read() {
        let (read, drifts) = read(&json(
            r#"{"archived": true, "status": "paused", "total_score": "high", "created_at": null, "novel": 1}"#,
        ));
        assert_eq!(read.archived, Some(true));
        assert_eq!(read.status.as_deref(), Some("paused"));
        assert_eq!(read.total_score, None);
        let kind = |field: &str| drifts.iter().find(|d| d.field == field).map(|d| d.kind);
        assert_eq!(kind("status"), Some(DriftKind::UnknownValue));
        assert_eq!(kind("total_score"), Some(DriftKind::Mistyped));
        assert_eq!(kind("created_at"), Some(DriftKind::Null));
        assert_eq!(kind("updated_at"), Some(DriftKind::Missing));
        assert_eq!(kind("novel"), Some(DriftKind::UnknownField));
        assert_eq!(kind("archived_at"), None);
    }
}
