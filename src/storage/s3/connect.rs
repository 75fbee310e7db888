//! The way to a bucket: endpoint, region, trust, proxy and keys, from the settings and the environment; and what is
//! told of it when a person asks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Certificate, NoProxy, Proxy};

use super::call::{Call, What};
use super::client::Client;
use super::credentials::Signing;
use super::failure::{Failure, Place};
use super::runtime::block;
use super::service::{Service, Shared};
use crate::config::model::S3Settings;
use crate::error::{Error, Kind, Result};
use crate::host::{Context, Env};

/// No connection takes longer to be made.
const CONNECT: Duration = Duration::from_secs(30);

/// Where a setting leaves the region out, and so does the environment.
const REGION: &str = "us-east-1";

/// Connects; the bucket itself is not asked yet.
pub(super) fn connect(settings: &S3Settings, cx: &Context) -> Result<Shared> {
    let place = place_of(settings, &cx.env);
    // A certificate can't hold for a bucket's name with a dot before the service's.
    let path_style = settings.path_style || (settings.endpoint.is_none() && settings.bucket.contains('.'));
    let signing = match &settings.keys {
        Some(keys) => Signing::with_keys(keys, &place, path_style, cx)?,
        None => {
            let (env, place) = (Arc::clone(&cx.env), place.clone());
            let fetched = block(&cx.cancel, async move {
                tokio::task::spawn_blocking(move || Signing::with_chain(&place, path_style, &env)).await
            })?;
            fetched.map_err(|error| Error::new(Kind::Internal, "can't look for access keys").source(error))??
        }
    };
    let client = Client {
        http: http(settings, &place, cx)?,
        signing,
        place,
        timeout: settings.timeout,
        retries: settings.retries,
        clock: Arc::clone(&cx.clock),
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
    Place { bucket: settings.bucket.clone(), endpoint, region }
}

/// The endpoint as the settings give it.
pub(super) fn endpoint_for_people(settings: &S3Settings) -> String {
    settings.endpoint.clone().unwrap_or_else(|| match &settings.region {
        Some(region) => format!("AWS, region {region}"),
        None => "AWS".to_owned(),
    })
}

fn http(settings: &S3Settings, place: &Place, cx: &Context) -> Result<reqwest::Client> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("db-backup-tools/", env!("CARGO_PKG_VERSION")))
        // A redirect's signature would be wrong: where the bucket is, the error says.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT.min(settings.timeout))
        .tcp_keepalive(Duration::from_secs(30))
        .no_proxy();
    let mut builder = match proxy(settings, place, cx)? {
        Some(proxy) => builder.proxy(proxy),
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

/// `proxy:`, or that of the environment, which is never used for this machine itself.
fn proxy(settings: &S3Settings, place: &Place, cx: &Context) -> Result<Option<Proxy>> {
    // The address may hold a password, and reqwest's error quotes it.
    let unusable = |written: &str| {
        Error::new(Kind::Config, format!("the proxy {written} is no address that can be used"))
            .hint("write it as http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")
    };
    if let Some(secret) = &settings.proxy {
        let address = secret.reveal(cx)?;
        return Proxy::all(address).map(Some).map_err(|_| unusable(&secret.written));
    }
    let host = place.endpoint.split("://").nth(1).unwrap_or_default();
    if host.starts_with("localhost") || host.starts_with("127.") || host.starts_with("[::1]") {
        return Ok(None);
    }
    let names = if place.endpoint.starts_with("https") { ["HTTPS_PROXY", "https_proxy"] } else { ["http_proxy", "http_proxy"] };
    let named = names.into_iter().chain(["ALL_PROXY", "all_proxy"]);
    let Some((name, address)) = named.filter_map(|name| Some((name, cx.env.get(name)?))).find(|(_, address)| !address.is_empty())
    else {
        return Ok(None);
    };
    let except = cx.env.get("NO_PROXY").or_else(|| cx.env.get("no_proxy")).and_then(NoProxy::from_string);
    Proxy::all(address).map(|proxy| Some(proxy.no_proxy(except))).map_err(|_| unusable(&format!("of the variable {name}")))
}

/// What the service can do, for a person.
pub(super) async fn features(service: &Shared) -> Result<Vec<String>, Failure> {
    let honours = service.honours().await?;
    let mut notes = vec![
        match honours.if_none_match {
            true => "a second write of a key is refused by the service".to_owned(),
            false => "the service does not know If-None-Match: a look comes before each write".to_owned(),
        },
        match honours.etag_is_md5 {
            true => "checksums are compared".to_owned(),
            false => "its ETags are no checksums: sizes are compared".to_owned(),
        },
    ];
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
