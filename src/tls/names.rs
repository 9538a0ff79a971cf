//! The names in a client's certificate.

use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// Names of one certificate that are looked at, at most.
const NAMES_MAX: usize = 100;

/// The DNS names and URIs among the subject alternative names of a certificate in DER form. The subject's common name is
/// none of them: it may hold anything. None if it cannot be read.
#[must_use]
pub fn of(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else { return Vec::new() };
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = alternatives.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        _ => None,
    });
    names.take(NAMES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn only_dns_names_and_uris_are_names() {
        let mut params =
            CertificateParams::new(["billing.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "common.example");
        for name in ["spiffe://example.org/billing", "spiffe://example.org/second"] {
            params.subject_alt_names.push(SanType::URI(name.try_into().unwrap()));
        }
        params.subject_alt_names.push(SanType::Rfc822Name("mail@example.org".try_into().unwrap()));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let expected = ["billing.example", "spiffe://example.org/billing", "spiffe://example.org/second"];
        assert_eq!(of(certificate.der()), expected);
    }

    #[test]
    fn what_cannot_be_read_has_no_names() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "common.example");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(of(certificate.der()), [""; 0]);
        assert_eq!(of(&certificate.der()[..40]), [""; 0]);
        assert_eq!(of(b""), [""; 0]);
    }
}
