//! Vouchers: by which a program believes an object that only create-if-absent orders.
//!
//! A ring, the register, an epoch's record and a session's paper lie on the keys storage where nothing
//! lay before. That one lies there proves nothing: whoever may write to that storage could have put it there,
//! and sealed it under a KMS key of their own. So its writer says beforehand, on the *audit* storage,
//! what it is about to write: of which kind, whose, in which version and **with which hash**, signed
//! by the writer, whom the log's key endorsed. The order is: intent durable, voucher, object, pin. A
//! voucher without an object binds nobody, and several may stand for one version, of which one is
//! written. An object without a voucher is refused, whatever is in it.
//!
//! A voucher is two JSON lines, each ended by one line feed: what is vouched for, and
//! `{"signature":"…"}`. A pin has the same two lines behind its own, so that what is pinned costs a
//! reader no further request.
//!
//! Who may forge one: whoever has the log's key, or the key of an endorsed writer, which is in the
//! memory of a running program. Who may withhold one: the audit storage; then the object is refused.
//!
//! Separate from the log, and pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::authority::Authority;
use super::commit::{SignatureLine, Writer, decode_line, json_line};
use super::{Action, Intent, RingRef, hex_digest};
use crate::id::{CustomerId, RequestId, SessionId, StoreId, WriterId};
use crate::tlog::{PublicKey, Signature};

const FORMAT: &str = "strongroom-voucher-v1";

/// The longest voucher that is read, in bytes.
pub const MAX_LEN: u64 = 2048;

/// What lies on the keys storage and is vouched for, version by version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Versioned {
    /// A customer's ring.
    Ring(CustomerId),
    /// The store's register.
    Register,
    /// The records of epochs. The version is the epoch's number.
    Epoch,
    /// The papers of a customer's session. The version is the number of the paper's kind.
    Session(CustomerId, SessionId),
}

impl fmt::Display for Versioned {
    /// As it stands in a voucher's path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(customer) => customer.fmt(f),
            Self::Register => f.write_str("register"),
            Self::Epoch => f.write_str("epoch"),
            Self::Session(customer, session) => write!(f, "{customer}-{session}"),
        }
    }
}

impl Versioned {
    /// What an operation with this intent writes a version of.
    #[must_use]
    pub fn written_by(intent: &Intent) -> Option<Self> {
        match intent.action {
            Action::RingWrite => intent.customer.map(Self::Ring),
            Action::RegisterWrite => Some(Self::Register),
            Action::EpochWrite => Some(Self::Epoch),
            _ => None,
        }
    }

    /// Whose a pin of it is: the register is pinned under the id of its store, taken as a customer's.
    /// The records of epochs are not pinned, as the register names them, nor are papers, which have no
    /// versions to be taken back to.
    #[must_use]
    pub fn pinned_as(self, store: StoreId) -> Option<CustomerId> {
        match self {
            Self::Ring(customer) => Some(customer),
            Self::Register => Some(store.as_customer()),
            Self::Epoch | Self::Session(..) => None,
        }
    }

    /// What a pin is of that is found under this id.
    #[must_use]
    pub fn of_pin(store: StoreId, owner: CustomerId) -> Self {
        if owner.as_bytes() == store.as_bytes() { Self::Register } else { Self::Ring(owner) }
    }

    /// What a part of a voucher's path says.
    pub(super) fn of_path(text: &str) -> Option<Self> {
        match text {
            "register" => Some(Self::Register),
            "epoch" => Some(Self::Epoch),
            text => match text.split_once('-') {
                Some((customer, session)) => {
                    Some(Self::Session(customer.parse().ok()?, session.parse().ok()?))
                }
                None => text.parse().ok().map(Self::Ring),
            },
        }
    }
}

/// One version of something, as an endorsed writer vouches for it. There is no other way to one than
/// to sign a voucher or to verify one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    of: Versioned,
    version: RingRef,
    request: RequestId,
    key: u32,
    lines: Vec<u8>,
}

/// The first line. The order of the fields is the order in it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    format: String,
    store: StoreId,
    of: String,
    version: u64,
    #[serde(with = "hex_digest")]
    hash: [u8; 32],
    request: RequestId,
    writer: WriterId,
    key: PublicKey,
    endorsement: Signature,
}

impl Vouched {
    /// Signs a voucher. `request` is the intent in the log, and `key` the number of the log's key
    /// that endorsed the writer.
    pub(super) fn sign(
        store: StoreId,
        (of, version): (Versioned, RingRef),
        request: RequestId,
        (key, writer): (u32, &Writer),
    ) -> Self {
        let line = Line {
            format: FORMAT.to_owned(),
            store,
            of: of.to_string(),
            version: version.version,
            hash: version.hash,
            request,
            writer: writer.id,
            key: writer.key.public(),
            endorsement: writer.endorsement,
        };
        let mut lines = json_line(&line);
        let signature = writer.key.sign(&signed(&lines[..lines.len() - 1]));
        lines.extend_from_slice(&json_line(&SignatureLine { signature }));
        Self { of, version, request, key, lines }
    }

    /// Verifies the lines of a voucher for this version. `None` if they are none, or are for
    /// something else, or if none of the log's keys endorsed their writer.
    pub(crate) fn verify(
        lines: &[u8],
        store: StoreId,
        (of, version): (Versioned, RingRef),
        authority: &Authority,
    ) -> Option<Self> {
        let mut parts = lines.strip_suffix(b"\n")?.split(|byte| *byte == b'\n');
        let (Some(first), Some(second), None) = (parts.next(), parts.next(), parts.next()) else {
            return None;
        };
        let line: Line = decode_line(first, &mut Vec::new())?;
        let SignatureLine { signature } = decode_line(second, &mut Vec::new())?;
        let said = (line.format.as_str(), line.store, line.of, line.version, line.hash);
        if said != (FORMAT, store, of.to_string(), version.version, version.hash) {
            return None;
        }
        let key = authority.endorser((store, line.writer), &line.key, &line.endorsement)?;
        let request = line.request;
        line.key.verifies(&signed(first), &signature).then(|| Self {
            of,
            version,
            request,
            key,
            lines: lines.to_vec(),
        })
    }

    /// Of what.
    #[must_use]
    pub fn of(&self) -> Versioned {
        self.of
    }

    /// Which version, and its hash.
    #[must_use]
    pub fn version(&self) -> RingRef {
        self.version
    }

    /// The request whose intent the writer had recorded.
    #[must_use]
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// The number of the log's key that endorsed the writer.
    #[must_use]
    pub fn key(&self) -> u32 {
        self.key
    }

    /// The two lines.
    #[must_use]
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }
}

/// What a writer signs: the first line, behind a label.
fn signed(line: &[u8]) -> Vec<u8> {
    [b"strongroom-voucher-v1\n".as_slice(), line].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::commit::tests::{authority, store, writer};

    const VERSION: RingRef = RingRef { version: 7, hash: [9; 32] };

    fn request() -> RequestId {
        RequestId::from_bytes([3; 16])
    }

    #[test]
    fn a_voucher_is_for_one_version_of_one_thing_of_one_store() {
        let ring = Versioned::Ring(CustomerId::from_bytes([1; 16]));
        let signed = Vouched::sign(store(), (ring, VERSION), request(), (1, &writer(2)));
        let authority = Authority::from(authority());
        let verify =
            |lines: &[u8], store, of, version| Vouched::verify(lines, store, (of, version), &authority);
        assert_eq!(verify(signed.lines(), store(), ring, VERSION).as_ref(), Some(&signed));
        assert_eq!(
            (signed.of(), signed.version(), signed.request(), signed.key()),
            (ring, VERSION, request(), 1)
        );

        let another = Versioned::Ring(CustomerId::from_bytes([2; 16]));
        for of in [another, Versioned::Register, Versioned::Epoch] {
            assert_eq!(verify(signed.lines(), store(), of, VERSION), None);
        }
        for version in [RingRef { version: 8, ..VERSION }, RingRef { hash: [8; 32], ..VERSION }] {
            assert_eq!(verify(signed.lines(), store(), ring, version), None);
        }
        assert_eq!(verify(signed.lines(), StoreId::from_bytes([7; 16]), ring, VERSION), None);
    }

    #[test]
    fn no_byte_of_a_voucher_can_be_changed_removed_or_added() {
        let of = (Versioned::Epoch, VERSION);
        let signed = Vouched::sign(store(), of, request(), (1, &writer(2)));
        let authority = Authority::from(authority());
        let lines = signed.lines();
        assert!(lines.len() < 1024);
        for at in 0..lines.len() {
            let mut changed = lines.to_vec();
            changed[at] ^= 1;
            assert_eq!(Vouched::verify(&changed, store(), of, &authority), None, "byte {at}");
            assert_eq!(Vouched::verify(&lines[..at], store(), of, &authority), None, "cut at {at}");
        }
        assert_eq!(Vouched::verify(&[lines, b"\n"].concat(), store(), of, &authority), None);
    }

    #[test]
    fn a_writer_whom_the_log_does_not_know_vouches_for_nothing() {
        let of = (Versioned::Register, VERSION);
        let signed = Vouched::sign(store(), of, request(), (1, &writer(2)));
        let other = Authority::from(crate::audit::commit::tests::key(5).public());
        assert_eq!(Vouched::verify(signed.lines(), store(), of, &other), None);
    }
}
