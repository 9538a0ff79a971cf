//! The gRPC door's locks: its files for TLS, and that it is not open to a network by mistake.

use std::net::SocketAddr;

use super::fault::Faults;
use super::rules::within;
use super::sections::{ClientCertificates, Config, Grpc};
use crate::tls::{Files, Role};

/// What HTTP/2 is called in TLS.
const PROTOCOL: &[u8] = b"h2";

impl Grpc {
    /// The files for TLS, if it is configured.
    #[must_use]
    pub fn tls(&self) -> Option<Files> {
        Some(Files {
            certificate: self.certificate_file.clone()?,
            key: self.key_file.clone()?,
            client_ca: self.client_ca_file.clone(),
            client_certificate_optional: self.client_certificates == Some(ClientCertificates::Optional),
        })
    }
}

impl Config {
    /// What the gRPC door lacks to be open to a network, in words; nothing if it is not, or lacks nothing.
    #[must_use]
    pub fn grpc_lacks(&self) -> Option<String> {
        if is_loopback(self.grpc.listen) {
            return None;
        }
        let mut lacks = Vec::new();
        if self.grpc.certificate_file.is_none() {
            lacks.push("TLS (`grpc.certificate_file` and `grpc.key_file`)");
        }
        if self.callers().next().is_none() {
            lacks.push(
                "callers that prove who they are (`principals` with `certificate_names` or `jwt_subjects`)",
            );
        }
        (!lacks.is_empty()).then(|| lacks.join(" and "))
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Notes every rule that the door breaks.
pub(super) fn check(config: &Config, faults: &mut Faults) {
    let grpc = &config.grpc;
    within("grpc.connections_max", grpc.connections_max, 1, 1_000_000, faults);
    within("grpc.connections_per_address_max", grpc.connections_per_address_max, 1, 1_000_000, faults);
    for (key, given, other, needed) in [
        ("key_file", grpc.key_file.is_some(), "certificate_file", grpc.certificate_file.is_some()),
        ("certificate_file", grpc.certificate_file.is_some(), "key_file", grpc.key_file.is_some()),
        (
            "client_ca_file",
            grpc.client_ca_file.is_some(),
            "certificate_file",
            grpc.certificate_file.is_some(),
        ),
        (
            "client_certificates",
            grpc.client_certificates.is_some(),
            "client_ca_file",
            grpc.client_ca_file.is_some(),
        ),
    ] {
        if given && !needed {
            faults.push(format!("grpc.{key}"), format!("needs `grpc.{other}` beside it"));
        }
    }
    if let Some(Err(error)) = grpc.tls().map(|files| files.read(PROTOCOL)) {
        let key = match error.role {
            Role::Certificate => "grpc.certificate_file",
            Role::Key => "grpc.key_file",
            Role::ClientCa => "grpc.client_ca_file",
        };
        faults.push(key, error.message);
    }
    if let Some(lacks) = config.grpc_lacks().filter(|_| !grpc.insecure) {
        let rule = format!(
            "is {}, which others can reach, and needs {lacks}; else listen on 127.0.0.1, or set `grpc.insecure = true` \
             if something in front keeps strangers out",
            grpc.listen
        );
        faults.push("grpc.listen", rule);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn faults(change: impl FnOnce(&mut Config)) -> String {
        let (mut config, mut faults) = (Config::default(), Faults::default());
        change(&mut config);
        check(&config, &mut faults);
        faults.to_string()
    }

    #[test]
    fn half_of_what_belongs_together_is_a_fault() {
        type Change = fn(&mut Grpc, Option<PathBuf>);
        let cases: [(&str, Change); 4] = [
            ("grpc.key_file: needs `grpc.certificate_file`", |grpc, file| grpc.key_file = file),
            ("grpc.certificate_file: needs `grpc.key_file`", |grpc, file| grpc.certificate_file = file),
            ("grpc.client_ca_file: needs `grpc.certificate_file`", |grpc, file| grpc.client_ca_file = file),
            ("grpc.client_certificates: needs `grpc.client_ca_file`", |grpc, _| {
                grpc.client_certificates = Some(ClientCertificates::Required);
            }),
        ];
        for (fault, change) in cases {
            let text = faults(|config| change(&mut config.grpc, Some("file.pem".into())));
            assert!(text.starts_with(fault), "{text}");
        }
        assert_eq!(faults(|_| {}), "");
        let text = faults(|config| config.grpc.connections_max = 0);
        assert!(text.starts_with("grpc.connections_max: is 0"), "{text}");
    }

    #[test]
    fn what_others_can_reach_needs_locks() {
        for (listen, is_open) in [
            ("127.0.0.1:1", false),
            ("127.8.8.8:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("192.0.2.1:1", true),
            ("[::ffff:192.0.2.1]:1", true),
        ] {
            let text = faults(|config| config.grpc.listen = listen.parse().unwrap());
            assert_eq!(text.starts_with("grpc.listen: is "), is_open, "{listen}: {text}");
            let text = faults(|config| {
                config.grpc.listen = listen.parse().unwrap();
                config.grpc.insecure = true;
            });
            assert_eq!(text, "", "{listen}");
        }
    }
}
