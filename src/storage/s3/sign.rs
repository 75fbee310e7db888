//! What rust-s3 leaves to be mended in the headers of a signed request.

use hmac::Mac as _;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use s3::error::S3Error;
use s3::request::Request;
use s3::signing::{HmacSha256, canonical_query_string, canonical_uri_string};

use crate::names::hex;

/// Headers that let their reader in: no `Debug` of a request shows them.
const SECRET: [&str; 2] = ["authorization", "x-amz-security-token"];

/// The headers of a request, rightly signed.
pub(super) async fn headers<T>(request: &T) -> Result<HeaderMap, S3Error>
where
    T: Request + Sync,
{
    let mut headers = request.headers().await?;
    if let Some(authorization) = corrected(request, &headers).await? {
        headers.insert(AUTHORIZATION, authorization);
    }
    for name in SECRET {
        if let Some(value) = headers.get_mut(name) {
            value.set_sensitive(true);
        }
    }
    Ok(headers)
}

/// rust-s3 0.38 sorts the lines `name:value` that it signs, where Signature Version 4 sorts the names: a name that another
/// begins with, `x-amz-server-side-encryption` and `...-aws-kms-key-id`, makes that another order, and a wrong signature.
async fn corrected<T>(request: &T, headers: &HeaderMap) -> Result<Option<HeaderValue>, S3Error>
where
    T: Request + Sync,
{
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let authorization = text("authorization");
    let Some((before, _)) = authorization.split_once("Signature=") else { return Ok(None) };
    let Some(names) = before.split("SignedHeaders=").nth(1).and_then(|rest| rest.split(',').next()) else { return Ok(None) };
    let lines: Vec<String> = names.split(';').map(|name| format!("{name}:{}", text(name).trim())).collect();
    if lines.is_sorted() {
        return Ok(None);
    }
    let url = request.url()?;
    let (method, path, query) =
        (request.command().http_verb().to_string(), canonical_uri_string(&url), canonical_query_string(&url));
    let (lines, digest) = (lines.join("\n"), text("x-amz-content-sha256"));
    let canonical = format!("{method}\n{path}\n{query}\n{lines}\n\n{names}\n{digest}");
    let mut hmac = HmacSha256::new_from_slice(&request.signing_key().await?)?;
    hmac.update(request.string_to_sign(&canonical)?.as_bytes());
    let signature = hex(&hmac.finalize().into_bytes());
    Ok(Some(format!("{before}Signature={signature}").parse()?))
}
