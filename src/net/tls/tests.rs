//! Files as OpenSSL 3.0 writes them (`tests/data/tls`); all keys there are the tests' own, the password `walpost-tests`.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;

const PASSWORD: &str = "walpost-tests";
const WRONG: &str = "hunter2";

fn data(name: &str) -> String {
    format!("{}/tests/data/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn settings(ca_file: &str, client: Option<(&str, &str, &str)>) -> Settings {
    Settings {
        section: "broker.tls",
        hosts: "broker.hosts",
        verify: Verify::Full,
        ca_file: Some(ca_file.to_owned()),
        client: client.map(|(cert_file, key_file, password)| ClientCertificate {
            cert_file: cert_file.to_owned(),
            key_file: key_file.to_owned(),
            key_password: Secret::from(password),
        }),
        server_name: None,
        min_version: MinVersion::V1_2,
    }
}

fn der(name: &str) -> Vec<u8> {
    CertificateDer::from_pem_file(data(name)).unwrap().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The expected ones by `openssl x509 -outform der | sha256sum`, sha384sum, sha512sum.
#[test]
fn the_end_point_is_the_hash_of_the_signature() {
    for (name, length, start) in [
        ("ecdsa-sha256.crt", 32, "b869e71e3498c1c3"),
        ("ecdsa-sha384.crt", 48, "4f1cfb5c28fd3226"),
        ("ecdsa-sha512.crt", 64, "a3de2bfb3be4496f"),
        ("rsa-sha1.crt", 32, "15152e7542d9e2b0"),
        ("rsa-sha256.crt", 32, "5078d3682fdaba19"),
        ("rsa-sha512.crt", 64, "68c35188eecf2dae"),
        ("rsa-pss-sha1.crt", 32, "33b03c8c3c579a2d"),
        ("rsa-pss-sha384.crt", 48, "6bbc9cbedee4d3cf"),
        ("version1.crt", 32, "4fad18c71e3f60c6"),
    ] {
        let end_point = certificate::end_point(&der(name)).unwrap();
        assert_eq!(end_point.len(), length, "{name}");
        assert!(hex(&end_point).starts_with(start), "{name}: {}", hex(&end_point));
    }
    assert_eq!(certificate::end_point(&der("ed25519.crt")), None);
}

#[test]
fn the_public_key_is_found_in_each_version_of_x509() {
    for name in ["ecdsa-sha256.crt", "version1.crt"] {
        let certificate = der(name);
        let key = certificate::public_key(&certificate).unwrap();
        assert!(hex(&Sha256::digest(key)).starts_with("1f3099c413d38c2a"), "{name}");
    }
}

#[test]
fn what_is_cut_short_is_no_certificate() {
    let whole = der("rsa-pss-sha384.crt");
    for length in 0..whole.len() {
        assert_eq!(certificate::public_key(&whole[..length]), None, "{length}");
        assert_eq!(certificate::end_point(&whole[..length]), None, "{length}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_looked_at(at in 0_usize..1000, with: u8, bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut changed = der("rsa-pss-sha384.crt");
        let at = at % changed.len();
        changed[at] = with;
        for certificate in [&changed, &bytes] {
            let _ = certificate::public_key(certificate);
            let _ = certificate::end_point(certificate);
        }
    }
}

#[test]
fn keys_are_read_encrypted_or_not() {
    let (ca, cert) = (data("rsa-sha256.crt"), data("ecdsa-sha256.crt"));
    for (key, password) in [("plain.key", ""), ("plain.key", PASSWORD), ("encrypted.key", PASSWORD)]
    {
        let tls = Tls::new(settings(&ca, Some((&cert, &data(key), password))));
        assert_eq!(tls.check(), Ok(()), "{key}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    let folder = TempDir::new().unwrap();
    let text = folder.path().join("text");
    fs::write(&text, "-----BEGIN CERTIFICATE-----\nno base64!\n-----END CERTIFICATE-----\n")
        .unwrap();
    let (text, missing) = (text.display().to_string(), "/nowhere/at/all".to_owned());
    let (ca, cert, key) = (data("rsa-sha256.crt"), data("ecdsa-sha256.crt"), data("plain.key"));
    let (encrypted, legacy, old) = (data("encrypted.key"), data("legacy.key"), data("old.key"));
    for (ca, client, setting, file, words) in [
        (&missing, None, "ca_file", &missing, "cannot read"),
        (&text, None, "ca_file", &text, "is no PEM file"),
        (&key, None, "ca_file", &key, "holds no certificate"),
        (&ca, Some((&missing, &key, "")), "cert_file", &missing, "cannot read"),
        (&ca, Some((&cert, &missing, "")), "key_file", &missing, "cannot read"),
        (&ca, Some((&cert, &cert, "")), "key_file", &cert, "holds no private key"),
        (&ca, Some((&ca, &key, "")), "key_file", &key, "is not the key of the certificate in"),
        (&ca, Some((&cert, &encrypted, "")), "key_file", &encrypted, "set broker.tls.key_password"),
        (&ca, Some((&cert, &encrypted, WRONG)), "key_file", &encrypted, "can't be decrypted"),
        (&ca, Some((&cert, &legacy, PASSWORD)), "key_file", &legacy, "openssl pkcs8 -topk8 -in"),
        (&ca, Some((&cert, &old, PASSWORD)), "key_file", &old, "openssl pkcs8 -topk8 -v2"),
    ] {
        let client = client.map(|(cert, key, password)| (cert.as_str(), key.as_str(), password));
        let tls = Tls::new(settings(ca, client));
        let error = tls.check().unwrap_err();
        assert_eq!(error.key, format!("broker.tls.{setting}"), "{error}");
        assert!(error.reason.contains(words) && error.reason.contains(file.as_str()), "{error}");
        let shown = format!("{error}{error:?}{tls:?}");
        assert!(!shown.contains(WRONG) && !shown.contains(PASSWORD), "{shown}");
    }
}

#[test]
fn files_are_read_again_when_they_have_changed() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let put = |from: &str, to: &str| {
        // As who renews certificates does: a new file in the old one's place.
        fs::copy(data(from), path("new")).unwrap();
        fs::rename(path("new"), path(to)).unwrap();
    };
    put("rsa-sha256.crt", "ca");
    put("ecdsa-sha256.crt", "cert");
    put("plain.key", "key");
    let tls = Tls::new(settings(&path("ca"), Some((&path("cert"), &path("key"), ""))));
    let made = || tls.0.config();
    let first = made().unwrap();
    assert!(Arc::ptr_eq(&first, &made().unwrap()));
    put("ecdsa-sha384.crt", "cert");
    let second = made().unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&second, &made().unwrap()));
    // In the middle of it the two do not go together: what was there before is not used.
    put("rsa-sha256.crt", "cert");
    assert_eq!(made().unwrap_err().key, "broker.tls.key_file");
    put("ecdsa-sha512.crt", "cert");
    assert!(made().is_ok());
    fs::remove_file(Path::new(&path("ca"))).unwrap();
    assert_eq!(made().unwrap_err().key, "broker.tls.ca_file");
}
