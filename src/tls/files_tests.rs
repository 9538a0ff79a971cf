use std::fs;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;

struct Place(TempDir);

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn files(&self) -> Files {
        Files {
            certificate: self.path("certificate"),
            key: self.path("key"),
            client_ca: Some(self.path("certificate")),
            client_certificate_optional: false,
        }
    }
}

fn is_at_fault(files: &Files, role: Role, text: &str) {
    let fault = files.read(b"h2").unwrap_err();
    assert_eq!(fault.role, role, "{fault}");
    assert!(fault.message.contains(text), "{fault}");
}

fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2100, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn place() -> Place {
    let place = Place(tempfile::tempdir().unwrap());
    let (certificate, key) = pair();
    place.write("certificate", &certificate, 0o644);
    place.write("key", &key, 0o600);
    place
}

#[test]
fn good_files_make_an_identity_that_ends_with_its_certificate() {
    let identity = place().files().read(b"h2").unwrap();
    assert_eq!(identity.expiry_seconds(), 4_102_444_800);
    assert_eq!(identity.config.alpn_protocols, [b"h2"]);
    assert_eq!(identity.config.send_tls13_tickets, 0);
    assert!(!identity.config.session_storage.can_cache());
}

#[test]
fn each_file_at_fault_is_told_from_the_others() {
    let place = place();
    let files = place.files();
    let with = |change: fn(&mut Files, PathBuf), name: &str| {
        let mut files = files.clone();
        change(&mut files, place.path(name));
        files
    };
    is_at_fault(&with(|files, path| files.certificate = path, "none"), Role::Certificate, "cannot be read");
    is_at_fault(&with(|files, path| files.key = path, "none"), Role::Key, "cannot be read");
    is_at_fault(&with(|files, path| files.client_ca = Some(path), "none"), Role::ClientCa, "cannot be read");
    place.write("damaged", "-----BEGIN CERTIFICATE-----\nbm90IGE=\n-----END CERTIFICATE-----\n", 0o600);
    is_at_fault(
        &with(|files, path| files.certificate = path, "damaged"),
        Role::Certificate,
        "cannot be read",
    );
    is_at_fault(
        &with(|files, path| files.client_ca = Some(path), "damaged"),
        Role::ClientCa,
        "cannot be used",
    );
    place.write("empty", "", 0o600);
    is_at_fault(&with(|files, path| files.certificate = path, "empty"), Role::Certificate, "no certificate");
    is_at_fault(&with(|files, path| files.key = path, "empty"), Role::Key, "no private key");
}

#[test]
fn a_key_of_another_certificate_or_for_every_eye_is_refused() {
    let place = place();
    let (_, other) = pair();
    place.write("other", &other, 0o600);
    let files = Files { key: place.path("other"), ..place.files() };
    is_at_fault(&files, Role::Key, "cannot be used with the certificate");
    place.write("open", &other, 0o644);
    let files = Files { key: place.path("open"), ..place.files() };
    is_at_fault(&files, Role::Key, "chmod 600");
}
