//! Whose keys sign the calls: those of the configuration, or those of the usual chain, in this order: environment,
//! credentials file, web identity, container, instance. Temporary keys are fetched anew before they expire.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use s3::creds::Credentials;
use s3::creds::error::CredentialsError;
use s3::{Bucket, Region};
use tokio::sync::RwLock;

use super::failure::{Failure, Place};
use super::tell::Teller;
use crate::config::model::S3Keys;
use crate::error::{Error, Kind, Result};
use crate::host::{Context, Env};

/// Temporary keys are replaced this long before they expire, or where they hold for less than four times that, when three
/// quarters of their time are over.
const EARLY: Duration = Duration::from_secs(300);

/// They are not asked for more often, whatever is said of their end: a clock may be wrong.
const LEAST: Duration = Duration::from_secs(1);

/// After a failure they are asked for again at the latest after this, as long as those that there are hold.
const AGAIN: Duration = Duration::from_secs(60);

/// How the session of a web identity is called.
const SESSION: &str = "db-backup-tools";

/// Makes buckets whose requests are signed with keys that hold.
pub(super) struct Signing {
    current: RwLock<Signed>,
    /// Where temporary keys come from again.
    chain: Option<Chain>,
    place: Place,
    path_style: bool,
}

/// No `Debug`: rust-s3's own shows the secret.
struct Signed {
    bucket: Bucket,
    life: Option<Life>,
    /// What no message may show.
    secrets: Vec<String>,
}

/// Of temporary keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    expires: SystemTime,
    /// When new ones are asked for.
    renew: SystemTime,
}

impl Life {
    fn new(fetched: SystemTime, expires: SystemTime) -> Self {
        let left = expires.duration_since(fetched).unwrap_or_default();
        Self { expires, renew: fetched + left.saturating_sub(EARLY.min(left / 4)).max(LEAST) }
    }

    /// New ones could not be had.
    fn renew_later(&mut self, now: SystemTime) {
        let left = self.expires.duration_since(now).unwrap_or_default();
        self.renew = now + (left / 4).clamp(LEAST, AGAIN);
    }
}

impl Signing {
    /// Those of the configuration; a secret is read now.
    pub(super) fn with_keys(keys: &S3Keys, place: &Place, path_style: bool, cx: &Context) -> Result<Self> {
        let token = keys.session_token.as_ref().map(|token| token.reveal(cx)).transpose()?;
        let (id, secret) = (keys.access_key_id.reveal(cx)?, keys.secret_access_key.reveal(cx)?);
        let found = Found { credentials: literal(&id, &secret, token.as_deref())?, expires: None };
        Self::build(found, None, place, path_style)
    }

    /// Those that the chain has now. Blocks on the network where an instance's or a container's service is asked.
    pub(super) fn with_chain(place: &Place, path_style: bool, env: &Env) -> Result<Self> {
        let chain = Chain::of(env);
        Self::build(chain.find()?, Some(chain), place, path_style)
    }

    fn build(found: Found, chain: Option<Chain>, place: &Place, path_style: bool) -> Result<Self> {
        let current = RwLock::new(sign(found, place, path_style)?);
        Ok(Self { current, chain, place: place.clone(), path_style })
    }

    /// A bucket that signs with keys which hold for a while.
    pub(super) async fn bucket(&self, tell: &Teller) -> Result<Bucket, Failure> {
        {
            let current = self.current.read().await;
            if !current.is_due() {
                return Ok(current.bucket.clone());
            }
        }
        let mut current = self.current.write().await;
        if let (Some(chain), true) = (&self.chain, current.is_due()) {
            match self.fetch(chain.clone()).await {
                Ok(new) => *current = new,
                Err(error) => current.goes_on(&error, tell)?,
            }
        }
        Ok(current.bucket.clone())
    }

    /// A service's answer without the keys, which some services repeat.
    pub(super) async fn hide(&self, answer: &[u8]) -> Vec<u8> {
        let mut text = String::from_utf8_lossy(answer).into_owned();
        for secret in &self.current.read().await.secrets {
            text = text.replace(secret.as_str(), "***");
        }
        text.into_bytes()
    }

    async fn fetch(&self, chain: Chain) -> Result<Signed> {
        let found = tokio::task::spawn_blocking(move || chain.find()).await;
        let found = found.map_err(|error| Error::new(Kind::Internal, "can't look for access keys").source(error))??;
        sign(found, &self.place, self.path_style)
    }
}

impl Signed {
    fn is_due(&self) -> bool {
        self.life.is_some_and(|life| life.renew <= now())
    }

    /// With the keys that there are, while they hold.
    fn goes_on(&mut self, error: &Error, tell: &Teller) -> Result<(), Failure> {
        let now = now();
        let error = error.restated(format!("can't renew the access keys: {}", error.cause())).kind_is(Kind::Connection);
        match &mut self.life {
            Some(life) if life.expires > now => {
                life.renew_later(now);
                tell.again(&error, "looking again", life.renew.duration_since(now).unwrap_or_default());
                Ok(())
            }
            // Nothing was asked of the storage's service.
            _ => Err(Failure { maybe_done: false, ..Failure::passing(error) }),
        }
    }
}

/// Real time, as the service that gave the keys means it: a test's clock does not count here.
#[allow(clippy::disallowed_methods)]
fn now() -> SystemTime {
    SystemTime::now()
}

struct Found {
    credentials: Credentials,
    expires: Option<SystemTime>,
}

/// Keys that rust-s3 does not try to refresh itself: it would block the runtime.
fn literal(id: &str, secret: &str, token: Option<&str>) -> Result<Credentials> {
    Credentials::new(Some(id), Some(secret), None, token, None)
        .map_err(|error| Error::new(Kind::Internal, format!("can't take the keys: {error}")))
}

fn sign(found: Found, place: &Place, path_style: bool) -> Result<Signed> {
    let region = Region::Custom { region: place.region.clone(), endpoint: place.endpoint.clone() };
    let Credentials { access_key, secret_key, session_token, .. } = &found.credentials;
    let secrets = [access_key, secret_key, session_token].into_iter().flatten().filter(|secret| !secret.is_empty());
    let secrets = secrets.cloned().collect();
    let bucket = Bucket::new(&place.bucket, region, found.credentials)
        .map_err(|error| Error::new(Kind::Internal, format!("can't set up the bucket: {error}")))?;
    let bucket = if path_style { bucket.with_path_style() } else { bucket };
    let life = found.expires.map(|expires| Life::new(now(), expires));
    Ok(Signed { bucket: *bucket, life, secrets })
}

/// The usual chain.
#[derive(Clone)]
struct Chain {
    env: Arc<Env>,
}

impl Chain {
    fn of(env: &Env) -> Self {
        Self { env: Arc::new(env.clone()) }
    }

    fn find(&self) -> Result<Found> {
        if let (Some(id), Some(secret)) = (self.set("AWS_ACCESS_KEY_ID"), self.set("AWS_SECRET_ACCESS_KEY")) {
            return Ok(Found { credentials: literal(id, secret, self.set("AWS_SESSION_TOKEN"))?, expires: None });
        }
        let mut tried = vec!["the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set".to_owned()];
        for fetch in [Self::file, Self::web_identity, Self::container, Self::instance] {
            match fetch(self) {
                Ok(credentials) => return found(&credentials),
                Err(why_not) => tried.push(why_not),
            }
        }
        Err(Error::new(Kind::Config, format!("there are no access keys: {}", tried.join("; ")))
            .hint("give `access_key_id:` and `secret_access_key:`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"))
    }

    /// A variable that is more than empty.
    fn set(&self, name: &str) -> Option<&str> {
        self.env.get(name).filter(|value| !value.is_empty())
    }

    fn file(&self) -> Result<Credentials, String> {
        let named = self.env.get_os("AWS_SHARED_CREDENTIALS_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
        let at_home = || Some(Path::new(self.env.get_os("HOME")?).join(".aws/credentials"));
        let path = named.or_else(at_home).ok_or("there is no HOME with a credentials file")?;
        if !path.exists() {
            return Err(format!("there is no {}", path.display()));
        }
        let profile = self.set("AWS_PROFILE").unwrap_or("default");
        Credentials::from_credentials_file(&path, Some(profile)).map_err(|error| match error {
            CredentialsError::ConfigNotFound => format!("{} has no profile [{profile}]", path.display()),
            CredentialsError::ConfigMissingAccessKeyId | CredentialsError::ConfigMissingSecretKey => {
                format!("the profile [{profile}] in {} has not both keys", path.display())
            }
            // What it says of a line may show a part of it.
            CredentialsError::Ini(_) => format!("{} can't be read as a credentials file", path.display()),
            other => format!("{}: {other}", path.display()),
        })
    }

    /// By the process's own environment.
    fn web_identity(&self) -> Result<Credentials, String> {
        self.set("AWS_ROLE_ARN").ok_or("no web identity (AWS_ROLE_ARN is not set)")?;
        Credentials::from_sts_env(SESSION).map_err(|error| match error {
            CredentialsError::Env(_) => {
                "the web identity: AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE count in the process's own environment alone"
                    .to_owned()
            }
            other => format!("the web identity: {other}"),
        })
    }

    /// By the process's own environment.
    fn container(&self) -> Result<Credentials, String> {
        let names = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
        let name = names
            .into_iter()
            .find(|name| self.set(name).is_some())
            .ok_or_else(|| format!("no container's role ({} is not set)", names[1]))?;
        Credentials::from_container_credentials_provider().map_err(|error| match error {
            CredentialsError::NotContainer => {
                format!("the container's role: {name} counts in the process's own environment alone")
            }
            other => format!("the container's role: {other}"),
        })
    }

    #[allow(clippy::unused_self)] // one of a kind with those above
    fn instance(&self) -> Result<Credentials, String> {
        let found = Credentials::from_instance_metadata_v2(false).or_else(|_| Credentials::from_instance_metadata(false));
        found.map_err(|error| match error {
            CredentialsError::NotEc2 => "no instance's role (this is no EC2 machine)".to_owned(),
            other => format!("the instance's role: {other}"),
        })
    }
}

fn found(credentials: &Credentials) -> Result<Found> {
    let token = credentials.session_token.as_deref().or(credentials.security_token.as_deref());
    let (Some(id), Some(secret)) = (&credentials.access_key, &credentials.secret_key) else {
        return Err(Error::new(Kind::Config, "the access keys that were found are not whole"));
    };
    let expires = credentials.expiration.as_ref().map(|at| SystemTime::from(at.0));
    Ok(Found { credentials: literal(id, secret, token)?, expires })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn keys_are_renewed_before_they_expire_and_not_at_every_call() {
        let renewed = |expires| Life::new(at(10_000), at(expires)).renew.duration_since(at(10_000)).unwrap().as_secs();
        assert_eq!(renewed(13_600), 3300);
        assert_eq!(renewed(10_400), 300);
        assert_eq!(renewed(10_008), 6);
        // Expired already, by the clock of this machine.
        assert_eq!([renewed(10_000), renewed(9000)], [1, 1]);
    }

    #[test]
    fn where_new_keys_can_not_be_had_they_are_looked_for_again_soon() {
        let mut life = Life::new(at(10_000), at(13_600));
        life.renew_later(at(13_300));
        assert_eq!(life.renew, at(13_360));
        life.renew_later(at(13_592));
        assert_eq!(life.renew, at(13_594));
        life.renew_later(at(13_600));
        assert_eq!(life.renew, at(13_601));
    }
}
