//! The two things that are read out of a certificate here: its public key, and by which hash it was signed.

use sha2::{Digest, Sha256, Sha384, Sha512};

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
/// The context-specific element 0.
const ZERO: u8 = 0xA0;

/// Object identifiers in DER: 1.2.840.113549.1.1 (RSA), 1.2.840.10045.4 (ECDSA), 2.16.840.1.101.3.4.2 (hashes).
const RSA: [u8; 8] = [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1];
const ECDSA: [u8; 6] = [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4];
const SHA: [u8; 8] = [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2];
/// 1.3.14.3.2.26
const SHA_1: [u8; 5] = [0x2B, 0x0E, 3, 2, 0x1A];

#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// `tls-server-end-point` (RFC 5929): the certificate's hash by the algorithm that it was signed with. None where
/// that is not defined (Ed25519): then there is no channel binding.
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    Some(match signature_hash(certificate)? {
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

/// SHA-256 stands in the place of MD5 and SHA-1.
fn signature_hash(certificate: &[u8]) -> Option<Hash> {
    // tbsCertificate, signatureAlgorithm
    let (_, rest) = element(inside(certificate, SEQUENCE)?)?;
    let algorithm = inside(rest, SEQUENCE)?;
    let (_, parameters) = element(algorithm)?;
    let name = inside(algorithm, OID)?;
    if let Some(which) = name.strip_prefix(&RSA) {
        return match which {
            [4 | 5 | 11] => Some(Hash::Sha256),
            [12] => Some(Hash::Sha384),
            [13] => Some(Hash::Sha512),
            // RSASSA-PSS: the hash is a parameter of its own; without one SHA-1 is meant.
            [10] => match inside(parameters, SEQUENCE).and_then(|all| inside(all, ZERO)) {
                Some(hash) => named(inside(inside(hash, SEQUENCE)?, OID)?),
                None => Some(Hash::Sha256),
            },
            _ => None,
        };
    }
    match name.strip_prefix(&ECDSA)? {
        [1] | [3, 2] => Some(Hash::Sha256),
        [3, 3] => Some(Hash::Sha384),
        [3, 4] => Some(Hash::Sha512),
        _ => None,
    }
}

fn named(hash: &[u8]) -> Option<Hash> {
    if hash == SHA_1 {
        return Some(Hash::Sha256);
    }
    match hash.strip_prefix(&SHA)? {
        [1] => Some(Hash::Sha256),
        [2] => Some(Hash::Sha384),
        [3] => Some(Hash::Sha512),
        _ => None,
    }
}

/// The SubjectPublicKeyInfo.
pub(super) fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let mut fields = inside(inside(certificate, SEQUENCE)?, SEQUENCE)?;
    if fields.first() == Some(&ZERO) {
        // version
        fields = element(fields)?.1;
    }
    // serialNumber, signature, issuer, validity, subject
    for _ in 0..5 {
        fields = element(fields)?.1;
    }
    Some(element(fields)?.0)
}

/// The first element of `der` with its header, and what comes behind it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (start, length) = header(der)?;
    der.split_at_checked(start.checked_add(length)?)
}

/// What is in the first element of `der`, which has to be a `tag`.
fn inside(der: &[u8], tag: u8) -> Option<&[u8]> {
    let (start, _) = header(der)?;
    (*der.first()? == tag).then(|| element(der)?.0.get(start..))?
}

/// How long the header of the first element is, and how long what is in it. No tag here has two bytes.
fn header(der: &[u8]) -> Option<(usize, usize)> {
    match *der.get(1)? {
        short @ 0..0x80 => Some((2, short.into())),
        long => {
            let count = usize::from(long & 0x7F);
            let digits = der.get(2..2 + count).filter(|_| (1..=3).contains(&count))?;
            Some((2 + count, digits.iter().fold(0, |all, digit| all << 8 | usize::from(*digit))))
        }
    }
}
