//! Whose keys sign the calls: those of the configuration, or those of the usual chain, in this order: environment,
//! credentials file, web identity, container, instance. Temporary keys are fetched anew before they expire.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use s3::creds::Credentials;
use s3::{Bucket, Region};
use tokio::sync::RwLock;

use super::failure::Place;
use crate::config::model::S3Keys;
use crate::error::{Error, Kind, Result};
use crate::host::{Context, Env};

/// Temporary keys are replaced this long before they expire.
const EARLY: Duration = Duration::from_secs(300);

/// How the session of a web identity is called.
const SESSION: &str = "db-backup-tools";

/// Makes buckets whose requests are signed with keys that hold.
pub(super) struct Signing {
    current: RwLock<Arc<Signed>>,
    /// Where temporary keys come from again.
    chain: Option<Chain>,
    place: Place,
    path_style: bool,
}

/// No `Debug`: rust-s3's own shows the secret.
struct Signed {
    bucket: Bucket,
    expires: Option<SystemTime>,
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
        let current = RwLock::new(Arc::new(sign(found, place, path_style)?));
        Ok(Self { current, chain, place: place.clone(), path_style })
    }

    /// A bucket that signs with keys which hold for a while.
    pub(super) async fn bucket(&self) -> Result<Bucket> {
        let current = Arc::clone(&*self.current.read().await);
        let Some(chain) = self.chain.as_ref().filter(|_| current.ends_soon()) else { return Ok(current.bucket.clone()) };
        let mut current = self.current.write().await;
        if current.ends_soon() {
            let chain = chain.clone();
            let found = tokio::task::spawn_blocking(move || chain.find()).await;
            let found = found.map_err(|error| Error::new(Kind::Internal, "can't fetch new keys").source(error))??;
            *current = Arc::new(sign(found, &self.place, self.path_style)?);
        }
        Ok(current.bucket.clone())
    }
}

impl Signed {
    fn ends_soon(&self) -> bool {
        self.expires.is_some_and(|at| at.duration_since(now()).map_or(true, |left| left < EARLY))
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
    let bucket = Bucket::new(&place.bucket, region, found.credentials)
        .map_err(|error| Error::new(Kind::Internal, format!("can't set up the bucket: {error}")))?;
    let bucket = if path_style { bucket.with_path_style() } else { bucket };
    Ok(Signed { bucket: *bucket, expires: found.expires })
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
        if let (Some(id), Some(secret)) = (self.env.get("AWS_ACCESS_KEY_ID"), self.env.get("AWS_SECRET_ACCESS_KEY")) {
            return Ok(Found { credentials: literal(id, secret, self.env.get("AWS_SESSION_TOKEN"))?, expires: None });
        }
        let mut tried = vec!["the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set".to_owned()];
        type Fetch = fn(&Chain) -> Option<std::result::Result<Credentials, s3::creds::error::CredentialsError>>;
        let sources: [(&str, Fetch); 4] = [
            ("the credentials file", |chain| chain.file()),
            ("the web identity", |chain| chain.env.get("AWS_ROLE_ARN").map(|_| Credentials::from_sts_env(SESSION))),
            ("the container's role", |chain| chain.container()),
            ("the instance's role", |_| Some(instance())),
        ];
        for (name, fetch) in sources {
            match fetch(self) {
                Some(Ok(credentials)) => return found(credentials),
                Some(Err(error)) => tried.push(format!("{name}: {error}")),
                None => {}
            }
        }
        Err(Error::new(Kind::Config, format!("there are no access keys: {}", tried.join("; ")))
            .hint("give `access_key_id:` and `secret_access_key:`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"))
    }

    fn file(&self) -> Option<std::result::Result<Credentials, s3::creds::error::CredentialsError>> {
        let named = self.env.get_os("AWS_SHARED_CREDENTIALS_FILE").map(std::path::PathBuf::from);
        let path = named.or_else(|| Some(std::path::Path::new(self.env.get_os("HOME")?).join(".aws/credentials")))?;
        path.exists().then(|| Credentials::from_credentials_file(path, self.env.get("AWS_PROFILE")))
    }

    fn container(&self) -> Option<std::result::Result<Credentials, s3::creds::error::CredentialsError>> {
        let named = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
        named.iter().any(|name| self.env.get(name).is_some()).then(Credentials::from_container_credentials_provider)
    }
}

fn instance() -> std::result::Result<Credentials, s3::creds::error::CredentialsError> {
    Credentials::from_instance_metadata_v2(false).or_else(|_| Credentials::from_instance_metadata(false))
}

fn found(credentials: Credentials) -> Result<Found> {
    let token = credentials.session_token.as_deref().or(credentials.security_token.as_deref());
    let (Some(id), Some(secret)) = (&credentials.access_key, &credentials.secret_key) else {
        return Err(Error::new(Kind::Config, "the access keys that were found are not whole"));
    };
    let expires = credentials.expiration.as_ref().map(|at| SystemTime::from(at.0));
    Ok(Found { credentials: literal(id, secret, token)?, expires })
}
