//! The way to a bucket: endpoint, region, trust, proxy and keys, from the settings and the environment; and what is
//! told of it when a person asks.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Certificate, NoProxy, Proxy, Url};

use super::call::{Call, What};
use super::client::Client;
use super::credentials::Signing;
use super::failure::{Failure, Place};
use super::objects;
use super::runtime::block;
use super::service::{Service, Shared};
use super::tell::Teller;
use crate::config::model::S3Settings;
use crate::error::{Error, Kind, Result};
use crate::host::{Context, Env};

/// No connection takes longer to be made.
const CONNECT: Duration = Duration::from_secs(30);

/// Where a setting leaves the region out, and so does the environment.
const REGION: &str = "us-east-1";

/// Connects; the bucket itself is not asked yet.
pub(super) fn connect(settings: &S3Settings, cx: &Context) -> Result<Shared> {
    let mut place = place_of(settings, &cx.env);
    let way = way(settings, &place, cx)?;
    place.proxy = way.as_ref().map(Way::for_people);
    // A certificate can't hold for a bucket's name with a dot before the service's.
    let path_style = settings.path_style || (settings.endpoint.is_none() && settings.bucket.contains('.'));
    let signing = if let Some(keys) = &settings.keys {
        Signing::with_keys(keys, &place, path_style, cx)?
    } else {
        let (env, place) = (Arc::clone(&cx.env), place.clone());
        let fetched = block(&cx.cancel, async move {
            tokio::task::spawn_blocking(move || Signing::with_chain(&place, path_style, &env)).await
        })?;
        fetched.map_err(|error| Error::new(Kind::Internal, "can't look for access keys").source(error))??
    };
    let client = Client {
        http: http(settings, way)?,
        signing,
        place,
        timeout: settings.timeout,
        retries: settings.retries,
        clock: Arc::clone(&cx.clock),
        tell: Teller::new(cx),
        ahead: Mutex::new(None),
    };
    Ok(Arc::new(Service::new(client, settings)?))
}

fn place_of(settings: &S3Settings, env: &Env) -> Place {
    let of_env = || env.get("AWS_REGION").or_else(|| env.get("AWS_DEFAULT_REGION")).filter(|region| !region.is_empty());
    let region = settings.region.as_deref().or_else(of_env).unwrap_or(REGION).to_owned();
    let endpoint = settings.endpoint.clone().unwrap_or_else(|| {
        let country = if region.starts_with("cn-") { ".cn" } else { "" };
        format!("https://s3.{region}.amazonaws.com{country}")
    });
    Place { bucket: settings.bucket.clone(), endpoint, region, proxy: None }
}

/// The endpoint as the settings give it.
pub(super) fn endpoint_for_people(settings: &S3Settings) -> String {
    settings.endpoint.clone().unwrap_or_else(|| match &settings.region {
        Some(region) => format!("AWS, region {region}"),
        None => "AWS".to_owned(),
    })
}

fn http(settings: &S3Settings, way: Option<Way>) -> Result<reqwest::Client> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("db-backup-tools/", env!("CARGO_PKG_VERSION")))
        // A redirect's signature would be wrong: where the bucket is, the error says.
        .redirect(reqwest::redirect::Policy::none())
        // Less than the limit of silence, which would end it with fewer words.
        .connect_timeout(CONNECT.min(settings.timeout.mul_f64(0.9)))
        .tcp_keepalive(Duration::from_secs(30))
        .no_proxy();
    let mut builder = match way {
        Some(way) => builder.proxy(way.proxy),
        None => builder,
    };
    if let Some(path) = &settings.ca_file {
        let unusable = |cause: String| {
            Error::new(Kind::Config, format!("the certificates in {} can't be used: {cause}", path.display()))
                .hint("`ca_file:` is a file of certificates in PEM")
        };
        let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))?;
        if certificates.is_empty() {
            return Err(unusable("it holds none".into()));
        }
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|error| Error::new(Kind::Internal, "can't set up HTTPS").source(error.without_url()))
}

/// A proxy on the way.
struct Way {
    proxy: Proxy,
    address: Url,
    /// What names it.
    named: String,
}

impl Way {
    /// The error does not quote the address: it may hold a password.
    fn new(address: &str, except: Option<NoProxy>, named: String, written: &str) -> Result<Self> {
        let unusable = || {
            Error::new(Kind::Config, format!("the proxy {written} is no address that can be used"))
                .hint("write it as http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")
        };
        // As other programs take it.
        let address = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let url = Url::parse(&address).ok().filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(unusable)?;
        let proxy = Proxy::all(url.clone()).map_err(|_| unusable())?;
        Ok(Self { proxy: proxy.no_proxy(except), address: url, named })
    }

    fn for_people(&self) -> String {
        let host = self.address.host_str().unwrap_or_default();
        let port = self.address.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{host}{port} ({})", self.address.scheme(), self.named)
    }
}

/// `proxy:`, or that of the environment, which is never used for this machine itself.
fn way(settings: &S3Settings, place: &Place, cx: &Context) -> Result<Option<Way>> {
    if let Some(secret) = &settings.proxy {
        let address = secret.reveal(cx)?;
        return Way::new(&address, None, "`proxy:`".to_owned(), &secret.written).map(Some);
    }
    if is_this_machine(&place.endpoint) {
        return Ok(None);
    }
    // Not HTTP_PROXY: of a web server's child, a client's header sets it.
    let own: &[&str] = if place.endpoint.starts_with("https") { &["HTTPS_PROXY", "https_proxy"] } else { &["http_proxy"] };
    let set = |name: &str| cx.env.get(name).filter(|value| !value.is_empty());
    let mut variables = own.iter().chain(&["ALL_PROXY", "all_proxy"]);
    let Some((name, address)) = variables.find_map(|name| Some((name, set(name)?))) else { return Ok(None) };
    let except = set("NO_PROXY").or_else(|| set("no_proxy"));
    let unless = if except.is_some() { ", unless NO_PROXY names the service" } else { "" };
    let named = format!("the variable {name}{unless}");
    Way::new(address, except.and_then(NoProxy::from_string), named, &format!("of the variable {name}")).map(Some)
}

fn is_this_machine(endpoint: &str) -> bool {
    let Ok(url) = Url::parse(endpoint) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
    host == "localhost" || host.ends_with(".localhost") || host.parse().is_ok_and(is_loopback)
}

/// What the service can do, for a person.
pub(super) async fn features(service: &Shared) -> Result<Vec<String>, Failure> {
    let honours = service.honours().await?;
    let mut notes = vec![
        if honours.if_none_match {
            "a second write of a key is refused by the service".to_owned()
        } else {
            "the service does not know If-None-Match: a look comes before each write".to_owned()
        },
        if honours.etag_is_md5 {
            "checksums are compared".to_owned()
        } else {
            "its ETags are no checksums: sizes are compared".to_owned()
        },
    ];
    objects::begin_and_abort(service, &service.marker()).await?;
    notes.push("uploads in parts are begun and given up".to_owned());
    let listed = service.client.ask(&Call::new(uploads_below(service), "")).await;
    notes.push(match listed {
        Ok(_) => "unfinished uploads are listed".to_owned(),
        Err(failure) if failure.passes => return Err(failure),
        Err(_) => "unfinished uploads can't be listed: have a lifecycle rule of the bucket abort them".to_owned(),
    });
    Ok(notes)
}

fn uploads_below(service: &Service) -> What {
    What::ListUploads { prefix: service.prefix.clone(), key: None, upload: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_only_begins_like_this_machine_is_another() {
        for here in
            ["http://localhost:9000", "https://127.0.0.1", "http://127.1.2.3:80/x", "http://[::1]:9", "http://s3.localhost"]
        {
            assert!(is_this_machine(here), "{here}");
        }
        for elsewhere in ["http://localhost.example.org", "https://127.0.0.1.example.org", "http://10.0.0.1", "https://[fd00::1]"]
        {
            assert!(!is_this_machine(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn a_proxy_is_told_of_without_its_password() {
        let way = Way::new("http://u:hunter2@proxy.example.org:3128", None, "`proxy:`".into(), "***").unwrap();
        assert_eq!(way.for_people(), "http://proxy.example.org:3128 (`proxy:`)");
        let error = Way::new("socks5://u:hunter2@proxy", None, "`proxy:`".into(), "***").err().unwrap();
        assert_eq!(error.to_string(), "the proxy *** is no address that can be used");
    }
}
