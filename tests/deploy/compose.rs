//! What `compose.yaml` says, against what the program does.

use std::collections::BTreeSet;

use guest_connection_adapter::config::load;
use serde_json::Value;
use url::Url;

use crate::manifests::{documents, folder, items, string, text};
use crate::mounted::{check, is_good};

/// The instances of the adapter.
pub fn adapters(compose: &Value) -> Vec<&Value> {
    let services = compose["services"].as_object().unwrap();
    let adapters: Vec<_> = services
        .iter()
        .filter(|(name, _)| name.starts_with("adapter-"))
        .map(|(_, service)| service)
        .collect();
    assert!(adapters.len() > 1, "{services:?}");
    adapters
}

/// A service's variables, with something in the place of what `.env` holds.
pub fn environment(service: &Value) -> Vec<(String, String)> {
    let variables = service["environment"].as_object().unwrap();
    variables.iter().map(|(name, _)| (name.clone(), format!("value-of-{name}"))).collect()
}

#[test]
fn the_configuration_is_good_in_the_environment_of_every_instance() {
    let compose = documents("compose.yaml").remove(0);
    let dockerfile = text("Dockerfile");
    for service in adapters(&compose) {
        let variables = environment(service);
        is_good(&check(&folder().join("adapter.toml"), &variables));
        // One that the program does not know is a fault, so that none of these can be renamed.
        let misspelt = variables.iter().map(|(name, value)| (format!("{name}S"), value.clone()));
        for variable in misspelt {
            let variables: Vec<_> = variables.iter().cloned().chain([variable]).collect();
            assert_eq!(check(&folder().join("adapter.toml"), &variables).status.code(), Some(2));
        }
        let [volume] = items(&service["volumes"]) else { panic!("{service}") };
        let [file, path, "ro"] = string(volume).split(':').collect::<Vec<_>>()[..] else {
            panic!("{volume}")
        };
        assert_eq!(file, "./adapter.toml");
        assert!(dockerfile.contains(&format!("CMD [\"serve\", \"--config\", \"{path}\"]")), "{path}");
        let target = string(&service["build"]["target"]);
        assert!(dockerfile.contains(&format!(" AS {target}\n")), "{target}");
    }
}

#[test]
fn ports_and_hosts_are_those_of_the_configuration() {
    let compose = documents("compose.yaml").remove(0);
    let service = adapters(&compose)[0];
    let variables = environment(service).into_iter().map(|(name, value)| (name.into(), value.into()));
    let config = load(Some(&folder().join("adapter.toml")), variables).unwrap();
    let listening = BTreeSet::from([config.grpc.listen.port(), config.admin.listen.port()]);
    let mut outside = BTreeSet::new();
    for service in adapters(&compose) {
        let mut inside = BTreeSet::new();
        for port in items(&service["ports"]) {
            let ["127.0.0.1", host, container] = string(port).split(':').collect::<Vec<_>>()[..] else {
                panic!("{port} is not on loopback")
            };
            inside.insert(container.parse::<u16>().unwrap());
            assert!(outside.insert(host.to_owned()), "{host} is taken twice");
        }
        assert_eq!(inside, listening);
    }
    for port in &listening {
        let exposed = text("Dockerfile")
            .lines()
            .any(|line| line.starts_with("EXPOSE ") && line.split(' ').any(|word| word == port.to_string()));
        assert!(exposed, "{port}");
    }
    let amqp = config.amqp.unwrap();
    for address in [&amqp.uri, config.store.url.as_ref().unwrap(), &config.upstream.base_url] {
        let url = Url::parse(address).unwrap();
        assert!(compose["services"][url.host_str().unwrap()].is_object(), "{address}");
    }
    let store = Url::parse(config.store.url.as_ref().unwrap()).unwrap();
    let database = &compose["services"]["postgres"]["environment"];
    assert_eq!(database["POSTGRES_USER"], store.username());
    assert_eq!(database["POSTGRES_DB"], store.path().trim_start_matches('/'));
    assert_eq!(compose["services"]["rabbitmq"]["environment"]["RABBITMQ_DEFAULT_USER"], amqp.username);
}

#[test]
fn one_secret_has_one_name() {
    let compose = documents("compose.yaml").remove(0);
    let adapter = &adapters(&compose)[0]["environment"];
    let services = &compose["services"];
    assert_eq!(adapter["GCA_AMQP__PASSWORD"], services["rabbitmq"]["environment"]["RABBITMQ_DEFAULT_PASS"]);
    assert_eq!(adapter["GCA_STORE__PASSWORD"], services["postgres"]["environment"]["POSTGRES_PASSWORD"]);
    let readme = text("README.md");
    for (name, value) in adapter.as_object().unwrap() {
        let variable = string(value).trim_start_matches("${").split(':').next().unwrap();
        assert!(readme.contains(&format!("{variable}=%s")), "{name}: README.md does not make {variable}");
    }
}
