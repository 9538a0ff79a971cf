//! What else a call may bring: headers, ids and keys that mean harm.

use harness::Upstream;
use tonic::metadata::{AsciiMetadataKey, MetadataValue};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::support::{House, bearing, by_id, look_up};

/// A traceparent of the standard's form, as the upstream must always see it.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let is_hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    parts.len() == 4
        && parts[0] == "00"
        && is_hex(parts[1], 32)
        && is_hex(parts[2], 16)
        && is_hex(parts[3], 2)
}

fn traceparent(upstream: &Upstream, guest: Uuid) -> Option<String> {
    let journal = upstream.simulator.journal();
    journal.into_iter().find(|entry| entry.is_patch_of(guest))?.traceparent
}

#[tokio::test]
async fn tracing_headers_that_are_forged_or_too_long_do_no_harm() {
    let house = House::start("").await;
    let mut client = house.adapter.client().await;
    let token = house.issuer.token("first");
    let long = "k=v,".repeat(2_000);
    let many = (0..200).map(|n| format!("k{n}=v{n}")).collect::<Vec<_>>().join(",");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (number, headers) in [
        vec![("traceparent", "00-00000000000000000000000000000000-0000000000000000-01")],
        vec![("traceparent", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
        vec![("traceparent", "'; DROP TABLE commands; --")],
        vec![("traceparent", &trace[..20])],
        vec![("traceparent", trace), ("traceparent", trace)],
        vec![("traceparent", &long)],
        vec![("traceparent", trace), ("tracestate", &long)],
        vec![("traceparent", trace), ("tracestate", &many)],
        vec![("traceparent", trace), ("tracestate", "=,=,=")],
        vec![("traceparent", trace), ("baggage", &long)],
        vec![("baggage", "user=guest@example.org")],
    ]
    .into_iter()
    .enumerate()
    {
        let guest = Uuid::new_v4();
        let mut call = bearing(&token, house.upstream.archive(guest, &format!("k-{number}")));
        for (name, value) in headers {
            let name: AsciiMetadataKey = name.parse().unwrap();
            call.metadata_mut().append(name, MetadataValue::try_from(value).unwrap());
        }
        client.archive_guest_connection(call).await.unwrap_or_else(|error| panic!("{number}: {error}"));
        let seen = traceparent(&house.upstream, guest).unwrap_or_else(|| panic!("{number}: no traceparent"));
        assert!(is_traceparent(&seen), "{number}: {seen}");
    }
    let log = house.adapter.log().all().join("\n");
    assert!(!log.contains("guest@example.org") && !log.contains("DROP TABLE"), "{log}");
    house.end().await;
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused_and_the_door_stays_open() {
    let house = House::start("").await;
    let mut client = house.adapter.client().await;
    let call = bearing(&"x".repeat(20 * 1024), house.upstream.archive(Uuid::new_v4(), "k"));
    let refused = client.archive_guest_connection(call).await.unwrap_err();
    assert_ne!(refused.code(), Code::Ok);
    house.archive(&house.issuer.token("first"), "k").await.expect("others are served");
    house.end().await;
}

#[tokio::test]
async fn ids_and_keys_with_control_characters_are_refused_and_nothing_is_done() {
    let house = House::start("").await;
    let mut client = house.adapter.client().await;
    let token = house.issuer.token("first");
    let guest = Uuid::new_v4();
    let good = house.upstream.archive(guest, "k");
    for bad in ["k\r\nx-injected: 1", "k\0", "k\u{7f}", "k\u{2028}x", "../../etc/passwd\n", "k x"] {
        let mut calls = vec![good.clone(), good.clone(), good.clone()];
        calls[0].idempotency_key = bad.to_owned();
        calls[1].guest_organization_id = format!("{guest}{bad}");
        calls[2].requester_organization_id = format!("{}{bad}", good.requester_organization_id);
        for call in calls {
            let refused = client.archive_guest_connection(bearing(&token, call)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{bad:?}");
            let details = refused.get_error_details();
            assert_eq!(details.error_info().unwrap().reason, "INVALID_FIELDS", "{bad:?}");
        }
        let refused = look_up(&mut client, &token, by_id(bad)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad:?}");
    }
    // Bytes that are no ASCII in the one header that decides who calls.
    let mut call = Request::new(good);
    let value = http::HeaderValue::from_bytes(b"Bearer \xff\xfe").unwrap();
    let mut headers = call.metadata().clone().into_headers();
    headers.insert("authorization", value);
    *call.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
    assert_eq!(client.archive_guest_connection(call).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(house.upstream.received(guest), 0);
    house.end().await;
}
