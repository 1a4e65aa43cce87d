//! Keys that are fetched: at the start, now and then, and when a token names one that is not known; never more often than
//! [`FLOOR`].
//!
//! The set that was fetched last stands in the data directory. A start that cannot fetch goes on with it: whoever was let in yesterday is let in while
//! the identity provider is away. It is another address's where the configuration names another, and then it is not believed.
//!
//! Invariant: what was fetched is in force, or what was in force before. Nothing that cannot be used replaces anything.

use std::{io::Write as _, path::PathBuf, sync::Arc, sync::atomic::Ordering, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::key_watch::{Fetch, KeyWatch};
use super::token::{Claims, VerifyingKey};
use super::{Verifier, fetch::fetch, jwks, secret_file};
use crate::clock::unix_now;
use crate::config::{Config, JwksUrl};
use crate::metrics::KeyMetrics;
use crate::store::disk::replace;

/// Time between two fetches, at least: tokens with names made up, however many, cost the provider two requests a minute.
pub const FLOOR: Duration = Duration::from_secs(30);

/// Time between two fetches of a quiet node: providers publish a new key hours before they sign with it, and withdraw one when
/// its tokens have ended.
pub const FETCH_EVERY: Duration = Duration::from_secs(300);

/// How often it is looked whether a key was asked for.
pub const ASKED_EVERY: Duration = Duration::from_millis(200);

/// Name of the last set, in the data directory.
pub const COPY_FILE: &str = "jwks.copy.json";

/// The last set that could be used, and where it is from.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    url: String,
    /// In seconds since 1970.
    fetched_at: u64,
    set: serde_json::Value,
}

/// The keys of an address.
#[derive(Debug)]
pub struct Refetching {
    url: JwksUrl,
    claims: Claims,
    directory: PathBuf,
    watch: Arc<KeyWatch>,
    tried: Option<Instant>,
    /// What is in force may not be what is published, or not be everywhere.
    failed: bool,
    /// What is in force.
    set: Option<Vec<u8>>,
    /// And of which fetch it is.
    fetch: Arc<Fetch>,
    /// The next start would have it.
    is_kept: bool,
}

impl Refetching {
    /// Nothing is fetched yet. With what was kept, if that is of this address.
    pub(super) fn of(url: &JwksUrl, config: &Config) -> (Self, Verifier) {
        let mut refetching = Self {
            url: url.clone(),
            claims: Claims::of(config),
            directory: config.data.clone(),
            watch: Arc::new(KeyWatch::new()),
            tried: None,
            failed: false,
            set: None,
            fetch: Arc::default(),
            is_kept: false,
        };
        let keys = refetching.read_copy().unwrap_or_default();
        let verifier = refetching.verifier(keys);
        (refetching, verifier)
    }

    /// Where from.
    #[must_use]
    pub fn url(&self) -> &JwksUrl {
        &self.url
    }

    /// Whether there is a set in force: the last one that was fetched, or kept.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.set.is_some()
    }

    /// Whether it is time to fetch.
    pub fn is_due(&self, now: Instant) -> bool {
        let Some(since) = self.tried.map(|tried| now.duration_since(tried)) else { return true };
        if since >= FLOOR {
            self.watch.grow_old();
        }
        since >= FETCH_EVERY || since >= FLOOR && (self.failed || self.watch.asked.load(Ordering::Relaxed))
    }

    /// Fetches the set. `None` where it is the one in force.
    ///
    /// # Errors
    /// In words: those of before stay in force, and it is due again after [`FLOOR`].
    pub async fn fetch(&mut self, metrics: &KeyMetrics) -> Result<Option<Verifier>, String> {
        metrics.fetches_total.increment();
        let number = self.watch.begin();
        let fetched = fetch(&self.url).await.and_then(|set| Ok((jwks::read(&set)?, set)));
        self.tried = Some(Instant::now());
        self.failed = fetched.is_err();
        match fetched {
            Err(reason) => {
                metrics.failures_total.increment();
                Err(reason)
            }
            Ok((keys, set)) => {
                metrics.fetched_seconds.set(unix_seconds());
                metrics.keys.set(keys.len() as u64);
                if self.set.as_ref() == Some(&set) {
                    self.fetch.renew(number);
                    return Ok(None);
                }
                // Whoever has the set of before goes on to ask until it has this one.
                self.fetch = Arc::new(Fetch::new(number));
                (self.set, self.is_kept) = (Some(set), false);
                Ok(Some(self.verifier(keys)))
            }
        }
    }

    /// A shard did not take them: they are fetched once more.
    pub fn again(&mut self) {
        (self.set, self.failed) = (None, true);
    }

    /// Whether what is in force has yet to be kept.
    #[must_use]
    pub fn is_unkept(&self) -> bool {
        self.set.is_some() && !self.is_kept
    }

    /// Keeps what is in force for the next start; tried once. Blocks.
    ///
    /// # Errors
    /// Those of the disk: then the next start has what was kept before.
    pub fn keep(&mut self) -> std::io::Result<()> {
        self.is_kept = true;
        let Some(set) = &self.set else { return Ok(()) };
        let kept = Kept {
            url: self.url.whole().to_owned(),
            fetched_at: unix_seconds(),
            set: serde_json::from_slice(set)?,
        };
        let text = serde_json::to_vec(&kept)?;
        replace(&self.directory.join(COPY_FILE), |file| file.write_all(&text)).map(drop)
    }

    fn verifier(&self, keys: Vec<VerifyingKey>) -> Verifier {
        Verifier::of_fetched(keys, self.claims.clone(), (self.watch.clone(), self.fetch.clone()))
    }

    /// What was kept, if it can be used: it is a convenience, and whatever is wrong with it is said and as good as none.
    fn read_copy(&mut self) -> Option<Vec<VerifyingKey>> {
        let path = self.directory.join(COPY_FILE);
        if !path.exists() {
            return None;
        }
        let unusable = |error: String| {
            tracing::warn!("the keys that were fetched last are not used: {}: {error}", path.display());
        };
        let text = secret_file::read_public(&path).map_err(|error| unusable(error.to_string())).ok()?;
        let copy: Kept = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string())).ok()?;
        if copy.url != self.url.whole() {
            return None;
        }
        let set = serde_json::to_vec(&copy.set).map_err(|error| unusable(error.to_string())).ok()?;
        let keys = jwks::read(&set).map_err(unusable).ok()?;
        (self.set, self.is_kept) = (Some(set), true);
        Some(keys)
    }
}

fn unix_seconds() -> u64 {
    unix_now().0 / 1_000
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn nothing_is_fetched_more_often_than_the_floor_allows_however_much_is_asked_for() {
        let url: JwksUrl = "http://127.0.0.1:1/jwks".parse().expect("an address");
        let (mut refetching, verifier) = Refetching::of(&url, &Config::default());
        let begun = Instant::now();
        assert!(refetching.is_due(begun) && !refetching.has_keys() && verifier.keys() == 0);
        // As after a fetch that went well.
        (refetching.tried, refetching.set) = (Some(begun), Some(Vec::new()));
        refetching.fetch = Arc::new(Fetch::new(refetching.watch.begin()));
        assert!(!refetching.is_due(begun + FLOOR), "nobody has asked since");
        for millis in (0..30_000_u64).step_by(100) {
            assert!(refetching.watch.ask(&millis.to_le_bytes(), &refetching.fetch), "it may be newer");
            assert!(!refetching.is_due(begun + Duration::from_millis(millis)));
        }
        assert!(refetching.is_due(begun + FLOOR));
        // As after one that did not: who asks is told to come again, and the floor holds.
        (refetching.tried, refetching.failed) = (Some(begun + FLOOR), true);
        assert!(refetching.watch.ask(b"a", &refetching.fetch));
        refetching.watch.asked.store(false, Ordering::Relaxed);
        assert!(!refetching.is_due(begun + 2 * FLOOR - Duration::from_millis(1)));
        assert!(refetching.is_due(begun + 2 * FLOOR));
        // Without being asked, now and then.
        refetching.failed = false;
        assert!(!refetching.is_due(begun + FLOOR + FETCH_EVERY - Duration::from_millis(1)));
        assert!(refetching.is_due(begun + FLOOR + FETCH_EVERY));
    }

    #[test]
    fn who_asks_while_a_set_is_on_its_way_is_not_refused_by_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let url: JwksUrl = format!("http://{address}/jwks").parse().expect("an address");
        let directory = tempfile::tempdir().expect("a directory");
        let config = Config { data: directory.path().to_owned(), ..Config::default() };
        let (mut refetching, _) = Refetching::of(&url, &config);
        let (watch, before) = (refetching.watch.clone(), refetching.fetch.clone());
        let [first, second, third] = watch.names_apart();
        assert!(watch.ask(&first, &before), "for which it is fetched");
        let provider = std::thread::spawn(move || {
            for asks in [true, false] {
                let (mut stream, _) = listener.accept().expect("it comes");
                let mut request = [0; 1024];
                _ = stream.read(&mut request).expect("it asks");
                // Its key is published right after this answer was made.
                assert!(!asks || watch.ask(&second, &before), "it is told to come back");
                let set = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
                let length = set.len();
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{set}"
                )
                .expect("it is answered");
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let metrics = KeyMetrics::default();
        runtime.block_on(refetching.fetch(&metrics)).expect("fetched").expect("news");
        let tried = refetching.tried.expect("just now");
        let ask = |refetching: &Refetching, name: &[u8]| refetching.watch.ask(name, &refetching.fetch);
        assert!(!ask(&refetching, &first), "what is not in it is no key");
        assert!(ask(&refetching, &second), "it is still told to come back");
        assert!(!refetching.is_due(tried + FLOOR - Duration::from_millis(1)));
        assert!(refetching.is_due(tried + FLOOR), "it is fetched once more for the second");
        runtime.block_on(refetching.fetch(&metrics)).expect("fetched");
        provider.join().expect("served");
        assert!(!ask(&refetching, &second) && !ask(&refetching, &first), "it is the same set, and newer");
        assert!(ask(&refetching, &third), "its key may have been published since");
        assert!(refetching.is_due(refetching.tried.expect("again") + FLOOR), "and so it is fetched");
        // After a while the others may be as well.
        assert!(ask(&refetching, &first));
    }

    #[test]
    fn a_shard_that_has_yet_to_take_the_new_set_says_nothing_is_no_key() {
        let watch = KeyWatch::new();
        let before = Fetch::new(watch.begin());
        assert!(watch.ask(b"a", &before));
        before.renew(watch.begin());
        assert!(!watch.ask(b"a", &before), "a fetch since had no such key");
        // The key is published, and the set that has it was fetched: another shard has taken it, and this one is about to.
        watch.grow_old();
        let _now = Fetch::new(watch.begin());
        assert!(watch.ask(b"a", &before), "it is told to come back");
    }
}
