//! The manifests, as they stand in the folder `deploy`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The folder.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// The text of one of its files.
pub fn text(name: &str) -> String {
    let path = folder().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents of a file.
pub fn documents(name: &str) -> Vec<Value> {
    let text = text(name);
    let documents = text.split("\n---\n");
    documents
        .map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}")))
        .collect()
}

/// Every object of Kubernetes in the base and the components.
pub struct Objects {
    objects: Vec<Value>,
    /// The names of the files in each Secret and ConfigMap that is generated, by its kind and name.
    generated: BTreeMap<(String, String), Vec<String>>,
}

const FOLDERS: [&str; 5] = [
    "kubernetes/base",
    "kubernetes/components/secrets",
    "kubernetes/components/autoscaling-cpu",
    "kubernetes/components/autoscaling-queue",
    "kubernetes/components/service-monitor",
];

impl Objects {
    /// Reads what the files named `kustomization.yaml` list.
    pub fn read() -> Self {
        let (mut objects, mut generated) = (Vec::new(), BTreeMap::new());
        for folder in FOLDERS {
            let list = documents(&format!("{folder}/kustomization.yaml")).remove(0);
            for file in items(&list["resources"]) {
                objects.extend(documents(&format!("{folder}/{}", string(file))));
            }
            for (generator, kind) in [("configMapGenerator", "ConfigMap"), ("secretGenerator", "Secret")] {
                for entry in items(&list[generator]) {
                    generated.insert((kind.to_owned(), string(&entry["name"]).to_owned()), keys(entry));
                }
            }
        }
        Self { objects, generated }
    }

    /// The one of this kind whose name is `guest-connection-adapter` and what is given.
    pub fn one(&self, kind: &str, suffix: &str) -> &Value {
        let name = format!("guest-connection-adapter{suffix}");
        let fits = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        self.objects.iter().find(fits).unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    /// All of this kind.
    pub fn all(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// What each pod is made from.
    pub fn pod(&self) -> &Value {
        &self.one("Deployment", "")["spec"]["template"]["spec"]
    }

    /// Its container.
    pub fn container(&self) -> &Value {
        let containers = items(&self.pod()["containers"]);
        assert_eq!(containers.len(), 1);
        &containers[0]
    }

    /// The files of a Secret or ConfigMap.
    pub fn files(&self, kind: &str, name: &str) -> &[String] {
        let key = (kind.to_owned(), name.to_owned());
        self.generated.get(&key).unwrap_or_else(|| panic!("nothing makes the {kind} {name}"))
    }

    /// Where files are mounted: the folder, the kind and the name of what it shows, and the mode of files, if one is said.
    pub fn mounts(&self) -> Vec<(String, &'static str, String, Option<u32>)> {
        let volumes = items(&self.pod()["volumes"]);
        let mounts = items(&self.container()["volumeMounts"]).iter().map(|mount| {
            assert_eq!(mount["readOnly"], true, "{mount}");
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).expect("a volume");
            let (kind, name) =
                match (volume["secret"]["secretName"].as_str(), volume["configMap"]["name"].as_str()) {
                    (Some(secret), None) => ("Secret", secret),
                    (None, Some(config_map)) => ("ConfigMap", config_map),
                    other => panic!("{volume}: {other:?}"),
                };
            let mode = volume["secret"]["defaultMode"].as_u64().map(|mode| u32::try_from(mode).unwrap());
            (string(&mount["mountPath"]).to_owned(), kind, name.to_owned(), mode)
        });
        mounts.collect()
    }
}

/// The names that files and literals of a generator get: `name=path`, or the last part of the path.
fn keys(entry: &Value) -> Vec<String> {
    let named = |text: &str| match text.split_once('=') {
        Some((name, _)) => name.to_owned(),
        None => text.rsplit('/').next().unwrap().to_owned(),
    };
    items(&entry["files"]).iter().chain(items(&entry["literals"])).map(|file| named(string(file))).collect()
}

/// A list, or nothing.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text.
#[track_caller]
pub fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}
