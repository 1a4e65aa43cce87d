//! A set of public keys in a file (JWKS, RFC 7517, section 5): what an identity provider publishes.
//!
//! Each key is for one algorithm, which follows from the key and never from a token (RFC 8725, section 3.1). What this node cannot
//! use is passed over, as the RFC asks for: a provider may publish keys of newer kinds beside those of today. A shared secret in such a
//! file is a mistake that lets anybody in, and is refused.
//!
//! Invariant: no two keys of a set have one name, and a set has at least one key.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use super::secret_file;
use super::token::VerifyingKey;

/// Keys of a set: today's, yesterday's and tomorrow's of several issuers.
pub(super) const KEYS_MAX: usize = 64;

/// Bytes of a set that is fetched: 64 keys of 4,096 bits with a word to each fit, several times over what providers publish; and its copy, with where it
/// is from, is a file that is read again.
pub(super) const SET_BYTES_MAX: usize = secret_file::FILE_BYTES_MAX as usize - 4 * 1024;

/// Fewest bytes of an RSA modulus (RFC 7518, section 3.3).
const RSA_BYTES_MIN: usize = 256;

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// The keys of a set that verify tokens here.
///
/// # Errors
/// In words: what is wrong with it.
pub(super) fn read(text: &[u8]) -> Result<Vec<VerifyingKey>, String> {
    let Set { keys } = serde_json::from_slice(text).map_err(|error| format!("is not a JWKS: {error}"))?;
    if keys.len() > KEYS_MAX {
        return Err(format!("holds {} keys, more than {KEYS_MAX}", keys.len()));
    }
    let mut usable: Vec<VerifyingKey> = Vec::with_capacity(keys.len());
    for (place, key) in keys.into_iter().enumerate() {
        let wrong = |reason: &str| format!("has a key, number {}, that {reason}", place + 1);
        if key["kty"] == "oct" {
            return Err(wrong("is a shared secret, which whoever reads this file could sign with"));
        }
        let Ok(key) = serde_json::from_value::<Jwk>(key) else { continue };
        let Some(algorithm) = algorithm_of(&key) else { continue };
        let decoding = DecodingKey::from_jwk(&key).map_err(|_| wrong("cannot be decoded"))?;
        let id = key.common.key_id;
        if id.is_some() && usable.iter().any(|other| other.id() == id.as_deref()) {
            return Err(wrong("has the `kid` of one before it"));
        }
        usable.push(VerifyingKey::new(id, decoding, algorithm));
    }
    match usable.as_slice() {
        [] => {
            Err("holds no key that verifies tokens: RSA of 2,048 bits, EC P-256 or P-384, or Ed25519"
                .to_owned())
        }
        [_] => Ok(usable),
        keys if keys.iter().all(|key| key.id().is_some()) => Ok(usable),
        _ => Err("holds several keys of which one has no `kid`: no token could name it".to_owned()),
    }
}

/// What a key verifies; `None` for one that does not verify tokens, or is of a kind or a length that is not used here.
fn algorithm_of(key: &Jwk) -> Option<Algorithm> {
    let common = &key.common;
    let is_for_signatures = common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|of| of.contains(&KeyOperations::Verify));
    if !is_for_signatures {
        return None;
    }
    let (usual, others): (Algorithm, &[Algorithm]) = match &key.algorithm {
        AlgorithmParameters::EllipticCurve(of) if of.curve == EllipticCurve::P256 => (Algorithm::ES256, &[]),
        AlgorithmParameters::EllipticCurve(of) if of.curve == EllipticCurve::P384 => (Algorithm::ES384, &[]),
        AlgorithmParameters::OctetKeyPair(of) if of.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, &[])
        }
        AlgorithmParameters::RSA(of) if modulus_bytes(&of.n) >= RSA_BYTES_MIN => {
            use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
            (RS256, &[RS384, RS512, PS256, PS384, PS512])
        }
        _ => return None,
    };
    match common.key_algorithm {
        None => Some(usual),
        Some(named) => {
            let named = algorithm_of_name(named)?;
            (named == usual || others.contains(&named)).then_some(named)
        }
    }
}

fn algorithm_of_name(name: KeyAlgorithm) -> Option<Algorithm> {
    name.to_string().parse().ok()
}

/// Of a number in base64url: four letters are three bytes.
fn modulus_bytes(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}
