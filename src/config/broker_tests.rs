use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rcgen::{CertifiedKey as Pair, generate_simple_self_signed};
use tempfile::TempDir;

use crate::config::load;

/// A folder with `certificate`, its `key`, that of `another`, and an `open` one that everybody can read.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let pair = || generate_simple_self_signed(["adapter".to_owned()]).unwrap();
    let (Pair { cert, signing_key }, Pair { signing_key: another, .. }) = (pair(), pair());
    for (name, text, mode) in [
        ("certificate", cert.pem(), 0o644),
        ("key", signing_key.serialize_pem(), 0o600),
        ("another", another.serialize_pem(), 0o600),
        ("open", signing_key.serialize_pem(), 0o644),
        ("password", "s3cret".to_owned(), 0o600),
    ] {
        fs::write(place.path().join(name), text).unwrap();
        fs::set_permissions(place.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    place
}

/// Every fault of a configuration with these lines. `@` stands for the folder.
fn faults(place: &TempDir, lines: &str) -> Vec<String> {
    let file = place.path().join("config.toml");
    fs::write(&file, lines.replace('@', &place.path().display().to_string())).unwrap();
    match load(Some(&file), []) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.0.iter().map(|fault| format!("{}: {}", fault.key, fault.message)).collect(),
    }
}

#[track_caller]
fn fault(place: &TempDir, lines: &str, key: &str, text: &str) {
    let faults = faults(place, lines);
    let is = |fault: &String| fault.starts_with(&format!("{key}: ")) && fault.contains(text);
    assert!(faults.len() == 1 && is(&faults[0]), "{key}: {text}: {faults:#?}");
}

const TLS: &str = "[amqp]\nuri = 'amqps://broker/%2f'\n";

const OWN: &str = "certificate_file = '@/certificate'\nkey_file = '@/key'\n";

#[test]
fn a_certificate_needs_its_key_and_an_encrypted_connection() {
    let place = place();
    assert_eq!(faults(&place, &format!("{TLS}{OWN}ca_file = '@/certificate'")), [""; 0]);
    let lines = format!("{TLS}certificate_file = '@/certificate'");
    fault(&place, &lines, "amqp.certificate_file", "needs `amqp.key_file`");
    fault(&place, &format!("{TLS}key_file = '@/key'"), "amqp.key_file", "needs `amqp.certificate_file`");
    fault(&place, "[amqp]\nca_file = '@/certificate'", "amqp.ca_file", "amqps://");
    let with_key = |name: &str| format!("{TLS}certificate_file = '@/certificate'\nkey_file = '@/{name}'");
    fault(&place, &with_key("another"), "amqp.key_file", "cannot be used with `amqp.certificate_file`");
    fault(&place, &with_key("open"), "amqp.key_file", "chmod 600");
    fault(&place, &with_key("certificate"), "amqp.key_file", "chmod 600");
    fault(&place, &with_key("password"), "amqp.key_file", "no private key");
    fault(&place, &with_key("none"), "amqp.key_file", "cannot be read");
    let lines = format!("{TLS}certificate_file = '@/password'\nkey_file = '@/key'");
    fault(&place, &lines, "amqp.certificate_file", "no certificate");
    fault(&place, &format!("{TLS}ca_file = '@/none'"), "amqp.ca_file", "cannot be read");
}

#[test]
fn external_takes_a_certificate_and_no_password() {
    let place = place();
    assert_eq!(faults(&place, &format!("{TLS}{OWN}sasl = 'external'\nusername = 'no-guest'")), [""; 0]);
    fault(&place, &format!("{TLS}sasl = 'external'"), "amqp.sasl", "needs `amqp.certificate_file`");
    let lines = format!("{TLS}{OWN}sasl = 'external'\npassword_file = '@/password'");
    fault(&place, &lines, "amqp.sasl", "no password");
    fault(&place, "[amqp]\nusername = 'no-guest'", "amqp.password_file", "no-guest");
}

#[test]
fn who_sends_must_be_a_principal() {
    let place = place();
    let grants = "organizations = ['*']\nmethods = ['archive']\n";
    let legacy = format!("[principals.legacy]\n{grants}");
    assert_eq!(faults(&place, &format!("[amqp]\nprincipal = 'legacy'\n{legacy}")), [""; 0]);
    fault(&place, &format!("[amqp]\n{legacy}"), "principals.legacy", "nobody could be it");
    fault(&place, "[amqp]\nprincipal = 'legacy'", "amqp.principal", "must be a name under `principals`");
    fault(&place, "[amqp]\nidentify = 'user_id'", "amqp.identify", "every message would be refused");
    let known = format!("[amqp]\nidentify = 'user_id'\n{legacy}amqp_users = ['u']");
    assert_eq!(faults(&place, &known), [""; 0]);
}

#[test]
fn partitions_are_few_and_change_to_another_number() {
    let place = place();
    assert_eq!(faults(&place, "[amqp]\npartitions = 64\npartitions_from = 0"), [""; 0]);
    assert_eq!(faults(&place, "[amqp]\npartitions = 0\npartitions_from = 4"), [""; 0]);
    fault(&place, "[amqp]\npartitions = 65", "amqp.partitions", "from 0 to 64");
    fault(&place, "[amqp]\npartitions_from = 65", "amqp.partitions_from", "from 0 to 64");
    fault(
        &place,
        "[amqp]\npartitions = 4\npartitions_from = 4",
        "amqp.partitions_from",
        "as `amqp.partitions` is",
    );
    let long = format!("[amqp]\npartitions = 4\ncommands_queue = '{}'", "q".repeat(241));
    fault(&place, &long, "amqp.commands_queue", "at most 240 bytes");
}
