//! What the manifests for Kubernetes say, against what the program does.

use std::collections::BTreeSet;
use std::time::Duration;

use guest_connection_adapter::config::{Config, load};
use serde_json::{Value, json};
use url::Url;

use crate::manifests::{Objects, items, string, text};
use crate::mounted::{CONFIG, Mounted, check, is_good};

/// What the program may take beyond its drain: two seconds for what hangs, and two for the last spans.
const OVERTIME: Duration = Duration::from_secs(4);

fn config(objects: &Objects) -> Config {
    let mounted = Mounted::write(objects);
    load(Some(&mounted.config(objects)), []).unwrap_or_else(|faults| panic!("{faults}"))
}

#[test]
fn the_configuration_is_good_as_it_is_mounted() {
    let objects = Objects::read();
    let mounted = Mounted::write(&objects);
    // The environment is the image's: nothing of ours is in it.
    assert_eq!(objects.container()["env"], Value::Null);
    let output = check(&mounted.config(&objects), &[]);
    is_good(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("organization acme"), "{text}");
}

#[test]
fn every_file_that_is_mounted_is_read_and_none_is_read_that_is_not() {
    let objects = Objects::read();
    let config: Value = toml::from_str(&text(CONFIG)).unwrap();
    let named: BTreeSet<_> = leaves(&config).into_iter().filter(|text| text.starts_with('/')).collect();
    let mounted: BTreeSet<_> = objects
        .mounts()
        .into_iter()
        .flat_map(|(path, kind, name, _)| {
            objects.files(kind, &name).iter().map(move |file| format!("{path}/{file}"))
        })
        .filter(|path| !path.ends_with("/adapter.toml"))
        .collect();
    assert_eq!(named, mounted);
}

fn leaves(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().flat_map(leaves).collect(),
        Value::Object(table) => table.values().flat_map(leaves).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn what_listens_can_be_reached() {
    let objects = Objects::read();
    let config = config(&objects);
    let ports = [("grpc", config.grpc.listen), ("admin", config.admin.listen)];
    let container = objects.container();
    assert_eq!(items(&container["ports"]).len(), ports.len());
    for (name, listen) in ports {
        assert!(!listen.ip().is_loopback(), "{listen}");
        let port = json!({ "name": name, "containerPort": listen.port() });
        assert!(items(&container["ports"]).contains(&port), "{port}");
    }
    let names = ports.map(|(name, _)| name);
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "admin");
    }
    let pod = &objects.one("Deployment", "")["spec"]["template"]["metadata"]["labels"];
    for service in objects.all("Service") {
        assert_eq!(&service["spec"]["selector"], pod, "{service}");
        let [port] = items(&service["spec"]["ports"]) else { panic!("{service}") };
        let (_, listen) = ports.into_iter().find(|(name, _)| *name == port["targetPort"]).expect("a port");
        assert_eq!(port["port"], listen.port(), "{service}");
    }
    for rule in items(&objects.one("NetworkPolicy", "")["spec"]["ingress"]) {
        for port in items(&rule["ports"]) {
            assert!(names.contains(&string(&port["port"])), "{rule}");
        }
    }
    for kind in ["NetworkPolicy", "PodDisruptionBudget"] {
        let spec = &objects.one(kind, "")["spec"];
        let selector = if kind == "NetworkPolicy" { &spec["podSelector"] } else { &spec["selector"] };
        assert_eq!(&selector["matchLabels"], pod, "{kind}");
    }
}

#[test]
fn metrics_are_scraped_where_they_are_with_the_token_that_opens_them() {
    let objects = Objects::read();
    let monitor = &objects.one("ServiceMonitor", "")["spec"];
    let service = objects.one("Service", "-admin");
    let wanted = &monitor["selector"]["matchLabels"];
    // The base gives each object the name.
    assert_eq!(wanted["app.kubernetes.io/name"], "guest-connection-adapter");
    let component = "app.kubernetes.io/component";
    assert!(wanted[component].is_string() && wanted[component] == service["metadata"]["labels"][component]);
    let [endpoint] = items(&monitor["endpoints"]) else { panic!("{monitor}") };
    assert_eq!(endpoint["port"], service["spec"]["ports"][0]["name"]);
    assert_eq!(endpoint["path"], "/metrics");
    let token = &endpoint["authorization"]["credentials"];
    let (name, key) = (string(&token["name"]), string(&token["key"]));
    assert!(objects.files("Secret", name).iter().any(|file| file == key));
    let (path, ..) = objects
        .mounts()
        .into_iter()
        .find(|(_, kind, mounted, _)| *kind == "Secret" && mounted == name)
        .unwrap();
    let config: Value = toml::from_str(&text(CONFIG)).unwrap();
    assert_eq!(config["admin"]["token_file"], format!("{path}/{key}"));
}

#[test]
fn the_drain_fits_into_the_time_that_kubernetes_gives() {
    let objects = Objects::read();
    let config = config(&objects);
    let grace = objects.pod()["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(Duration::from_secs(grace) > config.shutdown.drain_timeout + OVERTIME);
    assert!(
        config.shutdown.notice >= Duration::from_secs(5),
        "endpoints are taken out of everybody's tables"
    );
    let rollout = &objects.one("Deployment", "")["spec"]["strategy"]["rollingUpdate"];
    assert_eq!(rollout["maxUnavailable"], 0);
}

#[test]
fn what_the_configuration_names_may_be_reached() {
    let objects = Objects::read();
    let config = config(&objects);
    let amqp = config.amqp.as_ref().unwrap();
    let (store, collector) =
        (config.store.url.as_ref().unwrap(), config.telemetry.otlp_endpoint.as_ref().unwrap());
    let rules = items(&objects.one("NetworkPolicy", "")["spec"]["egress"]);
    for address in [&amqp.uri, store, collector] {
        let url = Url::parse(address).unwrap();
        let [_, namespace, "svc"] = url.host_str().unwrap().split('.').collect::<Vec<_>>()[..] else {
            panic!("{address} is not in the cluster")
        };
        let to =
            json!([{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } } }]);
        let rule = json!({ "to": to, "ports": [{ "port": url.port().unwrap() }] });
        assert!(rules.contains(&rule), "{address}: {rule}");
    }
    let api = Url::parse(&config.upstream.base_url).unwrap();
    let is_outside = |rule: &&Value| {
        rule["to"][0]["ipBlock"]["cidr"] == "0.0.0.0/0"
            && items(&rule["ports"]) == [json!({ "port": api.port_or_known_default().unwrap() })]
    };
    assert_eq!(rules.iter().filter(is_outside).count(), 1);
    assert!(amqp.uri.starts_with("amqps://") && store.ends_with("?sslmode=require"));
}

#[test]
fn the_autoscaler_looks_at_the_queue_that_commands_are_taken_from() {
    let objects = Objects::read();
    let config = config(&objects);
    let scaled = &objects.one("ScaledObject", "")["spec"];
    let queue = &scaled["triggers"][0]["metadata"]["queueName"];
    assert_eq!(*queue, config.amqp.unwrap().commands_queue);
    let authentication = objects.one("TriggerAuthentication", "");
    assert_eq!(scaled["triggers"][0]["authenticationRef"]["name"], authentication["metadata"]["name"]);
    for (list, kind) in [("secretTargetRef", "Secret"), ("configMapTargetRef", "ConfigMap")] {
        for source in items(&authentication["spec"][list]) {
            let files = objects.files(kind, string(&source["name"]));
            assert!(files.iter().any(|file| *file == source["key"]), "{source}");
        }
    }
    let deployment = &objects.one("Deployment", "")["metadata"]["name"];
    assert_eq!(&scaled["scaleTargetRef"]["name"], deployment);
    assert_eq!(&objects.one("HorizontalPodAutoscaler", "")["spec"]["scaleTargetRef"]["name"], deployment);
}

#[test]
fn the_process_has_no_rights() {
    let objects = Objects::read();
    let (pod, container) = (objects.pod(), objects.container());
    let user = &pod["securityContext"];
    assert!(user["runAsNonRoot"] == true && user["fsGroup"] == user["runAsGroup"]);
    assert_eq!(user["seccompProfile"]["type"], "RuntimeDefault");
    let rights = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    });
    assert_eq!(container["securityContext"], rights);
    assert!(pod["automountServiceAccountToken"] == false && pod["enableServiceLinks"] == false);
    let account = objects.one("ServiceAccount", "");
    assert!(account["automountServiceAccountToken"] == false);
    assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
    for (path, kind, _, mode) in objects.mounts() {
        assert!(kind != "Secret" || mode == Some(0o400), "{path}");
    }
}
