//! Sessions: the times in which a customer, whose keys are in its own hand, lets its blobs
//! be opened.
//!
//! What is known of a session are its *papers* on the keys storage, each written once and
//! never changed: that somebody asked for it, that it was opened, that it ended. So every
//! node sees the same, and there is nothing to agree on. A session is over when it was
//! ended, when its time is, or when nobody used it for too long: by elapsed time alone, whether
//! or not anybody wrote that down. The host's clock, the log's times and the uptime of the node each
//! end it; none of them makes it longer.
//!
//! Pure: times are arguments. Separate from the room, which reads and writes papers and
//! has the KMS make and retire the grant that stands behind each session.
//!
//! Who may corrupt it: papers are sealed under the epoch's data key, and bound to their
//! store, customer, session and kind, so the keys storage can make none. It could withhold
//! the end of a session, which it is trusted not to ([the threat
//! model](crate::manual::threat)); then the time that was set at its beginning still ends it,
//! and the KMS does where the grant was retired. `manual::keys` has the bytes as tables.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::access::{Principal, Purpose};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::id::{CustomerId, KmsKeyId, SessionId, StoreId};
use crate::kms::DataKey;
use crate::retention::clock::AGREEMENT;
use crate::schedule::{self, SALT_LEN, SINGLE_USE_NONCE, Salt};
use crate::suite::{AeadKey, OpenError, Suite, TAG_LEN};
use crate::time::Timestamp;

/// How long somebody's asking for access stands: 7 days.
pub const REQUEST_VALIDITY: Duration = Duration::from_hours(7 * 24);
/// How often the use of a session is written down, at most.
pub const RENEWAL: Duration = Duration::from_secs(60);

const MAGIC: &[u8; 8] = b"SRM-SESS";
const VERSION: u8 = 1;
const PREFIX_LEN: usize = 10 + 3 * 16 + 1 + 4 + SALT_LEN;
/// In the flags of an [`Opened`]: that the log's time follows.
const WITH_LOG: u8 = 2;
/// `service:` and 64 more, and room to spare.
const PRINCIPAL_MAX_LEN: usize = 80;

/// How long a session may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// How long it stays open while nobody uses it, in whole seconds.
    pub idle: Duration,
    /// How long it stays open at most, in whole seconds.
    pub absolute: Duration,
}

/// Limits that no session may have.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a session is idle for 1 minute at least and lasts 24 hours at most, in whole seconds, idle or not")]
pub struct SessionLimitsError;

impl SessionLimits {
    /// 15 minutes idle, 8 hours in all.
    pub const DEFAULT: Self = Self { idle: Duration::from_mins(15), absolute: Duration::from_hours(8) };
    /// The shortest idle limit.
    pub const SHORTEST: Duration = Duration::from_mins(1);
    /// The longest absolute limit: far shorter than an epoch, whose key seals the papers.
    pub const LONGEST: Duration = Duration::from_hours(24);

    /// What was asked for, and where nothing was, as in [`SessionLimits::DEFAULT`]. A session that is shorter
    /// than the idle limit there is idle for as long as it lasts at most. Not [checked](Self::check) yet.
    #[must_use]
    pub fn or_default(idle: Option<Duration>, absolute: Option<Duration>) -> Self {
        let absolute = absolute.unwrap_or(Self::DEFAULT.absolute);
        Self { idle: idle.unwrap_or(Self::DEFAULT.idle.min(absolute)), absolute }
    }

    /// Checks that 1 minute ≤ `idle` ≤ `absolute` ≤ 24 hours, in whole seconds.
    ///
    /// # Errors
    /// [`SessionLimitsError`] if not.
    pub fn check(&self) -> Result<(), SessionLimitsError> {
        let whole = self.idle.subsec_nanos() == 0 && self.absolute.subsec_nanos() == 0;
        let ordered = Self::SHORTEST <= self.idle && self.idle <= self.absolute;
        if whole && ordered && self.absolute <= Self::LONGEST { Ok(()) } else { Err(SessionLimitsError) }
    }
}

/// Why nobody is let in to blobs whose keys are in the customer's own hand: the source of the error
/// that says so.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionRefusal {
    /// None was named that is open.
    #[error("blobs open within a session only")]
    Required,
    /// The customer has none of the id that was named.
    #[error("there is no such session of this customer")]
    Unknown,
    /// It was opened for another principal alone, or for another purpose.
    #[error("the session is another principal's, or for another purpose")]
    NotTheirs,
    /// It ended, by whatever.
    #[error("the session is over")]
    Over,
    /// By this host's clock it begins later than now, so that no time can be told that is left of it.
    #[error(
        "the session was opened at a later time than this host's clock says it is: correct the clock that is wrong, \
         and open another session"
    )]
    Later,
}

impl SessionRefusal {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Required, Self::Unknown, Self::NotTheirs, Self::Over, Self::Later];
}

/// For whom alone a session is: who asked for it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Who.
    pub principal: Principal,
    /// Why.
    pub purpose: Purpose,
}

/// That somebody asked for access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// Who, and why.
    pub guest: Guest,
    /// When.
    pub at: Timestamp,
    /// For how long.
    pub limits: SessionLimits,
}

impl Requested {
    /// Whether it can still be approved at `now`: not a week later, nor before it was asked for.
    #[must_use]
    pub fn stands(&self, now: Timestamp) -> bool {
        self.at <= now.saturating_add(AGREEMENT) && now <= self.at.saturating_add(REQUEST_VALIDITY)
    }
}

/// What time it is for a session: each of the two ends it, and neither makes it longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// By the clock of this host.
    pub host: Timestamp,
    /// The newest time of the audit log. It may be ahead of every clock, so that only what it
    /// went on by since the session was opened tells anything.
    pub log: Timestamp,
}

/// That a session was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The KMS key that its grant is on.
    pub kms_key: KmsKeyId,
    /// When, by the clock of the host that opened it.
    pub at: Timestamp,
    /// The newest time of the audit log then; `None` in a session of an earlier version, and
    /// then `at` was no earlier than that.
    pub log: Option<Timestamp>,
    /// For how long.
    pub limits: SessionLimits,
    /// For whom alone, if not for all who may read.
    pub only: Option<Guest>,
}

impl Opened {
    /// When it is over, whatever happens.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.at.saturating_add(self.limits.absolute)
    }

    /// Why the session is over now, if it is; it was last used at `last_use`.
    #[must_use]
    pub fn over(&self, last_use: Timestamp, now: Moment) -> Option<EndReason> {
        let by_log = now.log >= self.log.unwrap_or(self.at).saturating_add(self.limits.absolute);
        if now.host >= self.expires() || by_log {
            return Some(EndReason::Expired);
        }
        // A use that is later than now is no use, or a clock that was ahead would keep it open.
        let used = Some(last_use).filter(|used| !is_later(*used, now.host)).unwrap_or(self.at);
        let idle = now.host >= used.max(self.at).saturating_add(self.limits.idle);
        idle.then_some(EndReason::Idle)
    }

    /// Whether it was opened later than it is now: then this host's clock says nothing of what is left.
    #[must_use]
    pub fn is_later(&self, now: Moment) -> bool {
        is_later(self.at, now.host)
    }

    /// How old the last use that was written down may be before a use is written down again.
    #[must_use]
    pub fn renewal(&self) -> Duration {
        RENEWAL.min(self.limits.idle / 2)
    }
}

/// Whether a time is after now, by more than clocks that agree differ.
fn is_later(time: Timestamp, now: Timestamp) -> bool {
    time > now.saturating_add(AGREEMENT)
}

/// That a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When that was written.
    pub at: Timestamp,
    /// Why.
    pub why: EndReason,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// Somebody ended it.
    Asked,
    /// Nobody used it for too long.
    Idle,
    /// Its time was over.
    Expired,
    /// It never quite began: the KMS made no grant.
    NoGrant,
}

impl EndReason {
    /// As a stable identifier, for JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Idle => "idle",
            Self::Expired => "expired",
            Self::NoGrant => "no-grant",
        }
    }

    const fn id(self) -> u8 {
        match self {
            Self::Asked => 1,
            Self::Idle => 2,
            Self::Expired => 3,
            Self::NoGrant => 4,
        }
    }
}

/// Which paper of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PaperKind {
    /// A [`Requested`].
    Request,
    /// An [`Opened`].
    Open,
    /// An [`Ended`].
    End,
}

impl PaperKind {
    /// Its name in a path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Open => "open",
            Self::End => "end",
        }
    }

    pub(crate) const fn id(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Open => 2,
            Self::End => 3,
        }
    }
}

impl FromStr for PaperKind {
    type Err = DecodeError;

    fn from_str(text: &str) -> Result<Self, DecodeError> {
        let all = [Self::Request, Self::Open, Self::End];
        all.into_iter().find(|kind| kind.as_str() == text).ok_or(DecodeError::Invalid("paper"))
    }
}

/// One paper of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paper {
    /// Somebody asked for access.
    Requested(Requested),
    /// It was opened.
    Opened(Opened),
    /// It ended.
    Ended(Ended),
}

/// Whose paper it is: what binds it to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The store.
    pub store: StoreId,
    /// The customer.
    pub customer: CustomerId,
    /// The session.
    pub session: SessionId,
}

impl Paper {
    /// Which one it is.
    #[must_use]
    pub const fn kind(&self) -> PaperKind {
        match self {
            Self::Requested(_) => PaperKind::Request,
            Self::Opened(_) => PaperKind::Open,
            Self::Ended(_) => PaperKind::End,
        }
    }

    /// The stored form. `salt` is fresh and random.
    #[must_use]
    pub fn seal(&self, owner: Owner, (epoch, epoch_key): (u32, &DataKey), salt: Salt) -> Vec<u8> {
        let mut out = Writer::default();
        out.version(MAGIC, VERSION);
        owner.store.encode(&mut out);
        owner.customer.encode(&mut out);
        owner.session.encode(&mut out);
        out.u8(self.kind().id()).u32(epoch).raw(&salt);
        debug_assert_eq!(out.as_bytes().len(), PREFIX_LEN);
        let mut body = self.to_bytes();
        let key = key(epoch_key, owner, self.kind(), &salt);
        let tag = key.seal_in_place(&SINGLE_USE_NONCE, out.as_bytes(), &mut body);
        out.raw(&body).raw(&tag);
        out.into_bytes()
    }
}

/// A stored paper that is not sealed open yet.
#[derive(Debug)]
pub struct SealedPaper<'a> {
    /// The epoch whose key opens it.
    pub epoch: u32,
    owner: Owner,
    kind: PaperKind,
    salt: Salt,
    prefix: &'a [u8],
    sealed: &'a [u8],
}

impl<'a> SealedPaper<'a> {
    /// Reads the front of the paper of `kind` that `owner` should have.
    ///
    /// # Errors
    /// [`DecodeError`] if it is not that, or no paper of a known version.
    pub fn parse(bytes: &'a [u8], owner: Owner, kind: PaperKind) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.version(MAGIC, VERSION)?;
        let found = Owner {
            store: StoreId::decode(&mut reader)?,
            customer: CustomerId::decode(&mut reader)?,
            session: SessionId::decode(&mut reader)?,
        };
        if found != owner || reader.u8()? != kind.id() {
            return Err(DecodeError::Invalid("owner"));
        }
        let (epoch, salt) = (reader.u32()?, reader.array()?);
        let (prefix, sealed) = bytes.split_at(reader.consumed());
        if sealed.len() < TAG_LEN {
            return Err(DecodeError::Truncated);
        }
        Ok(Self { epoch, owner, kind, salt, prefix, sealed })
    }

    /// Opens the seal.
    ///
    /// # Errors
    /// [`OpenError`] if it does not verify under the epoch's key, or says what no paper says.
    pub fn open(&self, epoch_key: &DataKey) -> Result<Paper, OpenError> {
        let key = key(epoch_key, self.owner, self.kind, &self.salt);
        let (body, tag) = self.sealed.split_at(self.sealed.len() - TAG_LEN);
        let tag = tag.try_into().expect("split TAG_LEN from the end");
        let mut body = body.to_vec();
        key.open_in_place(&SINGLE_USE_NONCE, self.prefix, &mut body, tag)?;
        let paper = match self.kind {
            PaperKind::Request => Requested::from_bytes(&body).map(Paper::Requested),
            PaperKind::Open => Opened::from_bytes(&body).map(Paper::Opened),
            PaperKind::End => Ended::from_bytes(&body).map(Paper::Ended),
        };
        paper.map_err(|_| OpenError)
    }
}

fn key(epoch_key: &DataKey, owner: Owner, kind: PaperKind, salt: &Salt) -> AeadKey {
    let Owner { store, customer, session } = owner;
    let key = schedule::session_seal(epoch_key.secret(), store, customer, session, kind.id(), salt);
    AeadKey::new(Suite::Aes256Gcm, &key)
}

impl Encode for Paper {
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Requested(paper) => {
                paper.guest.encode(out);
                paper.at.encode(out);
                paper.limits.encode(out);
            }
            Self::Opened(paper) => {
                out.bytes(paper.kms_key.as_str().as_bytes());
                paper.at.encode(out);
                paper.limits.encode(out);
                out.u8(u8::from(paper.only.is_some()) | if paper.log.is_some() { WITH_LOG } else { 0 });
                if let Some(guest) = &paper.only {
                    guest.encode(out);
                }
                if let Some(log) = paper.log {
                    log.encode(out);
                }
            }
            Self::Ended(paper) => {
                paper.at.encode(out);
                out.u8(paper.why.id());
            }
        }
    }
}

impl Decode for Requested {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            guest: Guest::decode(from)?,
            at: Timestamp::decode(from)?,
            limits: SessionLimits::decode(from)?,
        })
    }
}

impl Decode for Opened {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kms_key = from.string("KMS key", KmsKeyId::MAX_LEN)?;
        let kms_key = kms_key.parse().map_err(|_| DecodeError::Invalid("KMS key"))?;
        let (at, limits) = (Timestamp::decode(from)?, SessionLimits::decode(from)?);
        let flags = from.u8()?;
        let only = match flags & !WITH_LOG {
            0 => None,
            1 => Some(Guest::decode(from)?),
            _ => return Err(DecodeError::Invalid("flag")),
        };
        let log = if flags & WITH_LOG == 0 { None } else { Some(Timestamp::decode(from)?) };
        Ok(Self { kms_key, at, log, limits, only })
    }
}

impl Decode for Ended {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let at = Timestamp::decode(from)?;
        let why = match from.u8()? {
            1 => EndReason::Asked,
            2 => EndReason::Idle,
            3 => EndReason::Expired,
            4 => EndReason::NoGrant,
            _ => return Err(DecodeError::Invalid("reason")),
        };
        Ok(Self { at, why })
    }
}

impl Encode for Guest {
    fn encode(&self, out: &mut Writer) {
        out.bytes(self.principal.to_string().as_bytes());
        out.bytes(self.purpose.code().as_bytes());
    }
}

impl Decode for Guest {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let principal = from.string("principal", PRINCIPAL_MAX_LEN)?;
        let principal = principal.parse().map_err(|_| DecodeError::Invalid("principal"))?;
        let purpose = from.string("purpose", PRINCIPAL_MAX_LEN)?;
        let purpose = purpose.parse().map_err(|_| DecodeError::Invalid("purpose"))?;
        Ok(Self { principal, purpose })
    }
}

impl Encode for SessionLimits {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.idle.as_secs()).u64(self.absolute.as_secs());
    }
}

impl Decode for SessionLimits {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut seconds = || Ok::<_, DecodeError>(Duration::from_secs(from.u64()?));
        let limits = Self { idle: seconds()?, absolute: seconds()? };
        limits.check().map_err(|_| DecodeError::Invalid("limits"))?;
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    const OWNER: Owner = Owner {
        store: StoreId::from_bytes([1; 16]),
        customer: CustomerId::from_bytes([2; 16]),
        session: SessionId::from_bytes([3; 16]),
    };

    fn epoch_key() -> DataKey {
        DataKey::new(Secret::init(|key| key.fill(0xE7)))
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros((1_795_314_373 + seconds) * 1_000_000).unwrap()
    }

    fn guest() -> Guest {
        Guest { principal: "person:p-17".parse().unwrap(), purpose: Purpose::Treatment }
    }

    fn opened(only: Option<Guest>) -> Opened {
        let kms_key = "local:000g40r40m30e209185gr38e1w".parse().unwrap();
        Opened { kms_key, at: at(0), log: None, limits: SessionLimits::DEFAULT, only }
    }

    fn moment(host: Timestamp) -> Moment {
        Moment { host, log: at(0) }
    }

    fn papers() -> [Paper; 6] {
        [
            Paper::Requested(Requested { guest: guest(), at: at(1), limits: SessionLimits::DEFAULT }),
            Paper::Opened(opened(None)),
            Paper::Opened(opened(Some(guest()))),
            Paper::Opened(Opened { log: Some(at(7)), ..opened(None) }),
            Paper::Opened(Opened { log: Some(at(7)), ..opened(Some(guest())) }),
            Paper::Ended(Ended { at: at(2), why: EndReason::Idle }),
        ]
    }

    #[test]
    fn a_paper_reads_back_in_its_place_and_in_no_other() {
        for paper in papers() {
            let kind = paper.kind();
            let bytes = paper.seal(OWNER, (5, &epoch_key()), [9; SALT_LEN]);
            let sealed = SealedPaper::parse(&bytes, OWNER, kind).unwrap();
            assert_eq!(sealed.epoch, 5);
            assert_eq!(sealed.open(&epoch_key()), Ok(paper.clone()));
            let other = DataKey::new(Secret::init(|key| key.fill(0xE8)));
            assert_eq!(sealed.open(&other), Err(OpenError));
            for elsewhere in [
                Owner { store: StoreId::from_bytes([9; 16]), ..OWNER },
                Owner { customer: CustomerId::from_bytes([9; 16]), ..OWNER },
                Owner { session: SessionId::from_bytes([9; 16]), ..OWNER },
            ] {
                assert!(SealedPaper::parse(&bytes, elsewhere, kind).is_err());
            }
            for another in [PaperKind::Request, PaperKind::Open, PaperKind::End] {
                assert_eq!(SealedPaper::parse(&bytes, OWNER, another).is_ok(), another == kind);
            }
        }
    }

    #[test]
    fn every_byte_of_a_paper_counts() {
        for paper in papers() {
            let good = paper.seal(OWNER, (5, &epoch_key()), [9; SALT_LEN]);
            let opens = |bytes: &[u8]| {
                let sealed = SealedPaper::parse(bytes, OWNER, paper.kind()).map_err(|_| OpenError)?;
                sealed.open(&epoch_key())
            };
            for position in 0..good.len() {
                let mut bad = good.clone();
                bad[position] ^= 1;
                // The epoch says which key to fetch: with that key it does not open.
                assert!(opens(&bad).is_err(), "byte {position}");
            }
            assert!(opens(&good[..good.len() - 1]).is_err());
            assert!(opens(&[&good[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn a_session_is_over_by_the_clock() {
        let opened = opened(None);
        let (idle, absolute) = (15 * 60, 8 * 3600);
        let over = |used, now| opened.over(used, moment(at(now)));
        assert_eq!(over(at(0), 0), None);
        assert_eq!(over(at(0), idle - 1), None);
        assert_eq!(over(at(0), idle), Some(EndReason::Idle));
        assert_eq!(over(at(100), idle + 99), None);
        assert_eq!(over(at(absolute - 1), absolute), Some(EndReason::Expired));
        // A use in the future keeps nothing open, neither for ever nor at all.
        assert_eq!(over(Timestamp::MAX, idle - 1), None);
        assert_eq!(over(Timestamp::MAX, idle), Some(EndReason::Idle));
        assert_eq!(over(at(idle + 200), idle), None);
        assert_eq!(over(Timestamp::MAX, absolute), Some(EndReason::Expired));
        // A clock that went back does not make a session idle, and says nothing of what is left of it.
        let before = moment(Timestamp::from_micros(0).unwrap());
        assert_eq!(opened.over(at(0), before), None);
        assert!(opened.is_later(before) && !opened.is_later(moment(at(0))));
    }

    #[test]
    fn the_log_ends_a_session_by_what_it_went_on_by() {
        let year = 365 * 86_400;
        let absolute = 8 * 3600;
        // The log is a year ahead: what counts is how it goes on.
        let ahead = Opened { log: Some(at(year)), ..opened(None) };
        let over = |log| ahead.over(at(60), Moment { host: at(60), log: at(log) });
        assert_eq!(over(year), None);
        assert_eq!(over(year + absolute - 1), None);
        assert_eq!(over(year + absolute), Some(EndReason::Expired));
        // One of an earlier version began at the log's time, if that was later.
        let old = opened(None);
        assert_eq!(old.over(at(60), Moment { host: at(60), log: at(absolute) }), Some(EndReason::Expired));
    }

    #[test]
    fn limits_are_bounded() {
        let limits = |idle, absolute| {
            let (idle, absolute) = (Duration::from_secs(idle), Duration::from_secs(absolute));
            SessionLimits { idle, absolute }.check().is_ok()
        };
        assert!(limits(60, 60) && limits(60, 86_400) && limits(86_400, 86_400));
        assert!(!limits(59, 60) && !limits(61, 60) && !limits(60, 86_401) && !limits(0, 0));
        assert_eq!(SessionLimits::DEFAULT.check(), Ok(()));
    }

    #[test]
    fn a_request_stands_for_a_week() {
        let asked = Requested { guest: guest(), at: at(0), limits: SessionLimits::DEFAULT };
        assert!(asked.stands(at(7 * 86_400)));
        let early = Requested { at: at(301), ..asked.clone() };
        assert!(!early.stands(at(0)) && early.stands(at(1)));
        assert!(!asked.stands(at(7 * 86_400 + 1)));
    }
}
