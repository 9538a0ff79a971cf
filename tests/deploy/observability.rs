//! What `observability/` says, against `compose.yaml` and the program.

use std::collections::BTreeSet;

use guest_connection_adapter::config::load;
use serde_json::Value;
use url::Url;

use crate::compose::{adapters, environment};
use crate::manifests::{documents, folder, items, string, text};
use crate::mounted::{check, is_good};

fn document(name: &str) -> Value {
    documents(name).remove(0)
}

/// The services of both files.
fn services() -> Vec<(String, Value)> {
    let files = ["compose.yaml", "observability/compose.yaml"];
    let services = files.map(|file| document(file)["services"].as_object().unwrap().clone());
    services.into_iter().flatten().collect()
}

#[track_caller]
fn is_service(host: &str) {
    assert!(services().iter().any(|(name, _)| name == host), "{host} is no service");
}

/// The value that `${env:NAME:-VALUE}` stands for in containers, where nothing sets the variable.
fn default(value: &Value) -> &str {
    let text = string(value);
    let inner = text.strip_prefix("${env:").and_then(|text| text.strip_suffix('}'));
    inner.and_then(|text| text.split_once(":-")).unwrap_or_else(|| panic!("{text}")).1
}

#[test]
fn every_instance_tells_the_collector() {
    let (compose, beside) = (document("compose.yaml"), document("observability/compose.yaml"));
    let collector = document("observability/otel-collector.yaml");
    let listens = default(&collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]);
    let is_adapter = |name: &&String| name.starts_with("adapter-");
    let told: Vec<_> = beside["services"].as_object().unwrap().keys().filter(is_adapter).collect();
    assert_eq!(told.len(), adapters(&compose).len());
    for name in told {
        let added = beside["services"][name]["environment"].as_object().unwrap();
        let added = added.iter().map(|(name, value)| (name.clone(), string(value).to_owned()));
        let variables: Vec<_> =
            environment(&compose["services"][name]).into_iter().chain(added.clone()).collect();
        is_good(&check(&folder().join("adapter.toml"), &variables));
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        let config = load(Some(&folder().join("adapter.toml")), variables).unwrap();
        let endpoint = Url::parse(&config.telemetry.otlp_endpoint.unwrap()).unwrap();
        is_service(endpoint.host_str().unwrap());
        assert!(listens.ends_with(&format!(":{}", endpoint.port().unwrap())), "{endpoint}, {listens}");
    }
}

#[test]
fn the_collector_hands_on_to_jaeger_and_counts_nothing_twice() {
    let (collector, jaeger) =
        (document("observability/otel-collector.yaml"), document("observability/jaeger.yaml"));
    let target = default(&collector["exporters"]["otlp/jaeger"]["endpoint"]);
    let listens = default(&jaeger["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]);
    let (host, port) = target.split_once(':').unwrap();
    is_service(host);
    assert_eq!(listens, format!("0.0.0.0:{port}"));
    for (name, pipeline) in collector["service"]["pipelines"].as_object().unwrap() {
        assert_eq!(pipeline["processors"][0], "memory_limiter", "{name}");
        let exporters = items(&pipeline["exporters"]).iter().map(string).collect::<Vec<_>>();
        let wanted = match name.as_str() {
            "traces" => "otlp/jaeger",
            "metrics" => "nop",
            _ => "debug",
        };
        assert_eq!(exporters, [wanted], "{name}");
    }
}

#[test]
fn prometheus_scrapes_every_instance_with_the_token() {
    let (compose, beside) = (document("compose.yaml"), document("observability/compose.yaml"));
    let prometheus = document("observability/prometheus.yml");
    let variables = environment(adapters(&compose)[0]);
    let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
    let port = load(Some(&folder().join("adapter.toml")), variables).unwrap().admin.listen.port();
    let names = compose["services"].as_object().unwrap().keys().filter(|name| name.starts_with("adapter-"));
    let wanted: BTreeSet<_> = names.map(|name| format!("{name}:{port}")).collect();
    assert_eq!(targets("adapter"), wanted);
    for target in targets("telemetry") {
        is_service(target.split_once(':').unwrap().0);
    }
    let job = &prometheus["scrape_configs"][0];
    assert_eq!(job["job_name"], "guest-connection-adapter");
    let shown = string(&job["authorization"]["credentials_file"]);
    let secret = &beside["services"]["prometheus"]["secrets"][0];
    assert_eq!(secret["target"], format!("/etc/prometheus/{shown}"));
    let variable = string(&beside["secrets"][string(&secret["source"])]["environment"]).to_owned();
    let known = string(&adapters(&compose)[0]["environment"]["GCA_ADMIN__TOKEN"]).to_owned();
    assert!(known.starts_with(&format!("${{{variable}:")), "{known}, {variable}");
}

fn targets(file: &str) -> BTreeSet<String> {
    let list = document(&format!("observability/targets/{file}.yaml"));
    items(&list[0]["targets"]).iter().map(|target| string(target).to_owned()).collect()
}

#[test]
fn grafana_knows_both_by_the_names_that_dashboards_use() {
    let sources = document("observability/grafana/provisioning/datasources/backends.yaml");
    let sources = items(&sources["datasources"]);
    let names: Vec<_> = sources.iter().map(|source| string(&source["uid"])).collect();
    assert_eq!(names, ["prometheus", "jaeger"]);
    for source in sources {
        assert_eq!(source["uid"], source["type"]);
        is_service(Url::parse(string(&source["url"])).unwrap().host_str().unwrap());
        for exemplar in items(&source["jsonData"]["exemplarTraceIdDestinations"]) {
            assert!(names.contains(&string(&exemplar["datasourceUid"])));
        }
    }
    let folders = document("observability/grafana/provisioning/dashboards/folder.yaml");
    let path = string(&folders["providers"][0]["options"]["path"]);
    assert!(text("observability/compose.yaml").contains(&format!("/dashboards:{path}:ro")));
}

#[test]
fn what_is_mounted_is_there_and_ports_are_on_loopback_and_images_pinned() {
    let mut taken = BTreeSet::new();
    for (name, service) in services() {
        for port in items(&service["ports"]) {
            let host = string(port).strip_prefix("127.0.0.1:").unwrap_or_else(|| panic!("{name}: {port}"));
            assert!(taken.insert(host.split_once(':').unwrap().0.to_owned()), "{port} is taken twice");
        }
        for volume in items(&service["volumes"]) {
            let source = string(volume).split(':').next().unwrap();
            if let Some(path) = source.strip_prefix("./") {
                assert!(folder().join(path).exists(), "{name}: {path}");
            }
        }
    }
    for (name, service) in document("observability/compose.yaml")["services"].as_object().unwrap() {
        let Some(image) = service["image"].as_str() else {
            assert!(name.starts_with("adapter-"), "{name}");
            continue;
        };
        let tag = image.split_once(':').expect("a tag").1.trim_start_matches('v');
        assert!(
            tag.split('.').count() == 3 && tag.split('.').all(|part| part.parse::<u32>().is_ok()),
            "{image}"
        );
    }
}
