//! Who may come in: keys, the tokens they sign, and the files both are kept in.
//!
//! Tokens are JSON Web Tokens (RFC 7519) under one key of the operator's, or a set of them in a file or at an address. What is fetched, and where, is the
//! operator's: no header of a token can make this process open a file or a connection to anywhere else.
//!
//! Invariant: no key and no token is ever shown by `Debug`, `Display` or a log line of this module.

mod cache;
mod deny_list;
mod development;
mod fetch;
mod jwks;
mod key_watch;
mod refetching;
mod rereading;
mod revocation;
mod secret_file;
mod token;
mod token_id;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

pub use cache::TokenCache;
pub use deny_list::DenyList;
pub use development::banner as development_banner;
pub use refetching::{ASKED_EVERY, COPY_FILE, FETCH_EVERY, FLOOR, Refetching};
pub use rereading::{LOOK_EVERY, Rereading};
pub(crate) use revocation::Entry;
pub use revocation::{FOR_EVER, JTI_BYTES_MAX, Revocation, Span, Subject};
pub use token::{Issued, Issuer, TokenError, Verified, Verifier};
pub use token_id::TokenId;

use crate::config::{Config, KeyConfig};

/// Name of the development key, in the data directory.
pub const DEVELOPMENT_KEY_FILE: &str = "dev.key";
/// Name of the admin token, in the data directory, where none is configured.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";

/// Everything that follows from the configured key.
pub struct Keys {
    /// Judges tokens.
    pub verifier: Verifier,
    /// Makes tokens; absent when only a public key is configured.
    pub issuer: Option<Issuer>,
    /// Nothing was configured: the key is `dev.key` of the data directory.
    pub is_development: bool,
    /// How they are read again, where they may change while a node runs.
    pub rereading: Option<Rereading>,
    /// How they are fetched, where they have an address. Until then the verifier has those that were kept, or none.
    pub refetching: Option<Refetching>,
}

impl Keys {
    /// Opens the configured keys. Without any, the development key is opened, or made once.
    pub fn load(config: &Config) -> Result<Self, KeyError> {
        match &config.keys {
            KeyConfig::Development => {
                let path = config.data.join(DEVELOPMENT_KEY_FILE);
                let secret = secret_file::read_or_create(&path)?;
                Self::hs256(&path, &secret, config, true)
            }
            KeyConfig::JwksUrl { url } => {
                let (refetching, verifier) = Refetching::of(url, config);
                let refetching = Some(refetching);
                Ok(Self { verifier, issuer: None, is_development: false, rereading: None, refetching })
            }
            KeyConfig::Hs256 { .. } | KeyConfig::Eddsa { .. } | KeyConfig::Jwks { .. } => {
                Self::load_configured(config)
            }
        }
    }

    /// Keys of one shared secret, for simulators and tests. `None` when it is shorter than 32 bytes.
    pub fn from_secret(secret: &[u8]) -> Option<Self> {
        Self::hs256(Path::new("secret"), secret, &Config::default(), false).ok()
    }

    fn load_configured(config: &Config) -> Result<Self, KeyError> {
        match &config.keys {
            KeyConfig::Hs256 { key_file } => {
                let secret = secret_file::read(key_file)?;
                Self::hs256(key_file, &secret, config, false)
            }
            KeyConfig::Eddsa { public_key_file, private_key_file } => {
                Self::eddsa(public_key_file, private_key_file.as_deref(), config)
            }
            KeyConfig::Jwks { file } => Self::jwks(file, config),
            KeyConfig::Development | KeyConfig::JwksUrl { .. } => unreachable!("asked only for key files"),
        }
    }

    fn hs256(path: &Path, secret: &[u8], config: &Config, is_development: bool) -> Result<Self, KeyError> {
        if secret.len() < token::SECRET_BYTES_MIN {
            return Err(KeyError::TooShort { path: path.to_owned(), bytes: secret.len() });
        }
        let claims = token::Claims::of(config);
        Ok(Self {
            verifier: Verifier::hs256(secret, claims.clone()),
            issuer: Some(Issuer::hs256(secret, claims)),
            is_development,
            rereading: None,
            refetching: None,
        })
    }

    fn jwks(path: &Path, config: &Config) -> Result<Self, KeyError> {
        // Before it is read: what changes meanwhile is found the next time.
        let rereading = Some(Rereading::of(path, config));
        let keys = jwks::read(&secret_file::read_public(path)?)
            .map_err(|reason| KeyError::NoSet { path: path.to_owned(), reason })?;
        let verifier = Verifier::of_keys(keys, token::Claims::of(config));
        Ok(Self { verifier, issuer: None, is_development: false, rereading, refetching: None })
    }

    fn eddsa(public: &Path, private: Option<&Path>, config: &Config) -> Result<Self, KeyError> {
        let claims = token::Claims::of(config);
        let malformed = |path: &Path| KeyError::Malformed { path: path.to_owned() };
        let verifier = Verifier::eddsa(&secret_file::read_public(public)?, claims.clone())
            .ok_or_else(|| malformed(public))?;
        let issuer = match private {
            None => None,
            Some(private) => {
                let issuer =
                    Issuer::eddsa(&secret_file::read(private)?, claims).ok_or_else(|| malformed(private))?;
                if !token::belong_together(&issuer, &verifier) {
                    let (public, private) = (public.to_owned(), private.to_owned());
                    return Err(KeyError::Mismatch { public, private });
                }
                Some(issuer)
            }
        };
        Ok(Self { verifier, issuer, is_development: false, rereading: None, refetching: None })
    }
}

/// Opens every key file that a start would open, makes none, and tells all that is wrong with them, each with the setting that
/// names the file.
pub fn check(config: &Config) -> Vec<(&'static str, KeyError)> {
    let mut faults = Vec::new();
    let mut add = |setting, fault: Option<KeyError>| faults.extend(fault.map(|fault| (setting, fault)));
    match &config.keys {
        KeyConfig::Development => add("data", existing(&config.data.join(DEVELOPMENT_KEY_FILE)).err()),
        KeyConfig::Hs256 { .. } => add("hs256_key_file", Keys::load_configured(config).err()),
        KeyConfig::Jwks { .. } => add("jwks_file", Keys::load_configured(config).err()),
        // To look at a configuration asks nobody else.
        KeyConfig::JwksUrl { .. } => {}
        KeyConfig::Eddsa { public_key_file, private_key_file } => {
            let of_public = Keys::eddsa(public_key_file, None, config).err();
            // Whether the two belong together can only be asked of a public one that is good.
            let of_private = private_key_file.as_deref().and_then(|private| match of_public {
                Some(_) => secret_file::read(private).err(),
                None => Keys::eddsa(public_key_file, Some(private), config).err(),
            });
            add("eddsa_public_key_file", of_public);
            add("eddsa_private_key_file", of_private);
        }
    }
    match config.admin_token_file {
        None => add("data", existing(&config.data.join(ADMIN_TOKEN_FILE)).err()),
        Some(_) => add("admin_token_file", AdminToken::load(config).err()),
    }
    faults
}

/// A file that is made at the first start: not there yet is fine.
fn existing(path: &Path) -> Result<(), KeyError> {
    match secret_file::read(path) {
        Err(KeyError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(secret) if secret.len() < token::SECRET_BYTES_MIN => {
            Err(KeyError::TooShort { path: path.to_owned(), bytes: secret.len() })
        }
        other => other.map(|_| ()),
    }
}

/// The bearer token of admin commands.
pub struct AdminToken(blake3::Hash);

impl AdminToken {
    /// Opens the configured file, or the one in the data directory, which is made once.
    pub fn load(config: &Config) -> Result<Self, KeyError> {
        let (path, token) = match &config.admin_token_file {
            Some(path) => (path.clone(), secret_file::read(path)?),
            None => {
                let path = config.data.join(ADMIN_TOKEN_FILE);
                let token = secret_file::read_or_create(&path)?;
                (path, token)
            }
        };
        // The same floor as for a signing key: it guards the node against the same guessing.
        if token.len() < token::SECRET_BYTES_MIN {
            return Err(KeyError::TooShort { path, bytes: token.len() });
        }
        Ok(Self::new(&token))
    }

    /// The token in the file at `path`, for who shows it.
    pub fn read(path: &Path) -> Result<String, KeyError> {
        Ok(String::from_utf8_lossy(&secret_file::read(path)?).into_owned())
    }

    /// A token of these bytes.
    pub fn new(token: &[u8]) -> Self {
        Self(blake3::hash(token))
    }

    /// Whether `offered` is the token. Digests are compared, in constant time, so neither the length nor a
    /// common beginning shows in how long it takes.
    pub fn matches(&self, offered: &[u8]) -> bool {
        self.0 == blake3::hash(offered)
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(redacted)")
    }
}

/// Why a key file is not used. The start is refused: a node with a key that others can read or write
/// would let anybody in.
#[derive(Debug)]
pub enum KeyError {
    /// Others may read a secret, or write a public key.
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Opening, reading or making it failed.
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// Not in the form that is needed.
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Two keys of different pairs.
    Mismatch {
        /// The public half of one.
        public: PathBuf,
        /// The private half of another.
        private: PathBuf,
    },
    /// Not a set of keys that tokens can be judged by.
    NoSet {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Belongs to neither this process's user nor root.
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        process: u32,
    },
    /// Too few bytes to be safe from guessing.
    TooShort {
        /// The file.
        path: PathBuf,
        /// How many there are.
        bytes: usize,
    },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exposed { path, mode } => {
                let path = path.display();
                write!(
                    f,
                    "{path}: other users can read or change this key file (mode {mode:04o}); if it was ever \
                     exposed replace the key, then run: chmod 600 {path}"
                )
            }
            Self::Io { path, action, error } => {
                write!(f, "{}: this key file could not be {action}: {error}", path.display())?;
                if error.kind() == io::ErrorKind::PermissionDenied {
                    let user = rustix::process::geteuid().as_raw();
                    write!(
                        f,
                        "; it, or the directory it is in, is not open to user {user}, as whom this runs"
                    )?;
                }
                Ok(())
            }
            Self::Malformed { path } => write!(
                f,
                "{}: not an Ed25519 key in PEM; make a pair with: openssl genpkey -algorithm ed25519 -out \
                 private.pem && openssl pkey -in private.pem -pubout -out public.pem",
                path.display()
            ),
            Self::Mismatch { public, private } => write!(
                f,
                "{} and {} are halves of different key pairs; make the public key again with: openssl pkey -in \
                 {} -pubout",
                public.display(),
                private.display(),
                private.display()
            ),
            Self::NoSet { path, reason } => write!(
                f,
                "{}: this file {reason}; put the keys there that your identity provider publishes as its JWKS",
                path.display()
            ),
            Self::Owner { path, owner, process } => {
                let path = path.display();
                write!(
                    f,
                    "{path}: this key file belongs to user {owner}, and this process runs as user {process}; \
                     run: chown {process} {path}"
                )
            }
            Self::TooShort { path, bytes } => write!(
                f,
                "{}: holds {bytes} bytes, and fewer than {} can be guessed; make one with: openssl rand -hex 32",
                path.display(),
                token::SECRET_BYTES_MIN
            ),
        }
    }
}

impl std::error::Error for KeyError {}
