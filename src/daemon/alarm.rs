//! Alarms: what somebody has to be told at once.
//!
//! Each is counted, written to the daemon's own log, and, where a webhook is configured, sent to
//! it over TLS. What goes out is a small JSON object of a kind, ids and a time:
//!
//! | member | what |
//! |---|---|
//! | `alarm` | the id of this alarm, the same however often it is sent |
//! | `kind` | what it is about ([`AlarmKind::as_str`]) |
//! | `store` | the store |
//! | `customer` | the customer, if it is about one |
//! | `request` | the request in which it was noticed, as the audit log names it, if it was one |
//! | `at` | when it was noticed |
//!
//! Where they come from: errors, as they pass the daemon on their way to a client
//! (`watch`) or out of its own tasks ([`Alarms::observe`]); what [`checks`](super::checks) and
//! [`drills`](super::drills) find; and whoever raises one by name ([`Alarms::raise`]). The
//! library knows nothing of them.
//!
//! Invariants: raising one never waits, for a network or for a disk. Nothing personal and no
//! text is in one. The same about the same is sent once in a while
//! ([`AlarmsConfig`](super::config::AlarmsConfig)), and counted each time.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http_body_util::BodyExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::audit::log::TimeDoubt;
use crate::entropy::{Entropy, random};
use crate::error::{Error, ErrorKind};
use crate::id::{AlarmId, CustomerId, RequestId, StoreId};
use crate::time::{Clock, Timestamp};

mod delivery;
pub(crate) mod spool;
mod webhook;

pub use delivery::Delivery;
pub use webhook::Webhook;

/// How many alarms wait to be sent at most. One more is lost, and that is counted.
const MAX_WAITING: usize = 1024;

/// About how many different things alarms are sent in one while. Whoever asks about customers
/// that are none does not fill memory.
const MAX_SUBJECTS: usize = 4096;

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AlarmKind {
    /// What is stored contradicts the audit log or itself: a ring or the log was rolled back,
    /// rewritten or altered ([`ErrorKind::Integrity`]).
    Rollback,
    /// Stored bytes are not what was sealed: a tag, a commitment or a context did not verify
    /// ([`ErrorKind::Authentication`]).
    Authentication,
    /// An epoch does not come to its end, or the next one does not begin, so that what was
    /// destroyed is not final.
    EpochStuck,
    /// A KMS key is disabled, denied, about to be deleted or gone, and nobody here asked for it.
    KeyState,
    /// Somebody uses emergency access (45 CFR 164.312(a)(2)(ii)).
    EmergencyAccess,
    /// A scheduled verification found a failure, or could not be done.
    VerificationFailed,
    /// The audit log cannot be written, so that everything is refused.
    LogUnwritable,
    /// The audit log was not published for three times as long as it should be.
    LogUnpublished,
    /// This host's clock is not believed, or the audit log has an entry from the future, so that nothing
    /// new can be promised ([`TimeDoubt`]).
    ClockDoubt,
}

impl AlarmKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Rollback,
        Self::Authentication,
        Self::EpochStuck,
        Self::KeyState,
        Self::EmergencyAccess,
        Self::VerificationFailed,
        Self::LogUnwritable,
        Self::LogUnpublished,
        Self::ClockDoubt,
    ];

    /// The kind as a stable identifier, in alarms and in figures.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Authentication => "authentication",
            Self::EpochStuck => "epoch-stuck",
            Self::KeyState => "key-state",
            Self::EmergencyAccess => "emergency-access",
            Self::VerificationFailed => "verification-failed",
            Self::LogUnwritable => "log-unwritable",
            Self::LogUnpublished => "log-unpublished",
            Self::ClockDoubt => "clock-doubt",
        }
    }

    /// The alarm that an error is a reason for. `None`: the client's own affair, or a fault that
    /// passes by itself.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        match error.kind() {
            _ if TimeDoubt::of(error).is_some() => Some(Self::ClockDoubt),
            ErrorKind::Authentication => Some(Self::Authentication),
            ErrorKind::Integrity => Some(Self::Rollback),
            ErrorKind::KeyUnavailable => Some(Self::KeyState),
            // With a certificate, somebody ordered it; a KMS key that is gone has none.
            ErrorKind::KeyDestroyed if error.certificate().is_none() => Some(Self::KeyState),
            ErrorKind::AuditUnavailable => Some(Self::LogUnwritable),
            ErrorKind::KeyDestroyed
            | ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::InvalidInput
            | ErrorKind::UnsupportedFormat
            | ErrorKind::Unavailable
            | ErrorKind::Conflict
            | ErrorKind::Io
            | ErrorKind::Configuration
            | ErrorKind::Denied => None,
        }
    }

    /// Whether each occurrence is one of its own, however soon it comes after another.
    const fn is_each_sent(self) -> bool {
        matches!(self, Self::EmergencyAccess)
    }
}

/// Whom and what an alarm is about. Two about the same, but for the request, are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The customer.
    pub customer: Option<CustomerId>,
    /// The epoch. It is not sent: `epoch status` shows which.
    pub epoch: Option<u32>,
    /// The request in which it was noticed.
    pub request: Option<RequestId>,
}

impl About {
    /// One customer.
    #[must_use]
    pub fn customer(customer: CustomerId) -> Self {
        Self { customer: Some(customer), ..Self::default() }
    }

    /// One epoch.
    #[must_use]
    pub fn epoch(number: u32) -> Self {
        Self { epoch: Some(number), ..Self::default() }
    }
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alarm {
    /// Its id.
    #[serde(rename = "alarm")]
    pub id: AlarmId,
    /// What it is about.
    pub kind: AlarmKind,
    /// The store.
    pub store: StoreId,
    /// The customer, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub customer: Option<CustomerId>,
    /// The request in which it was noticed, if it was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request: Option<RequestId>,
    /// When it was noticed.
    pub at: Timestamp,
}

/// Where alarms are raised. Clones share everything. The default counts them, and sends none.
#[derive(Clone, Debug, Default)]
pub struct Alarms {
    figures: Counted,
    sending: Option<Arc<Sending>>,
}

/// Whose alarms are sent, and how often.
#[derive(Debug)]
pub struct Sender {
    /// The store.
    pub store: StoreId,
    /// How long after one another about the same is not sent.
    pub repeat: Duration,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of ids.
    pub entropy: Arc<dyn Entropy>,
}

struct Sending {
    sender: Sender,
    queue: mpsc::Sender<Alarm>,
    /// When what was sent last, in uptime.
    recent: Mutex<HashMap<Subject, Duration>>,
}

type Subject = (AlarmKind, Option<CustomerId>, Option<u32>);

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("sender", &self.sender).finish_non_exhaustive()
    }
}

/// What is counted of alarms.
#[derive(Clone, Debug, Default)]
struct Counted {
    raised: Family<Kind, Counter<u64, AtomicU64>>,
    deliveries: Family<Ended, Counter<u64, AtomicU64>>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    result: &'static str,
}

impl Counted {
    fn delivery(&self, result: &'static str) {
        self.deliveries.get_or_create(&Ended { result }).inc();
    }
}

impl Alarms {
    /// Alarms that are sent to a webhook, by a [`Delivery`] that is to be run.
    #[must_use]
    pub fn sent(sender: Sender, webhook: Webhook) -> (Self, Delivery) {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let (figures, entropy) = (Counted::default(), Arc::clone(&sender.entropy));
        let delivery = Delivery::new(webhook, waiting, figures.clone(), entropy);
        let sending = Sending { sender, queue, recent: Mutex::default() };
        (Self { figures, sending: Some(Arc::new(sending)) }, delivery)
    }

    /// Raises an alarm. It does not wait.
    pub fn raise(&self, kind: AlarmKind, about: About) {
        self.figures.raised.get_or_create(&Kind { kind: kind.as_str() }).inc();
        let Some(sending) = &self.sending else {
            return tell(kind, about, None);
        };
        if !sending.is_new(kind, about) {
            return;
        }
        let sender = &sending.sender;
        let Ok(id) = random(&*sender.entropy).map(AlarmId::from_bytes) else {
            return tell(kind, about, None);
        };
        tell(kind, about, Some(id));
        let (About { customer, request, .. }, at) = (about, sender.clock.now());
        if sending.queue.try_send(Alarm { id, kind, store: sender.store, customer, request, at }).is_err() {
            self.figures.delivery("lost");
            tracing::error!(alarm = %id, "too many alarms wait to be sent: this one is not");
        }
    }

    /// Raises an alarm if an error is a reason for one.
    pub fn observe(&self, error: &Error, about: About) {
        if let Some(kind) = AlarmKind::of(error) {
            self.raise(kind, about);
        }
    }

    /// Puts what is counted among other figures.
    pub(super) fn register(&self, registry: &mut Registry) {
        for kind in AlarmKind::ALL {
            // Each is there from the beginning, so that a first one is an increase.
            let _ = self.figures.raised.get_or_create(&Kind { kind: kind.as_str() });
        }
        registry.register("alarms", "Alarms that were raised, by kind", self.figures.raised.clone());
        registry.register(
            "alarm_deliveries",
            "Attempts to send an alarm, by how they ended",
            self.figures.deliveries.clone(),
        );
    }
}

impl Sending {
    /// Whether nothing was sent about the same for a while. Then something is now.
    fn is_new(&self, kind: AlarmKind, about: About) -> bool {
        if kind.is_each_sent() {
            return true;
        }
        let Sender { clock, repeat, .. } = &self.sender;
        let now = clock.uptime();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|_, sent| now.saturating_sub(*sent) < *repeat);
        // The log is everybody's.
        let customer = about.customer.filter(|_| kind != AlarmKind::LogUnwritable);
        let subject = (kind, customer, about.epoch);
        if recent.contains_key(&subject) || recent.len() >= MAX_SUBJECTS {
            return false;
        }
        recent.insert(subject, now);
        true
    }
}

/// For whoever reads the daemon's log.
fn tell(kind: AlarmKind, about: About, alarm: Option<AlarmId>) {
    tracing::error!(
        kind = kind.as_str(),
        alarm = alarm.map(display),
        customer = about.customer.map(display),
        epoch = about.epoch,
        request = about.request.map(display),
        "alarm"
    );
}

/// Raises what an answer is a reason for: the [`AlarmKind`] that is in its extensions, and the
/// error that breaks off its body, if it is one of ours.
pub(super) fn watch(alarms: &Alarms, about: About, response: Response) -> Response {
    // A KMS key that a client names, for a customer or an epoch to come, is its own affair.
    let known = |kind: &&AlarmKind| **kind != AlarmKind::KeyState || about.customer.is_some();
    if let Some(kind) = response.extensions().get::<AlarmKind>().filter(known) {
        alarms.raise(*kind, about);
    }
    if !response.status().is_success() {
        return response;
    }
    let alarms = alarms.clone();
    response.map(|body| {
        Body::new(body.map_err(move |error| {
            let error = error.into_inner();
            if let Some(error) = ours(&*error) {
                alarms.observe(error, about);
            }
            axum::Error::new(error)
        }))
    })
}

/// The error of ours that others wrapped.
fn ours<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    if let Some(error) = error.downcast_ref::<Error>() {
        return Some(error);
    }
    // What is in an `io::Error` is not its source.
    let within = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match within {
        Some(within) => ours(within),
        None => ours(error.source()?),
    }
}

/// The customer that a path is about: `/v1/customers/<id>/…`.
pub(super) fn customer_of(path: &str) -> Option<CustomerId> {
    path.strip_prefix("/v1/customers/")?.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use axum::body::{Bytes, to_bytes};
    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use futures_util::stream;

    use super::*;
    use crate::id::CertificateId;
    use crate::system::{SystemClock, SystemEntropy};

    const ACME: CustomerId = CustomerId::from_bytes([7; 16]);

    #[derive(Debug)]
    struct Uptime(Mutex<Duration>);

    impl Clock for Uptime {
        fn now(&self) -> Timestamp {
            SystemClock.now()
        }

        fn uptime(&self) -> Duration {
            *self.0.lock().unwrap()
        }
    }

    fn alarms() -> (Alarms, mpsc::Receiver<Alarm>, Arc<Uptime>) {
        let (queue, waiting) = mpsc::channel(3);
        let clock = Arc::new(Uptime(Mutex::default()));
        let sender = Sender {
            store: StoreId::from_bytes([1; 16]),
            repeat: Duration::from_secs(60),
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
        };
        let sending = Some(Arc::new(Sending { sender, queue, recent: Mutex::default() }));
        (Alarms { figures: Counted::default(), sending }, waiting, clock)
    }

    fn count(alarms: &Alarms, kind: AlarmKind) -> u64 {
        alarms.figures.raised.get_or_create(&Kind { kind: kind.as_str() }).get()
    }

    #[test]
    fn every_kind_of_error_is_an_alarm_or_is_not() {
        use ErrorKind as K;
        let of = |kind| AlarmKind::of(&Error::new(kind, "x"));
        for (kind, alarm) in [
            (K::Authentication, Some(AlarmKind::Authentication)),
            (K::Integrity, Some(AlarmKind::Rollback)),
            (K::KeyUnavailable, Some(AlarmKind::KeyState)),
            (K::KeyDestroyed, Some(AlarmKind::KeyState)),
            (K::AuditUnavailable, Some(AlarmKind::LogUnwritable)),
            (K::NotFound, None),
            (K::AlreadyExists, None),
            (K::InvalidInput, None),
            (K::UnsupportedFormat, None),
            (K::Unavailable, None),
            (K::Conflict, None),
            (K::Io, None),
            (K::Configuration, None),
            (K::Denied, None),
        ] {
            assert_eq!(of(kind), alarm, "{kind}");
        }
        let ordered = Error::new(K::KeyDestroyed, "x").with_certificate(CertificateId::from_bytes([1; 16]));
        assert_eq!(AlarmKind::of(&ordered), None, "a destruction that was ordered is none");
    }

    #[test]
    fn the_same_is_sent_once_in_a_while_and_counted_each_time() {
        let (alarms, mut waiting, clock) = alarms();
        for _ in 0..5 {
            alarms.raise(AlarmKind::Authentication, About::customer(ACME));
        }
        let first = waiting.try_recv().unwrap();
        assert_eq!((first.kind, first.customer), (AlarmKind::Authentication, Some(ACME)));
        assert!(waiting.try_recv().is_err());
        assert_eq!(count(&alarms, AlarmKind::Authentication), 5);
        // Of another kind, of somebody else, another epoch; and each emergency.
        alarms.raise(AlarmKind::Rollback, About::customer(ACME));
        alarms.raise(AlarmKind::Authentication, About::customer(CustomerId::from_bytes([8; 16])));
        for (one, other) in [(1, 2), (1, 2)] {
            let got = [waiting.try_recv().is_ok(), waiting.try_recv().is_ok()];
            assert_eq!(got, [true; 2]);
            alarms.raise(AlarmKind::EmergencyAccess, About::epoch(one));
            alarms.raise(AlarmKind::EmergencyAccess, About::epoch(other));
        }
        assert!(waiting.try_recv().is_ok() && waiting.try_recv().is_ok() && waiting.try_recv().is_err());
        *clock.0.lock().unwrap() = Duration::from_secs(60);
        alarms.raise(AlarmKind::Authentication, About::customer(ACME));
        assert_ne!(waiting.try_recv().unwrap().id, first.id, "the next one has an id of its own");
    }

    #[test]
    fn too_many_are_lost_and_nobody_waits() {
        let (alarms, _waiting, _) = alarms();
        for number in 0..5 {
            alarms.raise(AlarmKind::EpochStuck, About::epoch(number));
        }
        let lost = alarms.figures.deliveries.get_or_create(&Ended { result: "lost" }).get();
        assert_eq!((lost, count(&alarms, AlarmKind::EpochStuck)), (2, 5));
    }

    #[test]
    fn what_is_sent_is_ids_a_kind_and_a_time() {
        let (alarms, mut waiting, _) = alarms();
        let request = Some(RequestId::from_bytes([3; 16]));
        alarms.raise(AlarmKind::KeyState, About { request, ..About::customer(ACME) });
        let alarm = waiting.try_recv().unwrap();
        let text = serde_json::to_value(alarm).unwrap();
        let members: Vec<_> = text.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["alarm", "at", "customer", "kind", "request", "store"]);
        assert_eq!(
            (text["kind"].as_str(), text["customer"].as_str()),
            (Some("key-state"), Some(&*ACME.to_string()))
        );
        assert_eq!(serde_json::from_value::<Alarm>(text).unwrap(), alarm);
        for kind in AlarmKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_raises_what_broke_it() {
        let broken = |error: std::io::Error| {
            let pieces = [Ok(Bytes::from_static(b"part")), Err(error)];
            Body::from_stream(stream::iter(pieces)).into_response()
        };
        let ours = std::io::Error::other(Error::authentication());
        for (error, raised) in [(ours, 1), (std::io::Error::other("the client left"), 0)] {
            let alarms = Alarms::default();
            let response = watch(&alarms, About::customer(ACME), broken(error));
            assert_eq!(count(&alarms, AlarmKind::Authentication), 0, "not before it does");
            assert!(to_bytes(response.into_body(), 100).await.is_err());
            assert_eq!(count(&alarms, AlarmKind::Authentication), raised);
        }
    }

    #[test]
    fn an_answer_says_what_it_is_a_reason_for() {
        let alarms = Alarms::default();
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(AlarmKind::Rollback);
        let _ = watch(&alarms, About::default(), response);
        assert_eq!(count(&alarms, AlarmKind::Rollback), 1);
        for (about, raised) in [(About::default(), 0), (About::customer(ACME), 1)] {
            let mut response = StatusCode::FORBIDDEN.into_response();
            response.extensions_mut().insert(AlarmKind::KeyState);
            let _ = watch(&alarms, about, response);
            assert_eq!(count(&alarms, AlarmKind::KeyState), raised);
        }
        assert_eq!(customer_of(&format!("/v1/customers/{ACME}/blobs/x")), Some(ACME));
        for path in ["/v1/customers", "/v1/customers/find", "/v1/customers/", "/x"] {
            assert_eq!(customer_of(path), None);
        }
    }
}
