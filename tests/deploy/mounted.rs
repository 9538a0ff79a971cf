//! The Kubernetes configuration among the files that the manifests mount, below a temporary folder.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::tls::Authority;
use tempfile::TempDir;

use crate::PROGRAM;
use crate::manifests::{Objects, items, string, text};

/// The configuration's file among those of the base.
pub const CONFIG: &str = "kubernetes/base/adapter.toml";

/// The files, and the folder in which they are.
pub struct Mounted {
    folder: TempDir,
    /// The authority of the gRPC door's certificate, and of callers'.
    pub authority: Authority,
}

impl Mounted {
    /// Writes all of them.
    pub fn write(objects: &Objects) -> Self {
        let mounted = Self { folder: harness::private_folder(), authority: Authority::new() };
        let door = mounted.authority.server();
        for (path, kind, name, mode) in objects.mounts() {
            for file in objects.files(kind, &name) {
                let content = match file.as_str() {
                    "adapter.toml" => mounted.moved(&text(CONFIG)),
                    "tls.crt" => door.certificate_pem.clone(),
                    "tls.key" => door.key_pem.clone(),
                    "ca.crt" | "ca.pem" => mounted.authority.pem(),
                    secret => format!("secret-of-{secret}\n"),
                };
                let path = mounted.place(&path).join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, content).unwrap();
                let mode = mounted.mode(mode.unwrap_or(0o644));
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        mounted
    }

    /// With `fsGroup` the group can read what root owns. Who is not root here cannot make such a file.
    fn mode(&self, mode: u32) -> u32 {
        let is_root = fs::metadata(self.folder.path()).unwrap().uid() == 0;
        if is_root { mode | 0o440 } else { mode }
    }

    /// Where a path of the container is.
    pub fn place(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    /// A configuration with its paths moved here.
    pub fn moved(&self, config: &str) -> String {
        config.replace("\"/", &format!("\"{}/", self.folder.path().display()))
    }

    /// The configuration's file as the container's arguments name it.
    pub fn config(&self, objects: &Objects) -> PathBuf {
        let arguments: Vec<_> = items(&objects.container()["args"]).iter().map(string).collect();
        let ["serve", "--config", path] = arguments[..] else { panic!("{arguments:?}") };
        self.place(path)
    }
}

/// What `check` says of a configuration in this environment.
pub fn check(config: &Path, environment: &[(String, String)]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["check", "--config"]).arg(config).env_clear();
    command.envs(environment.iter().map(|(name, value)| (name, value))).output().unwrap()
}

/// It finds no fault.
#[track_caller]
pub fn is_good(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
