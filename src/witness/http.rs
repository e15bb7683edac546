//! A witness over HTTP, as c2sp.org/tlog-witness has it: the client.
//!
//! Separate from the dance around it ([`cosign_checkpoint`]), which needs no
//! network. Nothing that comes back is trusted: it is bounded in size and time, and
//! the caller verifies what is in it. So `http://` is as safe as `https://`, and
//! only easier to get in the way of.
//!
//! [`cosign_checkpoint`]: super::client::cosign_checkpoint

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use url::Url;

use super::AddCheckpoint;
use super::client::{Witness, WitnessError};
use crate::error::{Error, ErrorKind, Result};
use crate::tlog::VerifierKey;
use crate::tlog::note::{Note, NoteSignature};
use crate::tlog::text::decimal;

/// How long a witness may take to be connected to.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a request may take in all.
const REQUEST: Duration = Duration::from_secs(20);

/// The longest answer that is read, in bytes.
const MAX_ANSWER_LEN: usize = 64 * 1024;

/// The type of the answer with a tree size: c2sp.org/tlog-witness, "add-checkpoint".
pub(super) const TREE_SIZE: &str = "text/x.tlog.size";

/// Where a witness takes requests: its submission prefix, `http://` or `https://`.
#[derive(Clone, PartialEq, Eq)]
pub struct WitnessUrl(Url);

impl FromStr for WitnessUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |sentence| Error::new(ErrorKind::InvalidInput, sentence);
        let mut url = Url::parse(text).map_err(|_| invalid("this is not the URL of a witness"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(invalid("the URL of a witness begins with http:// or https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("the URL of a witness holds no credentials"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("the URL of a witness has no query and no `#`"));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self(url))
    }
}

impl fmt::Display for WitnessUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for WitnessUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitnessUrl({self})")
    }
}

/// A witness at a URL. A request takes 20 s at most.
#[derive(Clone, Debug)]
pub struct HttpWitness {
    key: VerifierKey,
    add_checkpoint: Url,
    client: Client,
}

impl HttpWitness {
    /// The witness with the key `key` at `url`. Nothing is asked yet. Proxies are
    /// those of the environment (`HTTPS_PROXY`, `NO_PROXY`); redirects are not followed.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the key is not a witness's, and
    /// [`ErrorKind::Configuration`] if TLS cannot be set up.
    pub fn new(url: &WitnessUrl, key: VerifierKey) -> Result<Self> {
        if key.signature_type() != crate::tlog::SignatureType::Cosignature {
            let message = "the key of a witness is one for cosignatures";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .redirect(Policy::none())
            .referer(false)
            .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                let message = "HTTP cannot be set up";
                Error::new(ErrorKind::Configuration, message).with_source(error.without_url())
            })?;
        let mut add_checkpoint = url.0.clone();
        add_checkpoint.set_path(&format!("{}/add-checkpoint", url.0.path().trim_end_matches('/')));
        Ok(Self { key, add_checkpoint, client })
    }
}

#[async_trait]
impl Witness for HttpWitness {
    fn key(&self) -> &VerifierKey {
        &self.key
    }

    async fn cosign(&self, request: &AddCheckpoint) -> Result<Vec<NoteSignature>, WitnessError> {
        let sent = self.client.post(self.add_checkpoint.clone()).body(request.to_string()).send();
        let answer = sent.await.map_err(|error| unavailable(error.without_url()))?;
        let is_size = answer.headers().get(CONTENT_TYPE).is_some_and(is_tree_size);
        match answer.status() {
            StatusCode::OK => signatures(request, &body(answer).await?),
            StatusCode::CONFLICT if is_size => {
                let size = body(answer).await?.strip_suffix('\n').and_then(decimal);
                let size = size.ok_or_else(|| unavailable("its answer is no tree size"))?;
                Err(WitnessError::Conflict { size })
            }
            StatusCode::UNPROCESSABLE_ENTITY => Err(WitnessError::Inconsistent),
            StatusCode::FORBIDDEN => Err(WitnessError::NotTrusted),
            StatusCode::NOT_FOUND => Err(WitnessError::UnknownLog),
            StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS => {
                Err(unavailable("it asks to be asked later"))
            }
            status if status.is_client_error() => Err(WitnessError::NotTaken),
            _ => Err(unavailable("it has a fault of its own, or something in front of it has")),
        }
    }
}

/// The lines of an answer. They are read as the end of the note that was sent.
fn signatures(request: &AddCheckpoint, lines: &str) -> Result<Vec<NoteSignature>, WitnessError> {
    let note = format!("{}\n{lines}", request.checkpoint().note().text());
    let note = Note::parse(note.as_bytes()).map_err(unavailable)?;
    Ok(note.signatures().to_vec())
}

/// All of an answer, if it is text and not too long.
async fn body(mut answer: Response) -> Result<String, WitnessError> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| unavailable(error.without_url()))? {
        if bytes.len() + piece.len() > MAX_ANSWER_LEN {
            return Err(unavailable("its answer is too long"));
        }
        bytes.extend_from_slice(&piece);
    }
    String::from_utf8(bytes).map_err(|_| unavailable("its answer is not text"))
}

fn is_tree_size(value: &HeaderValue) -> bool {
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(TREE_SIZE)
}

fn unavailable(cause: impl Into<crate::error::Source>) -> WitnessError {
    WitnessError::Unavailable(cause.into())
}

/// Reads an answer of a witness: for [`crate::fuzz`].
pub(crate) fn fuzz(request: &AddCheckpoint, lines: &str) -> bool {
    signatures(request, lines).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_place_and_nothing_more() {
        for (text, shown) in [
            ("http://127.0.0.1:7380", "http://127.0.0.1:7380"),
            ("https://example.com/", "https://example.com"),
            ("https://example.com/a/witness/", "https://example.com/a/witness"),
        ] {
            let url: WitnessUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            let key =
                VerifierKey::cosigner("w".parse().unwrap(), crate::tlog::PublicKey::from_bytes([1; 32]));
            let witness = HttpWitness::new(&url, key).unwrap();
            assert_eq!(witness.add_checkpoint.as_str(), format!("{shown}/add-checkpoint"));
        }
        for bad in [
            "",
            "example.com",
            "ftp://example.com",
            "https://user@example.com",
            "https://:password@example.com",
            "https://example.com?a",
            "https://example.com#a",
            "file:///etc",
        ] {
            let error = bad.parse::<WitnessUrl>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
        }
        let log = VerifierKey::ed25519("l".parse().unwrap(), crate::tlog::PublicKey::from_bytes([1; 32]));
        assert!(HttpWitness::new(&"http://localhost".parse().unwrap(), log).is_err());
    }
}
