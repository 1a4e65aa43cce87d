//! Tokens: signed here with the node's own secret, so that no user system is needed.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use protocol::{command::Token, ids::UserId};
use serde::Serialize;

use crate::clock::unix_now;

/// How long a token is good: longer than any run.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Fewest bytes of a secret that a node takes.
const SECRET_BYTES_MIN: usize = 32;

/// Makes tokens for any user.
pub(crate) struct Signer(EncodingKey);

impl Signer {
    pub(crate) fn new(secret: &str) -> Self {
        Self(EncodingKey::from_secret(secret.as_bytes()))
    }

    /// The secret in a file, without its line end.
    pub(crate) fn read_secret(path: &Path) -> anyhow::Result<String> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{}: this key file could not be read", path.display()))?;
        let secret = text.trim_end_matches(['\n', '\r']).to_owned();
        ensure!(
            secret.len() >= SECRET_BYTES_MIN,
            "{}: holds {} bytes, and a secret has at least {SECRET_BYTES_MIN}",
            path.display(),
            secret.len()
        );
        Ok(secret)
    }

    pub(crate) fn sign(&self, user: &UserId) -> anyhow::Result<Token> {
        let issued = unix_now().0 / 1000;
        let claims = Claims { sub: user.as_str(), iat: issued, exp: issued + TTL.as_secs() };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.0)?;
        Token::new(&token).context("the token is too long")
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
}
