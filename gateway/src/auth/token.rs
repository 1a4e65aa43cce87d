//! Makes and judges tokens.
//!
//! Time comes in as a value, so a simulator can let tokens expire, and the system clock has no say. There
//! is no leeway: a token is good while `now < exp`. Only `iat` may lie ahead, by a minute, because the
//! clock that signed is another one.
//!
//! Invariant: the algorithm is the key's. A token that names another, or none, is bad before any
//! signature is looked at.

use std::{fmt, sync::Arc, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use protocol::{
    ids::{UnixMillis, UserId},
    limits::TOKEN_BYTES_MAX,
};
use serde::{Deserialize, Serialize};

use super::key_watch::{Fetch, KeyWatch};
use super::token_id::TokenId;
use crate::config::Config;

/// Fewest bytes of a shared secret: as many as HMAC-SHA-256 gives (RFC 7518, section 3.2).
pub(super) const SECRET_BYTES_MIN: usize = 32;
/// How far `iat` may lie ahead of our clock.
pub(super) const ISSUED_AHEAD_MAX: Duration = Duration::from_secs(60);
/// An Ed25519 public key.
const EDDSA_PUBLIC_BYTES: usize = 32;
/// Times of tokens are seconds; above the year 9999 they are a mistake, perhaps milliseconds.
pub(super) const SECONDS_MAX: f64 = 253_402_300_800.0;

/// A token that was judged good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whose it is.
    pub user: UserId,
    /// From this time on it is not good any more.
    pub expires_at: UnixMillis,
    /// What it can be revoked by, beside its user.
    pub issued: Issued,
}

/// What tells the tokens of one user apart when some of them are revoked. Every session keeps one, so it is
/// small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    /// `iat`, in whole seconds since 1970, rounded down: exact where bounds are whole seconds.
    pub at: u32,
    /// Of its `jti`.
    pub id: TokenId,
}

/// Why a token is not good. One word for everything that was never right, so that a stranger who probes
/// learns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Never was, or not for this node, or not yet.
    Bad,
    /// Was, and its time has passed.
    Expired,
    /// Was, and an operator took it back.
    Revoked,
    /// May be: it is of a key that is not known here yet, and may be among those that are fetched next.
    Unknown,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bad => "the token is not valid",
            Self::Expired => "the token has expired",
            Self::Revoked => "the token was revoked",
            Self::Unknown => "the key of the token is being fetched",
        })
    }
}

impl std::error::Error for TokenError {}

/// A token that is not good, and what is wrong with it: for the operator's eyes, so that whoever makes tokens can be helped. It says nothing of
/// what stands in the token.
type Flawed = (TokenError, &'static str);

const NO_JWT: &str = "it is no JWT: three parts in base64url, of which the first two are JSON";
/// An algorithm that is not known, `none` among them, is read as a header of the wrong form.
const NO_HEADER: &str = "its header cannot be read, or names an algorithm (`alg`) that is not known";

/// Never was good.
const fn bad(flaw: &'static str) -> Flawed {
    (TokenError::Bad, flaw)
}

/// What tokens must claim besides a user and times, and what ours claim.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    issuer: Option<String>,
    audience: Option<String>,
}

impl Claims {
    pub(super) fn of(config: &Config) -> Self {
        Self { issuer: config.issuer.clone(), audience: config.audience.clone() }
    }
}

/// Judges tokens under one key, or a set of keys of which each token names one. Cloning counts a reference.
#[derive(Clone)]
pub struct Verifier(Arc<VerifierParts>);

struct VerifierParts {
    /// At least one, but of those that have yet to be fetched.
    keys: Vec<VerifyingKey>,
    claims: Claims,
    /// Whom to ask for keys that are not here, and the fetch that these are of.
    watch: Option<(Arc<KeyWatch>, Arc<Fetch>)>,
}

/// What all tokens ask for together that name no key: each for itself would push the others out of the table, and none of those whose key
/// was replaced would ever be told to get another.
const UNNAMED: &str = "\0";

/// A key, and the algorithm that it is for.
pub(super) struct VerifyingKey {
    /// `kid`: what tokens call it, if they have to.
    id: Option<String>,
    key: DecodingKey,
    validation: Validation,
}

impl VerifyingKey {
    pub(super) fn new(id: Option<String>, key: DecodingKey, algorithm: Algorithm) -> Self {
        let mut validation = Validation::new(algorithm);
        // Claims are judged below, by the caller's clock; the library would ask the system's.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self { id, key, validation }
    }

    /// What tokens call it.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

impl Verifier {
    pub(super) fn hs256(secret: &[u8], claims: Claims) -> Self {
        Self::new(DecodingKey::from_secret(secret), Algorithm::HS256, claims)
    }

    /// `None` unless `pem` is an Ed25519 public key.
    pub(super) fn eddsa(pem: &[u8], claims: Claims) -> Option<Self> {
        let key = DecodingKey::from_ed_pem(pem).ok()?;
        let fits = key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == EDDSA_PUBLIC_BYTES);
        fits.then(|| Self::new(key, Algorithm::EdDSA, claims))
    }

    fn new(key: DecodingKey, algorithm: Algorithm, claims: Claims) -> Self {
        Self::of_keys(vec![VerifyingKey::new(None, key, algorithm)], claims)
    }

    /// Of at least one key.
    pub(super) fn of_keys(keys: Vec<VerifyingKey>, claims: Claims) -> Self {
        assert!(!keys.is_empty(), "whoever reads keys refuses to have none");
        Self::of_parts(VerifierParts { keys, claims, watch: None })
    }

    /// Of what was fetched; of none while nothing was, which takes no token.
    pub(super) fn of_fetched(
        keys: Vec<VerifyingKey>,
        claims: Claims,
        watch: (Arc<KeyWatch>, Arc<Fetch>),
    ) -> Self {
        Self::of_parts(VerifierParts { keys, claims, watch: Some(watch) })
    }

    fn of_parts(parts: VerifierParts) -> Self {
        choose_cryptography();
        Self(Arc::new(parts))
    }

    /// How many keys there are.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.0.keys.len()
    }

    /// The key that a token is judged by: the one that it names (RFC 7515, section 4.1.4), or the only one there is, and whether it names it.
    fn key_of(&self, token: &str) -> Result<(&VerifyingKey, bool), Flawed> {
        let keys = &self.0.keys;
        if let [only] = keys.as_slice()
            && only.id.is_none()
        {
            return Ok((only, false));
        }
        let named = jsonwebtoken::decode_header(token)
            .map_err(|error| {
                bad(if matches!(error.kind(), ErrorKind::Json(_)) { NO_HEADER } else { NO_JWT })
            })?
            .kid;
        match (named, keys.as_slice()) {
            (None, [only]) => Ok((only, false)),
            (None, _) => Err(bad("it names no key (`kid`), and there are several")),
            (Some(named), keys) => match keys.iter().find(|key| key.id.as_ref() == Some(&named)) {
                Some(key) => Ok((key, true)),
                None => Err((
                    self.error_of_other_key(&named),
                    "it names a key (`kid`) that is not among those that tokens are judged by",
                )),
            },
        }
    }

    /// What a token is of a key that is not here: unknown while it may be among those that are fetched next. `name` stands for the key.
    fn error_of_other_key(&self, name: &str) -> TokenError {
        let may_come = self.0.watch.as_ref().is_some_and(|(watch, fetch)| watch.ask(name.as_bytes(), fetch));
        if may_come { TokenError::Unknown } else { TokenError::Bad }
    }

    /// Whose token it is, and until when. What is wrong with one that is not good is said to the operator alone.
    pub fn verify(&self, token: &str, now: UnixMillis) -> Result<Verified, TokenError> {
        self.examine(token, now).map_err(|(error, flaw)| {
            tracing::debug!("a token is not good: {flaw}");
            error
        })
    }

    fn examine(&self, token: &str, now: UnixMillis) -> Result<Verified, Flawed> {
        // Before any work: what is too long is not even looked at.
        if token.len() > TOKEN_BYTES_MAX {
            return Err(bad("it is too long"));
        }
        let (VerifyingKey { key, validation, .. }, is_named) = self.key_of(token)?;
        // Of a key that it names not it is known only that it is not this one.
        let of_other_key = || if is_named { TokenError::Bad } else { self.error_of_other_key(UNNAMED) };
        let data = jsonwebtoken::decode::<Payload>(token, key, validation).map_err(|error| {
            bad(match error.kind() {
                ErrorKind::InvalidSignature => {
                    let flaw = "its signature is not of this key: it was signed with another one";
                    return (of_other_key(), flaw);
                }
                ErrorKind::InvalidAlgorithm => {
                    return (of_other_key(), "its algorithm (`alg`) is not that of the key");
                }
                ErrorKind::Json(_) if jsonwebtoken::decode_header(token).is_err() => NO_HEADER,
                ErrorKind::Json(_) => "`sub`, `iat` or `exp` is missing, or a claim has the wrong type",
                _ => NO_JWT,
            })
        })?;
        // Extensions that must be understood (RFC 7515, section 4.1.11): we understand none.
        if data.header.crit.is_some() {
            return Err(bad("it has an extension (`crit`), and none is understood"));
        }
        judge(&data.claims, &self.0.claims, now)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(redacted)")
    }
}

fn judge(payload: &Payload, claims: &Claims, now: UnixMillis) -> Result<Verified, Flawed> {
    let user = UserId::new(&payload.sub)
        .map_err(|_| bad("`sub` is no user: 1 to 64 bytes without control characters"))?;
    let expires_at = millis(payload.exp)?;
    let issued_ahead_until = UnixMillis(now.0.saturating_add(ISSUED_AHEAD_MAX.as_millis() as u64));
    let issued_at = millis(payload.iat)?;
    if issued_at > issued_ahead_until {
        return Err(bad("`iat` lies ahead of this machine's clock"));
    }
    if payload.nbf.map_or(Ok(false), |nbf| millis(nbf).map(|begin| begin > now))? {
        return Err(bad("`nbf` lies ahead: it is not good yet"));
    }
    if claims.issuer.is_some() && payload.iss != claims.issuer {
        return Err(bad("`iss` is not the configured `issuer`"));
    }
    let for_us = claims.audience.as_ref().is_none_or(|audience| match &payload.aud {
        None => false,
        Some(Audience::Many(many)) => many.contains(audience),
        Some(Audience::One(one)) => one == audience,
    });
    if !for_us {
        return Err(bad("`aud` is not the configured `audience`"));
    }
    if now >= expires_at {
        return Err((TokenError::Expired, "it has expired (`exp`)"));
    }
    // It lies at most a minute ahead, so it fits until 2106.
    let at = u32::try_from(issued_at.0 / 1000).unwrap_or(u32::MAX);
    let id = payload.jti.as_deref().map_or(TokenId::NONE, TokenId::of);
    Ok(Verified { user, expires_at, issued: Issued { at, id } })
}

/// A numeric date of RFC 7519: seconds, possibly with a fraction.
fn millis(seconds: f64) -> Result<UnixMillis, Flawed> {
    if (0.0..SECONDS_MAX).contains(&seconds) {
        Ok(UnixMillis((seconds * 1000.0) as u64))
    } else {
        Err(bad("a time is not in seconds since 1970: milliseconds, perhaps"))
    }
}

/// The claims we look at; others are ignored, doubled ones refused.
#[derive(Deserialize)]
struct Payload {
    sub: String,
    iat: f64,
    exp: f64,
    nbf: Option<f64>,
    jti: Option<String>,
    iss: Option<String>,
    aud: Option<Audience>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    Many(Vec<String>),
    One(String),
}

/// Makes tokens that the [`Verifier`] of the same configuration takes.
#[derive(Clone)]
pub struct Issuer(Arc<IssuerParts>);

struct IssuerParts {
    key: EncodingKey,
    algorithm: Algorithm,
    claims: Claims,
}

impl Issuer {
    pub(super) fn hs256(secret: &[u8], claims: Claims) -> Self {
        choose_cryptography();
        let key = EncodingKey::from_secret(secret);
        Self(Arc::new(IssuerParts { key, algorithm: Algorithm::HS256, claims }))
    }

    /// `None` unless `pem` is an Ed25519 private key that can sign.
    pub(super) fn eddsa(pem: &[u8], claims: Claims) -> Option<Self> {
        choose_cryptography();
        let key = EncodingKey::from_ed_pem(pem).ok()?;
        jsonwebtoken::crypto::sign(b"probe", &key, Algorithm::EdDSA).ok()?;
        Some(Self(Arc::new(IssuerParts { key, algorithm: Algorithm::EdDSA, claims })))
    }

    /// A token for `user` that is good from `now` on, for `ttl`; both in whole seconds.
    pub fn issue(&self, user: &UserId, ttl: Duration, now: UnixMillis) -> String {
        let IssuerParts { key, algorithm, claims } = &*self.0;
        let issued = now.0 / 1000;
        let payload = OwnPayload {
            sub: user.as_str(),
            iat: issued,
            exp: issued.saturating_add(ttl.as_secs()),
            iss: claims.issuer.as_deref(),
            aud: claims.audience.as_deref(),
        };
        jsonwebtoken::encode(&Header::new(*algorithm), &payload, key)
            .expect("the key has signed before, and text and numbers are always JSON")
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issuer(redacted)")
    }
}

/// Whole numbers, which every library reads.
#[derive(Serialize)]
struct OwnPayload<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

/// Says which implementation signs and verifies. Left to itself the library takes the only one that is
/// compiled in, and panics at the first token when some dependency brings a second.
fn choose_cryptography() {
    // Refused when it was chosen before, by us.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

/// Whether what one signs the other takes.
pub(super) fn belong_together(issuer: &Issuer, verifier: &Verifier) -> bool {
    let user = UserId::new("probe").expect("a short word is an id");
    let now = UnixMillis(0);
    let token = issuer.issue(&user, Duration::from_secs(1), now);
    verifier.verify(&token, now).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW_SECONDS: u64 = 1_800_000_000;

    #[test]
    fn an_operator_is_told_what_is_wrong_with_a_token() {
        let claims = Claims { issuer: Some("us".to_owned()), audience: Some("chat".to_owned()) };
        let verifier = Verifier::hs256(&[7; 32], claims);
        let sign = |changes: &[(&str, Value)], secret: &[u8]| {
            let mut claims = json!({ "sub": "alice", "iat": NOW_SECONDS, "exp": NOW_SECONDS + 60, "iss": "us", "aud": ["chat"] });
            changes.iter().for_each(|(name, value)| claims[name] = value.clone());
            jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret))
                .expect("signed")
        };
        let flaw = |token: &str| match verifier.examine(token, UnixMillis(NOW_SECONDS * 1000)) {
            Ok(_) => "",
            Err((_, flaw)) => flaw,
        };
        for (name, value, expected) in [
            ("jti", json!("1"), ""),
            ("iat", json!(null), "`sub`, `iat` or `exp` is missing"),
            ("sub", json!(5), "has the wrong type"),
            ("sub", json!(""), "`sub` is no user"),
            ("iat", json!(NOW_SECONDS + 61), "`iat` lies ahead"),
            ("nbf", json!(NOW_SECONDS + 1), "`nbf` lies ahead"),
            ("exp", json!(NOW_SECONDS * 1000), "milliseconds, perhaps"),
            ("exp", json!(NOW_SECONDS), "it has expired"),
            ("iss", json!(null), "`iss` is not the configured"),
            ("aud", json!("mail"), "`aud` is not the configured"),
        ] {
            let told = flaw(&sign(&[(name, value.clone())], &[7; 32]));
            assert!(
                told.contains(expected) && told.is_empty() == expected.is_empty(),
                "{name} {value}: {told}"
            );
        }
        assert!(flaw(&sign(&[], &[8; 32])).contains("it was signed with another one"));
        assert!(flaw("alice").contains("no JWT"));
        // {"alg":"none","typ":"JWT"}, before the rest of a good one.
        let good = sign(&[], &[7; 32]);
        let (_, rest) = good.split_once('.').expect("a header");
        let told = flaw(&format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{rest}"));
        assert!(told.contains("names an algorithm (`alg`) that is not known"), "{told}");
    }
}
