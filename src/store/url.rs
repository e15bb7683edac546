//! Which storages a store is made of.
//!
//! Separate from opening them, so that a configuration can be checked without
//! touching anything. Invariant: a [`StorageUrl`] holds no credentials, and a
//! text that is refused is not repeated in the error.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use crate::error::{Error, ErrorKind, Result};

/// Where one storage is.
///
/// * `file:///var/lib/strongroom`, or a plain path, which is made absolute;
/// * `memory://`: gone when it is dropped, for tests;
/// * `s3://bucket/prefix` (feature `aws`, see the module `s3`);
/// * `gs://bucket/prefix` (feature `gcp`);
/// * `az://container/prefix` or `azure://…` (feature `azure`).
#[derive(Clone, PartialEq, Eq)]
pub struct StorageUrl(pub(super) Place);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Directory(PathBuf),
    Memory,
    Bucket { cloud: Cloud, bucket: String, prefix: object_store::path::Path },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cloud {
    S3,
    Gcs,
    Azure,
}

impl Cloud {
    fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

/// One of the three storages of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StorageRole {
    /// Blobs and uses of names.
    Blobs,
    /// Rings, epochs and labels.
    Keys,
    /// The audit log.
    Audit,
}

impl StorageRole {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Blobs, Self::Keys, Self::Audit];

    /// Its name, which is also its place under a common root.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::Keys => "keys",
            Self::Audit => "audit",
        }
    }
}

impl fmt::Display for StorageRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The storages of one store: all under one root by default, at its `blobs/`,
/// `keys/` and `audit/`, or each on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageUrls {
    /// What every storage without a URL of its own lies under.
    pub root: StorageUrl,
    /// The blobs, if elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blobs: Option<StorageUrl>,
    /// Rings, epochs and labels, if elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<StorageUrl>,
    /// The audit log, if elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<StorageUrl>,
}

impl StorageUrls {
    /// All three under one root.
    #[must_use]
    pub fn new(root: StorageUrl) -> Self {
        Self { root, blobs: None, keys: None, audit: None }
    }

    /// Where one of the storages is: at a URL of its own, or under the root.
    #[must_use]
    pub fn of(&self, role: StorageRole) -> StorageUrl {
        let own = match role {
            StorageRole::Blobs => &self.blobs,
            StorageRole::Keys => &self.keys,
            StorageRole::Audit => &self.audit,
        };
        own.clone().unwrap_or_else(|| self.root.under(role.as_str()))
    }
}

impl StorageUrl {
    /// A directory, made absolute. It need not exist.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an empty path, or where the current
    /// directory is gone.
    pub fn directory(path: impl AsRef<Path>) -> Result<Self> {
        let path = std::path::absolute(path)
            .map_err(|error| invalid("the store's path cannot be made absolute").with_source(error))?;
        Ok(Self(Place::Directory(path)))
    }

    /// A storage in memory.
    #[must_use]
    pub fn memory() -> Self {
        Self(Place::Memory)
    }

    /// The path, if it is a directory.
    #[must_use]
    pub fn as_directory(&self) -> Option<&Path> {
        match &self.0 {
            Place::Directory(path) => Some(path),
            Place::Memory | Place::Bucket { .. } => None,
        }
    }

    /// The bucket and the prefix in it, if it is on S3. The prefix has no slash
    /// at its ends, and is empty for the whole bucket.
    #[must_use]
    pub fn as_s3(&self) -> Option<(&str, &str)> {
        match &self.0 {
            Place::Bucket { cloud: Cloud::S3, bucket, prefix } => Some((bucket, prefix.as_ref())),
            Place::Directory(_) | Place::Memory | Place::Bucket { .. } => None,
        }
    }

    /// A place below this one.
    fn under(&self, name: &str) -> Self {
        Self(match &self.0 {
            Place::Directory(path) => Place::Directory(path.join(name)),
            Place::Memory => Place::Memory,
            Place::Bucket { cloud, bucket, prefix } => {
                Place::Bucket { cloud: *cloud, bucket: bucket.clone(), prefix: prefix.clone().join(name) }
            }
        })
    }
}

impl FromStr for StorageUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None => return Self::directory(text),
            // A path with a colon further down: `./a:b`.
            Some((before, _)) if before.contains('/') => return Self::directory(text),
            Some((_, after)) if after.starts_with("//") => {}
            Some(_) => return Err(invalid("a storage's URL is `scheme://…`, and a path with a colon `./…`")),
        }
        let url = Url::parse(text).map_err(|_| invalid("this is not a URL of a storage"))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(invalid(
                "a storage's URL holds no credentials and no query: put them into the environment",
            ));
        }
        if url.port().is_some() || url.fragment().is_some() {
            return Err(invalid("a storage's URL has no port and no `#`"));
        }
        let cloud = match url.scheme() {
            "file" => return file(&url),
            "memory" if !url.has_host() && url.path().is_empty() => return Ok(Self::memory()),
            "memory" => return Err(invalid("storage in memory is `memory://` and nothing more")),
            "s3" => Cloud::S3,
            "gs" => Cloud::Gcs,
            "az" | "azure" => Cloud::Azure,
            _ => {
                return Err(invalid("a storage's URL begins with file://, memory://, s3://, gs:// or az://"));
            }
        };
        let bucket = url.host_str().unwrap_or_default();
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-._".contains(&c);
        if !(3..=222).contains(&bucket.len()) || !bucket.bytes().all(plain) {
            return Err(invalid("a storage's URL names a bucket: 3 or more of a-z, 0-9, '-', '.', '_'"));
        }
        let prefix = object_store::path::Path::from_url_path(url.path())
            .map_err(|_| invalid("the prefix in a storage's URL is not a path"))?;
        Ok(Self(Place::Bucket { cloud, bucket: bucket.to_owned(), prefix }))
    }
}

fn file(url: &Url) -> Result<StorageUrl> {
    let path = url
        .to_file_path()
        .map_err(|()| invalid("a file URL is `file:///absolute/path`, with three slashes"))?;
    StorageUrl::directory(path)
}

fn invalid(sentence: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, sentence)
}

impl fmt::Display for StorageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Directory(path) => match Url::from_file_path(path) {
                Ok(url) => f.pad(url.as_str()),
                Err(()) => write!(f, "{}", path.display()),
            },
            Place::Memory => f.pad("memory://"),
            Place::Bucket { cloud, bucket, prefix } if prefix.as_ref().is_empty() => {
                write!(f, "{}://{bucket}", cloud.scheme())
            }
            Place::Bucket { cloud, bucket, prefix } => write!(f, "{}://{bucket}/{prefix}", cloud.scheme()),
        }
    }
}

impl fmt::Debug for StorageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorageUrl({self})")
    }
}

impl Serialize for StorageUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StorageUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(from: &str) -> String {
        from.parse::<StorageUrl>().unwrap().to_string()
    }

    #[test]
    fn urls_have_one_text() {
        for (from, to) in [
            ("file:///a/b", "file:///a/b"),
            ("/a/b", "file:///a/b"),
            ("/a b/#1", "file:///a%20b/%231"),
            ("file:///a%20b/%231", "file:///a%20b/%231"),
            ("/a:b", "file:///a:b"),
            ("memory://", "memory://"),
            ("s3://my-bucket", "s3://my-bucket"),
            ("s3://my-bucket/", "s3://my-bucket"),
            ("s3://my-bucket/a/b/", "s3://my-bucket/a/b"),
            ("gs://my_bucket/a", "gs://my_bucket/a"),
            ("azure://container", "az://container"),
        ] {
            assert_eq!(text(from), to, "{from}");
            assert_eq!(text(to), to);
        }
        let here = std::env::current_dir().unwrap();
        assert_eq!("./x:y".parse::<StorageUrl>().unwrap().0, Place::Directory(here.join("x:y")));
        assert_eq!("x".parse::<StorageUrl>().unwrap().0, Place::Directory(here.join("x")));
    }

    #[test]
    fn what_is_refused_is_not_repeated() {
        for bad in [
            "s3://KEY:SECRET@my-bucket/a",
            "s3://KEY@my-bucket",
            "s3://my-bucket/a?token=SECRET",
            "s3://my-bucket:99/SECRET",
            "s3://my-bucket/SECRET#x",
            "s3://SECRET/a",
            "s3://",
            "s3:///SECRET",
            "s3:SECRET",
            "https://SECRET.s3.amazonaws.com",
            "file://SECRET/path",
            "memory://SECRET",
            "s3://ab",
            "s3://my-bucket/a//SECRET",
            "SECRET://x y",
            "",
        ] {
            let error = bad.parse::<StorageUrl>().expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
            assert!(!format!("{error:?}").contains("SECRET"), "{error:?}");
        }
    }

    #[test]
    fn each_storage_has_its_place() {
        let urls: StorageUrls =
            serde_json::from_str(r#"{"root":"s3://my-bucket/a","audit":"/var/log"}"#).unwrap();
        assert_eq!(urls.of(StorageRole::Keys).as_s3(), Some(("my-bucket", "a/keys")));
        assert_eq!(urls.of(StorageRole::Audit).as_directory(), Some(Path::new("/var/log")));
        assert_eq!(urls.of(StorageRole::Audit).as_s3(), None);
        let urls = StorageUrls::new("/srv".parse().unwrap());
        assert_eq!(urls.of(StorageRole::Blobs).as_directory(), Some(Path::new("/srv/blobs")));
        let urls = StorageUrls::new("gs://my-bucket".parse().unwrap());
        assert_eq!(urls.of(StorageRole::Blobs).to_string(), "gs://my-bucket/blobs");
        assert_eq!(urls.of(StorageRole::Blobs).as_s3(), None);
    }

    #[test]
    fn configurations_read_back() {
        let text = r#"{"root":"s3://my-bucket/a","audit":"s3://audit-bucket"}"#;
        let urls: StorageUrls = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&urls).unwrap(), text);
        assert!(serde_json::from_str::<StorageUrls>(r#"{"root":"memory://","blob":"memory://"}"#).is_err());
    }
}
