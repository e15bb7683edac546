//! All versions of what a bucket holds, listed and removed.
//!
//! Separate from `ask` because it changes something, and the only code for S3
//! that deletes a version. A bucket that never kept versions answers with one
//! version `null` of each object, so that both kinds go the same way.
//!
//! Trust: the server chooses what it lists. A key that is no path of ours is
//! kept, and nothing outside the prefix that was asked for is removed.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::signer::Method;

use super::super::bounded;
use super::super::fault::{unusable, within};
use super::super::probe::Reply;
use super::super::purge::{AT_ONCE, Purged, Removal};
use super::ask::{Line, element, elements, text};
use crate::error::{ErrorKind, Result};

/// How often a request is made before the storage counts as unavailable.
const ATTEMPTS: u32 = 5;
/// Before the second attempt we wait this long; then twice that, and so on.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

const LIST: &str = "list the versions of what is to be removed";
const REMOVE: &str = "remove a version";

/// Removes every version and delete marker of the objects that `select` picks
/// under `prefix` of the storage at `root`; `None` if the server knows no
/// versions.
///
/// # Errors
/// [`ErrorKind::Configuration`] where we may not list versions;
/// [`ErrorKind::Unavailable`].
pub(in crate::store) async fn purge(
    bucket: &AmazonS3,
    root: &Path,
    prefix: &Path,
    select: &(impl Fn(&Path) -> bool + Send + Sync),
) -> Result<Option<Purged>> {
    let line = Line::open(bucket, LIST).await?;
    let whole: Path = root.parts().chain(prefix.parts()).collect();
    let folder = if whole.as_ref().is_empty() { String::new() } else { format!("{whole}/") };
    let Some(mut page) = list(&line, &folder, None).await? else { return Ok(None) };
    let mut purged = Purged::default();
    // The last object that was counted: its versions may go on over many pages.
    let mut counted = None;
    loop {
        // The next page is listed before this one goes: the version where it
        // begins must still be there.
        let next = match &page.next {
            Some(marker) => list(&line, &folder, Some(marker)).await?,
            None => None,
        };
        let removals = page.versions.into_iter().map(|version| {
            let ours = path_of(&version.key, &folder, root).filter(|(_, path)| select(path));
            let line = &line;
            async move {
                let removal = match ours {
                    Some((key, _)) => remove(line, &key, &version.id).await,
                    None => Ok(Removal::Kept),
                };
                (version, removal)
            }
        });
        // In order, so that versions of one object stay together.
        let mut removals = stream::iter(removals).buffered(AT_ONCE);
        while let Some((version, removal)) = removals.next().await {
            let removal = removal?;
            purged.count(removal, version.marker, version.bytes);
            if removal == Removal::Removed && counted.as_ref() != Some(&version.key) {
                purged.objects += 1;
                counted = Some(version.key);
            }
        }
        match next {
            Some(next) => page = next,
            None => return Ok(Some(purged)),
        }
    }
}

/// The key as a path of the bucket, and as a path of the storage at `root`; `None`
/// if it is not one that we could have written there.
fn path_of(key: &str, folder: &str, root: &Path) -> Option<(Path, Path)> {
    let whole = Path::parse(key).ok()?;
    let is_below = key.len() > folder.len() && key.starts_with(folder);
    // Parsing forgives slashes at the ends, and these are other objects.
    let inner = whole.prefix_match(root)?.collect();
    (is_below && whole.as_ref() == key).then_some((whole, inner))
}

struct Version {
    key: String,
    id: String,
    marker: bool,
    bytes: u64,
}

struct Marker {
    key: String,
    version: String,
}

struct Page {
    versions: Vec<Version>,
    next: Option<Marker>,
}

/// One page of `ListObjectVersions`: 1000 versions and delete markers at most.
async fn list(line: &Line<'_>, folder: &str, after: Option<&Marker>) -> Result<Option<Page>> {
    let mut query =
        vec![("versions", ""), ("prefix", folder), ("max-keys", "1000"), ("encoding-type", "url")];
    if let Some(after) = after {
        query.extend([("key-marker", &*after.key), ("version-id-marker", &*after.version)]);
    }
    let asked = repeated(LIST, || async {
        let answer = line.ask(Method::GET, &Path::default(), &query, LIST).await?;
        let nothing = || Page { versions: Vec::new(), next: None };
        answer.reply(&[], nothing, read_page)
    });
    match asked.await? {
        Reply::Is(page) => Ok(Some(page)),
        Reply::Denied => Err(unusable("the storage denies us s3:ListBucketVersions")),
        Reply::Unsupported => Ok(None),
    }
}

async fn remove(line: &Line<'_>, key: &Path, version: &str) -> Result<Removal> {
    let query = [("versionId", version)];
    repeated(REMOVE, || async {
        let answer = line.ask(Method::DELETE, key, &query, REMOVE).await?;
        let code = text(&answer.body, "Code").unwrap_or_default();
        let said = text(&answer.body, "Message").unwrap_or_default().to_ascii_lowercase();
        // Amazon has one code for both, and other servers have their own.
        let locked = code == "ObjectLocked" || said.contains("object lock") || said.contains("worm");
        match answer.status {
            200..300 => Ok(Removal::Removed),
            404 => Ok(Removal::WasGone),
            400 | 403 if locked => Ok(Removal::Locked),
            403 => Ok(Removal::Denied),
            _ => Err(answer.failed()),
        }
    })
    .await
}

/// Asks until there is an answer, within 20 s each time.
async fn repeated<T, F: Future<Output = Result<T>>>(what: &'static str, ask: impl Fn() -> F) -> Result<T> {
    let mut pause = FIRST_BACKOFF;
    for _ in 1..ATTEMPTS {
        match within(bounded::CALL, what, ask()).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => tokio::time::sleep(pause).await,
            result => return result,
        }
        pause *= 2;
    }
    within(bounded::CALL, what, ask()).await
}

fn read_page(xml: &str) -> Option<Page> {
    let xml = element(xml, "ListVersionsResult")?;
    let encoded = text(xml, "EncodingType").as_deref() == Some("url");
    let key = |of: &str, name: &str| {
        let key = text(of, name)?;
        if encoded { decoded(&key) } else { Some(key) }
    };
    let read = |name: &'static str| {
        elements(xml, name).map(move |version| {
            let marker = name == "DeleteMarker";
            Some(Version {
                key: key(version, "Key")?,
                id: text(version, "VersionId")?,
                marker,
                bytes: if marker { 0 } else { text(version, "Size")?.parse().ok()? },
            })
        })
    };
    let mut versions: Vec<_> = read("Version").chain(read("DeleteMarker")).collect::<Option<_>>()?;
    versions.sort_by(|a, b| a.key.cmp(&b.key));
    let next = match text(xml, "IsTruncated").as_deref() {
        Some("true") => {
            Some(Marker { key: key(xml, "NextKeyMarker")?, version: text(xml, "NextVersionIdMarker")? })
        }
        Some("false") => None,
        _ => return None,
    };
    Some(Page { versions, next })
}

/// A key as `encoding-type=url` writes it.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (hex, after) = rest.split_at_checked(2)?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
                rest = after;
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok()
}

/// Reads a page of a list: for [`crate::fuzz`].
pub(crate) fn fuzz(xml: &str) -> bool {
    read_page(xml).is_some()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use object_store::aws::AmazonS3Builder;

    use super::super::super::purge::Failed;
    use super::*;

    #[derive(Clone, Copy, PartialEq)]
    enum Keeps {
        Nothing,
        Lock,
        Denial,
    }

    /// A bucket that lists three versions at a time, begins a page only at a version
    /// that is there, and is out of order at every fifth request.
    #[derive(Default)]
    struct Bucket {
        versions: Vec<(String, String, bool, Option<Keeps>)>,
        requests: usize,
        answers_501: bool,
    }

    impl Bucket {
        fn put(&mut self, key: &str, id: &str, marker: bool, keeps: Keeps) {
            self.versions.push((key.to_owned(), id.to_owned(), marker, Some(keeps)));
            self.versions.sort_by(|a, b| a.0.cmp(&b.0));
        }

        fn answer(&mut self, method: &str, url: &url::Url) -> (u16, String) {
            self.requests += 1;
            let query = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value);
            if self.answers_501 {
                return (501, String::new());
            }
            if self.requests.is_multiple_of(5) {
                return (503, "<Error><Code>SlowDown</Code></Error>".to_owned());
            }
            match (method, query("versions")) {
                ("GET", Some(_)) => {
                    self.list(&query("prefix").unwrap(), query("key-marker").zip(query("version-id-marker")))
                }
                ("DELETE", _) => {
                    let key = decoded(url.path().strip_prefix("/bucket/").unwrap()).unwrap();
                    self.delete(&key, &query("versionId").expect("never without a version"))
                }
                other => panic!("{other:?}"),
            }
        }

        fn list(&self, prefix: &str, after: Option<(impl AsRef<str>, impl AsRef<str>)>) -> (u16, String) {
            let start = after.map_or(0, |(key, id)| {
                let at =
                    |v: &&(String, String, bool, Option<Keeps>)| v.0 == key.as_ref() && v.1 == id.as_ref();
                let found = self.versions.iter().find(at).expect("a page begins where something is");
                self.versions.iter().position(|v| v == found).unwrap() + 1
            });
            let under = self.versions[start..].iter().filter(|v| v.0.starts_with(prefix));
            let page: Vec<_> = under.clone().take(3).collect();
            let encoded = |key: &str| key.replace(' ', "+").replace('&', "%26");
            let mut xml = String::from("<ListVersionsResult><EncodingType>url</EncodingType>");
            for (key, id, marker, _) in &page {
                let name = if *marker { "DeleteMarker" } else { "Version" };
                let size = if *marker { "" } else { "<Size>5</Size>" };
                xml +=
                    &format!("<{name}><Key>{}</Key><VersionId>{id}</VersionId>{size}</{name}>", encoded(key));
            }
            let more = under.count() > page.len();
            xml += &format!("<IsTruncated>{more}</IsTruncated>");
            if let (true, Some((key, id, ..))) = (more, page.last()) {
                let key = encoded(key);
                xml += &format!(
                    "<NextKeyMarker>{key}</NextKeyMarker><NextVersionIdMarker>{id}</NextVersionIdMarker>"
                );
            }
            (200, xml + "</ListVersionsResult>")
        }

        fn delete(&mut self, key: &str, id: &str) -> (u16, String) {
            let refusal = |message| {
                (403, format!("<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>"))
            };
            let Some(at) = self.versions.iter().position(|v| v.0 == key && v.1 == id) else {
                return (404, "<Error><Code>NoSuchVersion</Code></Error>".to_owned());
            };
            match self.versions[at].3 {
                Some(Keeps::Lock) => refusal("Access Denied because object protected by object lock."),
                Some(Keeps::Denial) => refusal("Access Denied"),
                _ => {
                    self.versions.remove(at);
                    (204, String::new())
                }
            }
        }
    }

    fn serve(bucket: Bucket) -> (AmazonS3, Arc<Mutex<Bucket>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let bucket = Arc::new(Mutex::new(bucket));
        let shared = Arc::clone(&bucket);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || respond(&stream.unwrap(), &shared));
            }
        });
        let s3 = AmazonS3Builder::new()
            .with_bucket_name("bucket")
            .with_region("us-east-1")
            .with_endpoint(endpoint)
            .with_allow_http(true)
            .with_access_key_id("test")
            .with_secret_access_key("test");
        (s3.build().unwrap(), bucket)
    }

    /// Answers one connection's requests, which have no bodies.
    fn respond(stream: &TcpStream, bucket: &Mutex<Bucket>) {
        let mut lines = BufReader::new(stream).lines();
        while let Some(Ok(first)) = lines.next() {
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let words: Vec<_> = first.split(' ').collect();
            let url = url::Url::parse(&format!("http://x{}", words[1])).unwrap();
            let (status, body) = bucket.lock().unwrap().answer(words[0], &url);
            let head =
                format!("HTTP/1.1 {status} -\r\ndate: {DATE}\r\ncontent-length: {}\r\n\r\n", body.len());
            if { stream }.write_all((head + &body).as_bytes()).is_err() {
                return;
            }
        }
    }

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    #[tokio::test]
    async fn a_refusal_tells_the_time() {
        let (s3, _) = serve(Bucket { answers_501: true, ..Bucket::default() });
        let told = super::super::ask::time(&s3, bounded::CALL).await.unwrap().unwrap();
        assert_eq!(told.to_string(), "1994-11-06T08:49:37.000000Z");
    }

    async fn purged(s3: &AmazonS3, root: &str) -> Purged {
        let select = |path: &Path| !path.as_ref().contains("spared");
        purge(s3, &Path::from(root), &Path::from("blob"), &select).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn every_version_goes_and_what_refuses_is_counted() {
        let mut bucket = Bucket::default();
        for version in 0..7 {
            bucket.put("p/blob/many", &format!("v{version}"), version == 3, Keeps::Nothing);
        }
        bucket.put("p/blob/old", "null", false, Keeps::Nothing);
        bucket.put("p/blob/a b&c", "v", false, Keeps::Nothing);
        bucket.put("p/blob/locked", "l1", false, Keeps::Lock);
        bucket.put("p/blob/locked", "l2", true, Keeps::Nothing);
        bucket.put("p/blob/denied", "d1", false, Keeps::Denial);
        bucket.put("p/blob/spared", "s1", false, Keeps::Nothing);
        bucket.put("p/blob/spared", "s2", true, Keeps::Nothing);
        // Keys that are no paths of ours, or of another prefix or storage.
        let others = ["p/blob/", "p/blob//x", "p/blob/folder/", "p/blobs/x", "p/name/x", "q/blob/x"];
        for other in others {
            bucket.put(other, "o", false, Keeps::Nothing);
        }
        let (s3, bucket) = serve(bucket);
        let expected = Purged {
            objects: 4,
            versions: 8,
            delete_markers: 2,
            bytes: 40,
            kept: 5,
            failed: Failed { locked: 1, denied: 1 },
        };
        assert_eq!(purged(&s3, "p").await, expected);
        let left: Vec<_> = bucket.lock().unwrap().versions.iter().map(|v| v.1.clone()).collect();
        assert_eq!(left.concat().matches('o').count(), others.len(), "{left:?}");
        assert_eq!(left.len(), others.len() + 4, "{left:?}");
        // Again, to no effect; and again, when the lock has ended.
        let again = Purged { kept: 5, failed: expected.failed, ..Purged::default() };
        assert_eq!(purged(&s3, "p").await, again);
        bucket.lock().unwrap().versions.iter_mut().for_each(|version| version.3 = None);
        let rest = Purged { objects: 2, versions: 2, bytes: 10, kept: 5, ..Purged::default() };
        assert_eq!(purged(&s3, "p").await, rest);
    }

    #[tokio::test]
    async fn a_server_without_versions_says_so() {
        let (s3, bucket) = serve(Bucket { answers_501: true, ..Bucket::default() });
        let nothing = purge(&s3, &Path::default(), &Path::from("blob"), &|_: &Path| true).await.unwrap();
        assert_eq!((nothing, bucket.lock().unwrap().requests), (None, 1));
    }

    #[test]
    fn a_page_is_read_whole_or_not_at_all() {
        let page = |inside: &str| read_page(&format!("<ListVersionsResult>{inside}</ListVersionsResult>"));
        assert!(page("<IsTruncated>false</IsTruncated>").is_some());
        assert!(page("").is_none());
        assert!(page("<IsTruncated>true</IsTruncated>").is_none(), "and where does it go on?");
        assert!(page("<IsTruncated>false</IsTruncated><Version><Key>a</Key></Version>").is_none());
        assert!(read_page("<ListVersionsResult><IsTruncated>false</IsTruncated>").is_none(), "cut off");
        assert!(read_page("<html>login</html>").is_none());
        assert_eq!(decoded("a%2Fb+c%C3%A9").as_deref(), Some("a/b cé"));
        for wrong in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
