//! The files: certificates, private keys, and whether they have changed.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::SystemTime;

use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::Document;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::Settings;
use crate::secret::Secret;

/// No file of certificates is longer; the system's bundle has a quarter of a megabyte.
const LONGEST: u64 = 16 * 1024 * 1024;
const ENCRYPTED: [&str; 2] =
    ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "-----END ENCRYPTED PRIVATE KEY-----"];
/// What OpenSSL before 1.0 wrote, and `-traditional` still does.
const LEGACY: &str = "Proc-Type: 4,ENCRYPTED";

/// By what a file is known to be the same: inode, size, time of change.
type Mark = Option<(u64, u64, SystemTime)>;

/// What the files of a peer look like from outside.
#[derive(PartialEq, Eq)]
pub(super) struct State([Mark; 3]);

impl State {
    pub(super) fn of(settings: &Settings) -> State {
        let client = settings.client.as_ref();
        State([
            mark(settings.ca_file.as_deref()),
            mark(client.map(|client| client.cert_file.as_str())),
            mark(client.map(|client| client.key_file.as_str())),
        ])
    }
}

fn mark(file: Option<&str>) -> Mark {
    let file = fs::metadata(file?).ok()?;
    Some((file.ino(), file.len(), file.modified().ok()?))
}

/// The certificates of a PEM file; at least one.
pub(super) fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(format!("'{path}' holds no certificate (PEM, '-----BEGIN CERTIFICATE-----')"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("'{path}' is no PEM file: {error}")),
    }
}

/// The private key of a PEM file, decrypted with `password` where it is encrypted. `password_key` is where
/// that is set.
pub(super) fn key(
    path: &str,
    password: &Secret,
    password_key: &str,
) -> Result<PrivateKeyDer<'static>, String> {
    let text = read(path)?;
    let words = String::from_utf8_lossy(&text);
    if words.contains(LEGACY) {
        return Err(format!(
            "'{path}' is encrypted in OpenSSL's old format, which is not read; convert it: openssl pkcs8 -topk8 -in {path}"
        ));
    }
    if let Some((_, rest)) = words.split_once(ENCRYPTED[0]) {
        if password.is_empty() {
            return Err(format!("'{path}' is encrypted; set {password_key}"));
        }
        let (body, _) = rest
            .split_once(ENCRYPTED[1])
            .ok_or_else(|| format!("'{path}' is no PEM file: the key has no end"))?;
        return decrypt(&format!("{}{body}{}\n", ENCRYPTED[0], ENCRYPTED[1]), password)
            .map_err(|reason| format!("'{path}' {reason}"));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            format!("'{path}' holds no private key (PEM, '-----BEGIN PRIVATE KEY-----')")
        }
        error => format!("'{path}' is no PEM file: {error}"),
    })
}

fn decrypt(pem: &str, password: &Secret) -> Result<PrivateKeyDer<'static>, String> {
    let (_, document) =
        Document::from_pem(pem).map_err(|error| format!("is no PEM file: {error}"))?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| {
        "is encrypted in a way that is not read; encrypt it anew: openssl pkcs8 -topk8 -v2 aes256"
            .to_owned()
    })?;
    // The library's reasons do not tell a wrong password from a broken file.
    let key = encrypted
        .decrypt(password.expose())
        .map_err(|_| "can't be decrypted: is it another key's password?".to_owned())?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

/// What the system trusts.
pub(super) fn system() -> Result<Arc<[CertificateDer<'static>]>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!(
            "is not set, and this system has no certificates to trust{why}; set it, or install the system's (Debian: \
             ca-certificates)"
        ));
    }
    Ok(found.certs.into())
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LONGEST {
            return Err(io::Error::other("it is longer than 16 MiB"));
        }
        Ok(bytes)
    };
    read().map_err(|error: io::Error| format!("cannot read '{path}': {error}"))
}
