//! The calls that are made: each as a value, so that every try signs it anew, and as words for a message.

use std::fmt;

use bytes::Bytes;
use http::HeaderMap;
use s3::command::{Command, Multipart};
use s3::serde_types::{CompleteMultipartUploadData, DeleteObjectsRequest, ObjectIdentifier, Part};
use s3::signing::uri_encode;

/// One call.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) what: What,
    /// The object's whole key; of a call for the bucket, empty.
    pub(super) object: String,
    /// Headers beside those of the signature.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// What an object is, without its bytes.
    Head,
    /// The bytes from `first` to `last`, both of them with it.
    Get {
        first: u64,
        last: u64,
    },
    Put,
    Initiate,
    UploadPart {
        number: u32,
        upload: String,
    },
    Complete {
        upload: String,
        parts: Vec<(u32, String)>,
    },
    Abort {
        upload: String,
    },
    ListParts {
        upload: String,
        after: Option<u32>,
    },
    ListUploads {
        prefix: String,
        key: Option<String>,
        upload: Option<String>,
    },
    List {
        prefix: String,
        token: Option<String>,
        after: Option<String>,
        most: usize,
        encoded: bool,
    },
    DeleteOne,
    Delete(Vec<String>),
}

/// Short: a body is a dump's bytes.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call {{ {:?} {:?}, body: {} bytes }}", self.what, self.object, self.body.len())
    }
}

/// What tells an answer from that of any web server.
pub(super) enum Expected {
    /// The name of the XML's root.
    Root(&'static str),
    /// An `ETag` header.
    ETag,
    Anything,
}

impl What {
    pub(super) fn answer(&self) -> Expected {
        match self {
            Self::Head | Self::Put | Self::UploadPart { .. } => Expected::ETag,
            Self::Initiate => Expected::Root("InitiateMultipartUploadResult"),
            Self::Complete { .. } => Expected::Root("CompleteMultipartUploadResult"),
            Self::ListParts { .. } => Expected::Root("ListPartsResult"),
            Self::ListUploads { .. } => Expected::Root("ListMultipartUploadsResult"),
            Self::List { .. } => Expected::Root("ListBucketResult"),
            Self::Delete(_) => Expected::Root("DeleteResult"),
            Self::Get { .. } | Self::Abort { .. } | Self::DeleteOne => Expected::Anything,
        }
    }
}

impl Call {
    pub(super) fn new(what: What, object: impl Into<String>) -> Self {
        Self { what, object: object.into(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    #[must_use]
    pub(super) fn headers(self, headers: HeaderMap) -> Self {
        Self { headers, ..self }
    }

    #[must_use]
    pub(super) fn body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }

    /// `can't ... at ENDPOINT`, with the bucket and the key.
    pub(super) fn describe(&self, bucket: &str) -> String {
        let object = &self.object;
        match &self.what {
            What::Head => format!("look at {object} in bucket {bucket}"),
            What::Get { .. } => format!("read {object} in bucket {bucket}"),
            What::Put => format!("write {object} to bucket {bucket}"),
            What::Initiate => format!("begin the upload of {object} to bucket {bucket}"),
            What::UploadPart { number, .. } => format!("write part {number} of {object} to bucket {bucket}"),
            What::Complete { .. } => format!("complete the upload of {object} to bucket {bucket}"),
            What::Abort { .. } => format!("abort the upload of {object} to bucket {bucket}"),
            What::ListParts { .. } => format!("list the parts of {object} in bucket {bucket}"),
            What::ListUploads { .. } => format!("list the uploads of bucket {bucket}"),
            What::List { .. } => format!("list bucket {bucket}"),
            What::DeleteOne => format!("delete {object} from bucket {bucket}"),
            What::Delete(keys) if keys.len() == 1 => format!("delete {} from bucket {bucket}", keys[0]),
            What::Delete(keys) => format!("delete {} objects from bucket {bucket}", keys.len()),
        }
    }

    /// The same for rust-s3.
    pub(super) fn command(&self) -> Command<'_> {
        match &self.what {
            What::Head => Command::HeadObject,
            What::Get { first, last } => Command::GetObjectRange { start: *first, end: Some(*last) },
            What::Put => self.put(None),
            What::UploadPart { number, upload } => self.put(Some(Multipart::new(*number, upload))),
            What::Initiate => Command::InitiateMultipartUpload { content_type: CONTENT_TYPE },
            What::Complete { upload, parts } => {
                let part = |(number, etag): &(u32, String)| Part { part_number: *number, etag: etag.clone() };
                let data = CompleteMultipartUploadData { parts: parts.iter().map(part).collect() };
                Command::CompleteMultipartUpload { upload_id: upload, data }
            }
            What::Abort { upload } => Command::AbortMultipartUpload { upload_id: upload },
            // rust-s3 has no command for it: the query makes it one.
            What::ListParts { .. } => Command::GetObject,
            What::ListUploads { prefix, key, upload } => Command::ListMultipartUploads {
                prefix: Some(prefix),
                delimiter: None,
                key_marker: key.clone(),
                upload_id_marker: upload.clone(),
                max_uploads: Some(1000),
            },
            What::List { prefix, token, after, most, .. } => Command::ListObjectsV2 {
                prefix: prefix.clone(),
                delimiter: None,
                continuation_token: token.clone(),
                start_after: after.clone(),
                max_keys: Some(*most),
            },
            What::DeleteOne => Command::DeleteObject,
            What::Delete(keys) => {
                let object = |key: &String| ObjectIdentifier { key: key.clone(), version_id: None };
                Command::DeleteObjects { data: DeleteObjectsRequest { objects: keys.iter().map(object).collect(), quiet: false } }
            }
        }
    }

    fn put<'a>(&'a self, multipart: Option<Multipart<'a>>) -> Command<'a> {
        Command::PutObject { content: &self.body, content_type: CONTENT_TYPE, custom_headers: None, multipart }
    }

    /// What stands in the query beside what rust-s3 puts there.
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        match &self.what {
            What::ListParts { upload, after } => {
                let mut query = vec![("uploadId", upload.clone()), ("max-parts", "1000".to_owned())];
                query.extend(after.map(|after| ("part-number-marker", after.to_string())));
                query
            }
            What::List { encoded: true, .. } => vec![("encoding-type", "url".to_owned())],
            _ => Vec::new(),
        }
    }
}

const CONTENT_TYPE: &str = "application/octet-stream";

/// An upload's id as it may stand in a query: rust-s3 puts it there as it is.
pub(super) fn upload_for_query(id: &str) -> String {
    uri_encode(id, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_shows_no_bytes_of_what_it_sends() {
        let mut call = Call::new(What::Put, "web1/x").body(Bytes::from_static(b"hunter2"));
        call.headers.insert("x-amz-security-token", http::HeaderValue::from_static("hunter2"));
        assert_eq!(format!("{call:?}"), r#"Call { Put "web1/x", body: 7 bytes }"#);
    }
}
