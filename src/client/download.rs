//! A blob on its way from the daemon.
//!
//! Its length is said before its bytes: where fewer come, the connection broke or the daemon
//! found damage, and the rest is asked for (`Range` with `If-Range`, RFC 9110 s13.1.5). A blob
//! never changes, and its entity tag is its id.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use hyper::http::StatusCode;
use percent_encoding::percent_decode_str;
use tokio::time::sleep;

use super::ask::{Question, unsendable};
use super::wire::Link;
use super::{Client, nonsense};
use crate::envelope::BlobName;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, CustomerId};
use crate::room::ByteRange;

/// How often the rest of a blob is asked for.
const RESUMES: u32 = 3;

/// How long is waited before the first time; longer before each further one.
const BACKOFF: Duration = Duration::from_millis(300);

/// A blob that comes.
pub(crate) struct Download {
    /// Which.
    pub(crate) blob: BlobId,
    /// The positions of the plaintext that come.
    pub(crate) range: Range<u64>,
    /// Its pieces. That it is whole is certain once they ended without an error.
    pub(crate) pieces: BoxStream<'static, Result<Bytes>>,
}

impl Client {
    /// Opens a blob, or a range of it. One that was looked up by its name has to have been
    /// sealed under it.
    pub(super) async fn open(
        &self,
        customer: CustomerId,
        blob: BlobId,
        range: Option<ByteRange>,
        name: Option<&BlobName>,
    ) -> Result<Download> {
        let path = format!("/v1/customers/{customer}/blobs/{blob}");
        let question = match range {
            None => Question::get(path.as_str()),
            Some(range) => Question::get(path.as_str()).header(RANGE, value(&asked(range))?),
        };
        let (response, link) = self.answer(&question).await?;
        let tag = format!("\"{blob}\"");
        if response.headers().get(ETAG).is_none_or(|found| found.as_bytes() != tag.as_bytes()) {
            return Err(nonsense());
        }
        if let Some(name) = name
            && sealed_under(response.headers()).as_deref() != Some(name.as_str())
        {
            return Err(Error::authentication());
        }
        let found = positions(&response, range.is_some()).ok_or_else(nonsense)?;
        let coming = Coming {
            client: self.clone(),
            path,
            tag,
            at: found.start,
            end: found.end,
            body: Some((response.into_body(), link)),
            resumes: 0,
        };
        let pieces = stream::try_unfold(coming, Coming::next).boxed();
        Ok(Download { blob, range: found, pieces })
    }
}

/// A range as it is asked for (RFC 9110 s14.1.2).
fn asked(range: ByteRange) -> String {
    match range {
        ByteRange::Inclusive(first, last) => format!("bytes={first}-{last}"),
        ByteRange::From(first) => format!("bytes={first}-"),
        ByteRange::Last(count) => format!("bytes=-{count}"),
    }
}

/// The positions that come, if the answer is one to what was asked.
fn positions<B>(response: &Response<B>, of_range: bool) -> Option<Range<u64>> {
    let length = response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok()?;
    match (response.status(), of_range) {
        (StatusCode::OK, false) => Some(0..length),
        (StatusCode::PARTIAL_CONTENT, true) => {
            let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
            let (range, _) = text.strip_prefix("bytes ")?.split_once('/')?;
            let (first, last) = range.split_once('-')?;
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            let end = last.checked_add(1)?;
            (end.checked_sub(first)? == length).then_some(first..end)
        }
        _ => None,
    }
}

fn sealed_under(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("strongroom-name")?.to_str().ok()?;
    percent_decode_str(value).decode_utf8().ok().map(Into::into)
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| unsendable())
}

/// What comes of a blob, and how far it has come.
struct Coming {
    client: Client,
    path: String,
    tag: String,
    at: u64,
    end: u64,
    /// `None`: the connection broke, and the rest is to be asked for.
    body: Option<(Incoming, Link)>,
    resumes: u32,
}

impl Coming {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        loop {
            let Some((body, _)) = &mut self.body else {
                self.resume().await?;
                continue;
            };
            match body.frame().await {
                Some(Ok(frame)) => {
                    let Ok(piece) = frame.into_data() else { continue };
                    let left = self.end - self.at;
                    let count = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                    if count > left {
                        return Err(nonsense());
                    }
                    self.at += count;
                    return Ok(Some((piece, self)));
                }
                None if self.at == self.end => return Ok(None),
                Some(Err(_)) | None => self.body = None,
            }
        }
    }

    /// Asks for the rest.
    async fn resume(&mut self) -> Result<()> {
        let mut last = None;
        while self.at < self.end && self.resumes < RESUMES {
            self.resumes += 1;
            sleep(BACKOFF * self.resumes).await;
            let range = format!("bytes={}-{}", self.at, self.end - 1);
            let question = Question::get(self.path.as_str())
                .header(RANGE, value(&range)?)
                .header(IF_RANGE, value(&self.tag)?);
            match self.client.answer(&question).await {
                Ok((response, link)) => {
                    if positions(&response, true) != Some(self.at..self.end) {
                        return Err(nonsense());
                    }
                    self.body = Some((response.into_body(), link));
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => last = Some(error),
                // What it found, it says when it is asked for it alone.
                Err(error) => return Err(error),
            }
        }
        let error = Error::new(
            ErrorKind::Unavailable,
            "the connection to the daemon broke, and the blob did not come whole",
        );
        Err(match last {
            Some(last) => error.with_source(last),
            None => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_to_be_one_to_what_was_asked() {
        let response = |status: u16, length: u64, range: Option<&str>| {
            let mut response = Response::builder().status(status).header(CONTENT_LENGTH, length);
            if let Some(range) = range {
                response = response.header(CONTENT_RANGE, range);
            }
            response.body(()).unwrap()
        };
        assert_eq!(positions(&response(200, 7, None), false), Some(0..7));
        assert_eq!(positions(&response(206, 3, Some("bytes 4-6/7")), true), Some(4..7));
        for (status, length, range, of_range) in [
            (200, 7, None, true),
            (206, 3, Some("bytes 4-6/7"), false),
            (206, 3, Some("bytes 4-7/8"), true),
            (206, 3, Some("bytes 6-4/7"), true),
            (206, 3, Some("bytes */7"), true),
            (206, 3, None, true),
            (206, 0, Some("bytes 0-18446744073709551615/1"), true),
            (204, 0, None, false),
        ] {
            assert_eq!(positions(&response(status, length, range), of_range), None, "{range:?}");
        }
        assert_eq!(positions(&Response::new(()), false), None);
    }

    #[test]
    fn ranges_are_those_of_http() {
        assert_eq!(asked(ByteRange::Inclusive(0, 9)), "bytes=0-9");
        assert_eq!(asked(ByteRange::From(9)), "bytes=9-");
        assert_eq!(asked(ByteRange::Last(9)), "bytes=-9");
    }
}
