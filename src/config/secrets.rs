//! Secrets come by files of their own or by the environment, and are shown nowhere.

use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use url::Url;

use super::fault::Faults;
use super::sections::{Amqp, Config};
use crate::tls::private;

/// Keys whose values are secrets, wherever they stand.
const SECRET_KEYS: [&str; 3] = ["client_secret", "token", "password"];

/// The longest secret that is read, in bytes.
const SECRET_LENGTH_MAX: u64 = 64 * 1024;

/// Whether the value of the key at `path` is never shown.
pub(super) fn is_secret(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    SECRET_KEYS.contains(&name)
}

/// Takes secrets out of what the file says, noting each as a fault.
pub(super) fn refuse_in_file(table: &mut toml::Table, path: &str, faults: &mut Faults) {
    let keys: Vec<_> = table.keys().cloned().collect();
    for name in keys {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        // A table of that name is not the secret itself: an organisation may be called "token".
        let refused = match table.get_mut(&name) {
            Some(toml::Value::Table(section)) => {
                refuse_in_file(section, &key, faults);
                None
            }
            Some(_) if is_secret(&name) => Some(format!(
                "a secret must not stand in this file; put it into a file of its own and name that in `{key}_file`, \
                 or set the environment variable {}",
                super::variable(&key)
            )),
            Some(toml::Value::String(text)) if has_password(text) => Some(format!(
                "a password must not stand in this file; {}set the environment variable {}",
                match path {
                    "amqp" => "use `amqp.password_file`, or ",
                    "store" => "use `store.password_file`, or ",
                    _ => "leave it out, or ",
                },
                super::variable(&key)
            )),
            _ => None,
        };
        if let Some(message) = refused {
            faults.push(key, message);
            table.remove(&name);
        }
    }
}

fn has_password(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| url.password().is_some())
}

/// The files that are named and read: secrets, the keys of bearer tokens, and certificate authorities.
pub(super) fn files(config: &Config) -> impl Iterator<Item = &Path> {
    let organizations = config.organizations.values();
    let files =
        organizations.flat_map(|organization| [&organization.client_secret_file, &organization.token_file]);
    let broker = config
        .amqp
        .iter()
        .flat_map(|amqp| [&amqp.password_file, &amqp.ca_file, &amqp.certificate_file, &amqp.key_file]);
    let keys = config.jwt.as_ref().map(|jwt| &jwt.keys_file);
    let store = &config.store;
    let others = [&config.upstream.ca_file, &config.admin.token_file, &store.password_file, &store.ca_file];
    files.chain(broker).chain(keys).chain(others).filter_map(|file| file.as_deref())
}

/// Reads the secret files that are named, and moves credentials out of the broker's address.
pub(super) fn resolve(config: &mut Config, faults: &mut Faults) {
    for (name, organization) in &mut config.organizations {
        let key = format!("organizations.{name}");
        let (file, secret) = (&organization.client_secret_file, &mut organization.client_secret);
        take(&format!("{key}.client_secret"), file.as_ref(), secret, faults);
        take(&format!("{key}.token"), organization.token_file.as_ref(), &mut organization.token, faults);
    }
    let store = &mut config.store;
    take("store.password", store.password_file.as_ref(), &mut store.password, faults);
    take("admin.token", config.admin.token_file.as_ref(), &mut config.admin.token, faults);
    if let Some(amqp) = &mut config.amqp {
        take("amqp.password", amqp.password_file.as_ref(), &mut amqp.password, faults);
        split_uri(amqp);
        read_pem(amqp, faults);
    }
}

/// Reads the files for TLS. Whether they are any good is for the rules; those tell of a `ca_file` that cannot be read, too.
fn read_pem(amqp: &mut Amqp, faults: &mut Faults) {
    amqp.pem.ca = amqp.ca_file.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
    if let Some(path) = &amqp.certificate_file {
        match read_text(path) {
            Ok(text) => amqp.pem.certificate = Some(text),
            Err(message) => faults.push("amqp.certificate_file", message),
        }
    }
    if let Some(path) = &amqp.key_file {
        match read(path) {
            Ok(text) => amqp.pem.key = Some(text),
            Err(message) => faults.push("amqp.key_file", message),
        }
    }
}

fn split_uri(amqp: &mut Amqp) {
    let Ok(mut uri) = Url::parse(&amqp.uri) else { return };
    let decoded = |text: &str| {
        // The query's form of encoding differs only in `+`, which a URI takes literally.
        let query = format!("v={}", text.replace('+', "%2B"));
        url::form_urlencoded::parse(query.as_bytes()).next().map(|(_, value)| value.into_owned())
    };
    if !uri.username().is_empty() {
        amqp.username = decoded(uri.username()).unwrap_or_default();
    }
    if let Some(password) = uri.password().and_then(decoded) {
        amqp.password.get_or_insert(SecretString::from(password));
    }
    // Both fail only for an address without a host, which is a fault of its own.
    let _ = uri.set_username("");
    let _ = uri.set_password(None);
    amqp.uri = uri.into();
}

fn take(key: &str, file: Option<&PathBuf>, secret: &mut Option<SecretString>, faults: &mut Faults) {
    let Some(file) = file else { return };
    if secret.is_some() {
        faults.push(key, format!("is given twice: by `{key}_file` and by the environment"));
        return;
    }
    match read(file) {
        Ok(text) => *secret = Some(text),
        Err(message) => faults.push(format!("{key}_file"), message),
    }
}

/// Reads a secret, which others must not be able to read.
fn read(path: &Path) -> Result<SecretString, String> {
    let shown = path.display();
    let metadata = metadata(path)?;
    if private::is_open(&metadata) {
        let mode = metadata.permissions().mode() & 0o777;
        return Err(format!(
            "`{shown}` can be read by others (mode {mode:o}); mend it with `chmod 600 {shown}`"
        ));
    }
    read_text(path).map(SecretString::from)
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("`{}` cannot be read: {error}", path.display())
}

fn metadata(path: &Path) -> Result<Metadata, String> {
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_file() { Ok(metadata) } else { Err(format!("`{}` is not a file", path.display())) }
}

/// Reads a text without the line end that editors leave.
fn read_text(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let metadata = metadata(path)?;
    if metadata.len() > SECRET_LENGTH_MAX {
        return Err(format!("`{shown}` is larger than {SECRET_LENGTH_MAX} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(format!("`{shown}` is empty"));
    }
    Ok(text.to_owned())
}
