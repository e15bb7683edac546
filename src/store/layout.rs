//! Where each object lives: the only code that builds or reads object paths.
//!
//! | storage | path | what |
//! |---|---|---|
//! | blobs | `blob/<customer>/<day>/<blob>` | header and payload of one blob |
//! | blobs | `clock` | asks the storage for the time, where it has no other way to tell |
//! | blobs | `wrap/<customer>/<blob>/<kek>` | one more wrap of a blob's DEK |
//! | blobs | `name/<customer>/<tag>/<inverse time>-<blob>` | one use of a name |
//! | blobs | `once/<customer>/<tag>/<number>` | a claim of an idempotency key |
//! | keys | `ring/<customer>/<version>` | one version of a customer's ring |
//! | keys | `register/<version>` | one version of the store's register |
//! | keys | `epoch/<number>` | one epoch |
//! | keys | `session/<customer>/<session>/<paper>` | one paper of a session: `request`, `open`, `end` |
//! | keys | `session/<customer>/<session>/use/<time>` | that a session was used |
//! | keys | `label/<tag>` | which customer a label stands for |
//! | all | `store` | the marker of a store |
//! | all | `probe/<month>/<slot>` | what a storage was [tried](super::trial) with |
//!
//! Ids and tags are lower-case base32, days and months are ISO dates, versions and times
//! are 16 hexadecimal digits, epochs 8 and slots 1, so that text order is number order.
//!
//! Invariants: a path is made of opaque ids, tags of keyed hashes, days and
//! numbers, never of user text. Each object has one path, and what reads a path
//! back refuses every other spelling. Whoever writes to the storage chooses the
//! paths in a listing: a path that does not read back is not ours.

use object_store::path::Path;

use crate::id::{BlobId, CustomerId, KekId, SessionId, base32};
use crate::session::PaperKind;
use crate::time::{Day, Timestamp};

/// What a keyed hash made of a name or a label.
pub type Tag = [u8; 32];

/// Where a blob lives. Its id knows its day.
#[must_use]
pub fn blob(customer: CustomerId, blob: BlobId) -> Path {
    blobs_of_day(customer, blob.day()).join(blob.to_string())
}

/// The customer and the blob that live at `path`, if one does.
#[must_use]
pub fn read_blob(path: &Path) -> Option<(CustomerId, BlobId)> {
    let ["blob", customer, _, id] = parts(path)? else { return None };
    let (customer, id) = (customer.parse().ok()?, id.parse().ok()?);
    (blob(customer, id) == *path).then_some((customer, id))
}

/// The prefix of all blobs of a customer.
#[must_use]
pub fn blobs_of(customer: CustomerId) -> Path {
    Path::from_iter(["blob", &customer.to_string()])
}

/// The prefix of a customer's blobs that are retained until `day`.
#[must_use]
pub fn blobs_of_day(customer: CustomerId, day: Day) -> Path {
    let day = match day.date() {
        Some(_) => day.to_string(),
        // Only an id that nobody sealed has such a day; it leads nowhere.
        None => day.number().to_string(),
    };
    blobs_of(customer).join(day)
}

/// The customer and the day whose blobs lie under `prefix`, if it is such a
/// prefix.
#[must_use]
pub fn read_day(prefix: &Path) -> Option<(CustomerId, Day)> {
    let ["blob", customer, day] = parts(prefix)? else { return None };
    let (customer, day) = (customer.parse().ok()?, day.parse().ok()?);
    (blobs_of_day(customer, day) == *prefix).then_some((customer, day))
}

/// Where a storage is asked for the time by writing to it.
#[must_use]
pub fn clock() -> Path {
    Path::from_iter(["clock"])
}

/// Where one more wrap of a blob's DEK lives, by the key that wraps it.
#[must_use]
pub fn wrap(customer: CustomerId, blob: BlobId, kek: KekId) -> Path {
    wraps_of(customer, blob).join(kek.to_string())
}

/// The customer, the blob and the key of the wrap that lives at `path`, if one
/// does.
#[must_use]
pub fn read_wrap(path: &Path) -> Option<(CustomerId, BlobId, KekId)> {
    let ["wrap", customer, blob, kek] = parts(path)? else { return None };
    let (customer, blob, kek) = (customer.parse().ok()?, blob.parse().ok()?, kek.parse().ok()?);
    (wrap(customer, blob, kek) == *path).then_some((customer, blob, kek))
}

/// The prefix of all wraps of a blob beside the one in its header.
#[must_use]
pub fn wraps_of(customer: CustomerId, blob: BlobId) -> Path {
    wraps_of_customer(customer).join(blob.to_string())
}

/// The prefix of all such wraps of a customer.
#[must_use]
pub fn wraps_of_customer(customer: CustomerId) -> Path {
    Path::from_iter(["wrap", &customer.to_string()])
}

/// Where it is written that `blob` was given a name at `at`. The time is
/// inverted, so that in text order the newest use of a name comes first.
#[must_use]
pub fn name(customer: CustomerId, tag: &Tag, at: Timestamp, blob: BlobId) -> Path {
    names_of(customer, tag).join(format!("{:016x}-{blob}", u64::MAX - at.micros()))
}

/// The customer, time and blob of the use of a name that `path` holds, if it
/// holds one under `tag`.
#[must_use]
pub fn read_name(path: &Path, tag: &Tag) -> Option<(CustomerId, Timestamp, BlobId)> {
    let ["name", customer, _, entry] = parts(path)? else { return None };
    let (inverse, id) = entry.split_once('-')?;
    let at = Timestamp::from_micros(u64::MAX - u64::from_str_radix(inverse, 16).ok()?).ok()?;
    let (customer, id) = (customer.parse().ok()?, id.parse().ok()?);
    (name(customer, tag, at, id) == *path).then_some((customer, at, id))
}

/// The customer and the blob of the use of a name that lives at `path`, whatever the
/// name's tag, if one does.
#[must_use]
pub fn named_blob(path: &Path) -> Option<(CustomerId, BlobId)> {
    let ["name", _, tag, _] = parts(path)? else { return None };
    let tag: Tag = crate::id::read_base32(tag)?.try_into().ok()?;
    read_name(path, &tag).map(|(customer, _, blob)| (customer, blob))
}

/// The prefix of all uses of a customer's names.
#[must_use]
pub fn names_of_customer(customer: CustomerId) -> Path {
    Path::from_iter(["name", &customer.to_string()])
}

/// The prefix of all uses of one name. Not every storage lists in text order:
/// sort what comes.
#[must_use]
pub fn names_of(customer: CustomerId, tag: &Tag) -> Path {
    Path::from_iter(["name", &customer.to_string(), &base32(tag)])
}

/// Where a claim of an idempotency key lives.
#[must_use]
pub fn once(customer: CustomerId, tag: &Tag, number: u32) -> Path {
    once_of_customer(customer).join(base32(tag)).join(format!("{number:08x}"))
}

/// The customer whose claim lives at `path`, if one does.
#[must_use]
pub fn read_once(path: &Path) -> Option<CustomerId> {
    let ["once", customer, tag, number] = parts(path)? else { return None };
    let (customer, number) = (customer.parse().ok()?, u32::from_str_radix(number, 16).ok()?);
    let tag: Tag = crate::id::read_base32(tag)?.try_into().ok()?;
    (once(customer, &tag, number) == *path).then_some(customer)
}

/// The prefix of a customer's claims of idempotency keys.
#[must_use]
pub fn once_of_customer(customer: CustomerId) -> Path {
    all_once().join(customer.to_string())
}

/// The prefix of all claims of idempotency keys.
#[must_use]
pub fn all_once() -> Path {
    Path::from_iter(["once"])
}

/// Where a version of a customer's ring lives.
#[must_use]
pub fn ring(customer: CustomerId, version: u64) -> Path {
    rings_of(customer).join(format!("{version:016x}"))
}

/// The customer and the version of the ring that lives at `path`, if one does.
#[must_use]
pub fn read_ring(path: &Path) -> Option<(CustomerId, u64)> {
    let ["ring", customer, version] = parts(path)? else { return None };
    let (customer, version) = (customer.parse().ok()?, u64::from_str_radix(version, 16).ok()?);
    (ring(customer, version) == *path).then_some((customer, version))
}

/// The prefix of all versions of a customer's ring.
#[must_use]
pub fn rings_of(customer: CustomerId) -> Path {
    rings().join(customer.to_string())
}

/// The prefix of all rings.
#[must_use]
pub fn rings() -> Path {
    Path::from_iter(["ring"])
}

/// Where a version of the store's register lives.
#[must_use]
pub fn register(version: u64) -> Path {
    registers().join(format!("{version:016x}"))
}

/// The version of the register that lives at `path`, if one does.
#[must_use]
pub fn read_register(path: &Path) -> Option<u64> {
    let ["register", version] = parts(path)? else { return None };
    let version = u64::from_str_radix(version, 16).ok()?;
    (register(version) == *path).then_some(version)
}

/// The prefix of all versions of the store's register.
#[must_use]
pub fn registers() -> Path {
    Path::from_iter(["register"])
}

/// Where an epoch lives.
#[must_use]
pub fn epoch(number: u32) -> Path {
    epochs().join(format!("{number:08x}"))
}

/// The number of the epoch that lives at `path`, if one does.
#[must_use]
pub fn read_epoch(path: &Path) -> Option<u32> {
    let ["epoch", number] = parts(path)? else { return None };
    let number = u32::from_str_radix(number, 16).ok()?;
    (epoch(number) == *path).then_some(number)
}

/// The prefix of all epochs.
#[must_use]
pub fn epochs() -> Path {
    Path::from_iter(["epoch"])
}

/// Where it is written which customer a label stands for.
#[must_use]
pub fn label(tag: &Tag) -> Path {
    labels().join(base32(tag))
}

/// The tag of the label that lives at `path`, if one does.
#[must_use]
pub fn read_label(path: &Path) -> Option<Tag> {
    let ["label", text] = parts(path)? else { return None };
    crate::id::read_base32(text)?.try_into().ok()
}

/// The prefix of all labels.
#[must_use]
pub fn labels() -> Path {
    Path::from_iter(["label"])
}

/// Where a paper of a session lives.
#[must_use]
pub fn session_paper(customer: CustomerId, session: SessionId, paper: PaperKind) -> Path {
    session_folder(customer, session).join(paper.as_str())
}

/// Where it is written that a session was used at `at`.
#[must_use]
pub fn session_use(customer: CustomerId, session: SessionId, at: Timestamp) -> Path {
    session_folder(customer, session).join("use").join(format!("{:016x}", at.micros()))
}

/// What lies in a session's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfSession {
    /// A paper.
    Paper(PaperKind),
    /// A use at this time.
    Use(Timestamp),
}

/// The customer and the session of what lies at `path`, and which of its objects it is,
/// if it is one.
#[must_use]
pub fn read_session(path: &Path) -> Option<(CustomerId, SessionId, OfSession)> {
    if let Some(["session", customer, session, paper]) = parts(path) {
        let (customer, session, paper) = (customer.parse().ok()?, session.parse().ok()?, paper.parse().ok()?);
        let own = session_paper(customer, session, paper) == *path;
        return own.then_some((customer, session, OfSession::Paper(paper)));
    }
    let ["session", customer, session, "use", at] = parts(path)? else { return None };
    let (customer, session) = (customer.parse().ok()?, session.parse().ok()?);
    let at = Timestamp::from_micros(u64::from_str_radix(at, 16).ok()?).ok()?;
    (session_use(customer, session, at) == *path).then_some((customer, session, OfSession::Use(at)))
}

/// The prefix of all that there is of a session.
#[must_use]
pub fn session_folder(customer: CustomerId, session: SessionId) -> Path {
    sessions_of(customer).join(session.to_string())
}

/// The prefix of all sessions of a customer.
#[must_use]
pub fn sessions_of(customer: CustomerId) -> Path {
    Path::from_iter(["session", &customer.to_string()])
}

/// Where the marker of a store lives.
#[must_use]
pub fn store() -> Path {
    Path::from_iter(["store"])
}

/// Where a storage is tried in the month of `day`.
#[must_use]
pub fn probe(day: Day, slot: u8) -> Path {
    probes_of(day).join(format!("{slot:x}"))
}

/// The prefix of what a storage was tried with in the month of `day`.
#[must_use]
pub fn probes_of(day: Day) -> Path {
    let month = day.date().map_or((9999, 12), |date| (date.year(), date.month()));
    probes().join(format!("{:04}-{:02}", month.0, month.1))
}

/// The prefix of all that a storage was tried with.
#[must_use]
pub fn probes() -> Path {
    Path::from_iter(["probe"])
}

/// The slot of the object at `path`, if a storage was tried with it.
#[must_use]
pub fn read_probe(path: &Path) -> Option<u8> {
    let ["probe", month, slot] = parts(path)? else { return None };
    let day: Day = format!("{month}-01").parse().ok()?;
    let slot = u8::from_str_radix(slot, 16).ok()?;
    (probe(day, slot) == *path).then_some(slot)
}

/// The parts of a path that has exactly `N` of them.
fn parts<const N: usize>(path: &Path) -> Option<[&str; N]> {
    path.as_ref().split('/').collect::<Vec<_>>().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUSTOMER: CustomerId = CustomerId::from_bytes([3; 16]);

    fn id(random: u8) -> BlobId {
        BlobId::new("2028-05-22".parse().unwrap(), [random; 13]).unwrap()
    }

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    #[test]
    fn paths_read_back() {
        let path = blob(CUSTOMER, id(9));
        assert_eq!(path.as_ref(), format!("blob/{CUSTOMER}/2028-05-22/{}", id(9)));
        assert_eq!(read_blob(&path), Some((CUSTOMER, id(9))));
        assert!(path.prefix_matches(&blobs_of_day(CUSTOMER, id(9).day())));
        let day = blobs_of_day(CUSTOMER, id(9).day());
        assert_eq!(read_day(&day), Some((CUSTOMER, id(9).day())));

        let path = name(CUSTOMER, &[7; 32], at(1_000_000), id(9));
        assert!(path.as_ref().ends_with(&format!("/fffffffffff0bdbf-{}", id(9))), "{path}");
        assert_eq!(read_name(&path, &[7; 32]), Some((CUSTOMER, at(1_000_000), id(9))));
        assert_eq!(read_name(&path, &[8; 32]), None);
        assert_eq!(named_blob(&path), Some((CUSTOMER, id(9))));
        assert!(path.prefix_matches(&names_of_customer(CUSTOMER)));

        let kek = KekId::from_bytes([5; 16]);
        let path = wrap(CUSTOMER, id(9), kek);
        assert_eq!(path.as_ref(), format!("wrap/{CUSTOMER}/{}/{kek}", id(9)));
        assert_eq!(read_wrap(&path), Some((CUSTOMER, id(9), kek)));
        assert!(path.prefix_matches(&wraps_of(CUSTOMER, id(9))));
        assert!(path.prefix_matches(&wraps_of_customer(CUSTOMER)));

        let path = once(CUSTOMER, &[7; 32], 0x1f);
        assert_eq!(read_once(&path), Some(CUSTOMER));
        assert!(path.as_ref().ends_with("/0000001f") && path.prefix_matches(&once_of_customer(CUSTOMER)));
        assert!(path.prefix_matches(&all_once()));

        let path = ring(CUSTOMER, 0x1f);
        assert_eq!(path.as_ref(), format!("ring/{CUSTOMER}/000000000000001f"));
        assert_eq!(read_ring(&path), Some((CUSTOMER, 0x1f)));

        assert_eq!(register(0x1f).as_ref(), "register/000000000000001f");
        assert_eq!(read_register(&register(0x1f)), Some(0x1f));

        assert_eq!(epoch(255).as_ref(), "epoch/000000ff");
        assert_eq!(read_epoch(&epoch(255)), Some(255));
        assert_eq!(read_label(&label(&[7; 32])), Some([7; 32]));
        assert_eq!(store().as_ref(), "store");

        let day = id(9).day();
        assert_eq!(probe(day, 15).as_ref(), "probe/2028-05/f");
        assert_eq!(read_probe(&probe(day, 15)), Some(15));
        assert!(probe(day, 0).prefix_matches(&probes_of("2028-05-01".parse().unwrap())));
        for path in
            ["probe/2028-05", "probe/2028-5/1", "probe/2028-13/1", "probe/2028-05/F", "probe/2028-05/01"]
        {
            assert_eq!(read_probe(&Path::from(path)), None, "{path}");
        }
    }

    #[test]
    fn text_order_is_number_order_and_newest_first() {
        let newest_first = [Timestamp::MAX.micros(), 2_000_000, 1_000_001, 0].map(at);
        let names = newest_first.map(|at| name(CUSTOMER, &[7; 32], at, id(1)));
        assert!(names.is_sorted());
        assert!([0, 1, 15, 16, u64::MAX].map(|version| ring(CUSTOMER, version)).is_sorted());
        assert!([0, 9, 10, u32::MAX].map(epoch).is_sorted());
    }

    #[test]
    fn a_day_beyond_the_calendar_leads_nowhere() {
        let id = BlobId::from_bytes([0xff; 16]);
        let path = blob(CUSTOMER, id);
        assert_eq!(path.as_ref(), format!("blob/{CUSTOMER}/16777215/{id}"));
    }

    #[test]
    fn what_we_did_not_write_does_not_read() {
        let blob = id(9);
        for path in [
            format!("blob/{CUSTOMER}/2028-05-23/{blob}"),
            format!("blob/{CUSTOMER}/2028-05-22/{blob}/x"),
            format!("blob/{CUSTOMER}/2028-05-22"),
            format!("blob/{}/2028-05-22/{blob}", CUSTOMER.to_string().to_uppercase()),
            format!("blobs/{CUSTOMER}/2028-05-22/{blob}"),
            format!("blob/{CUSTOMER}/2028-05-22/{}", blob.to_string().to_uppercase()),
            String::new(),
        ] {
            assert_eq!(read_blob(&Path::from(path.clone())), None, "{path}");
        }
        for day in ["2028-5-22", "2028-02-30", "16777215", "x"] {
            assert_eq!(read_day(&Path::from(format!("blob/{CUSTOMER}/{day}"))), None, "{day}");
        }
        assert_eq!(read_day(&Path::from(format!("name/{CUSTOMER}/2028-05-22"))), None);
        let kek = KekId::from_bytes([5; 16]);
        for path in [
            format!("wrap/{CUSTOMER}/{blob}"),
            format!("wrap/{CUSTOMER}/{blob}/{kek}/x"),
            format!("wrap/{CUSTOMER}/{blob}/{}", kek.to_string().to_uppercase()),
            format!("wraps/{CUSTOMER}/{blob}/{kek}"),
        ] {
            assert_eq!(read_wrap(&Path::from(path.clone())), None, "{path}");
        }
        for version in ["1f", "000000000000001F", "+00000000000001f", "0000000000000001f", ""] {
            assert_eq!(read_ring(&Path::from(format!("ring/{CUSTOMER}/{version}"))), None, "{version}");
            assert_eq!(read_register(&Path::from(format!("register/{version}"))), None, "{version}");
        }
        for number in ["ff", "000000FF", "+00000ff", "0000000ff"] {
            assert_eq!(read_epoch(&Path::from(format!("epoch/{number}"))), None, "{number}");
        }
        let tag = base32(&[7; 32]);
        for text in [tag.to_uppercase(), tag[1..].to_owned(), format!("{tag}0"), format!("{}z", &tag[..51])] {
            assert_eq!(read_label(&Path::from(format!("label/{text}"))), None, "{text}");
        }
        let prefix = names_of(CUSTOMER, &[7; 32]);
        for entry in [
            format!("fffffffffff0bdbf{blob}"),
            format!("FFFFFFFFFFF0BDBF-{blob}"),
            format!("ffffffffff0bdbf-{blob}"),
            // Past the year 9999.
            format!("0000000000000000-{blob}"),
        ] {
            assert_eq!(read_name(&prefix.clone().join(entry.clone()), &[7; 32]), None, "{entry}");
        }
    }

    #[test]
    fn what_is_a_sessions_reads_back_in_one_spelling() {
        let session = SessionId::from_bytes([5; 16]);
        let kinds = [PaperKind::Request, PaperKind::Open, PaperKind::End];
        let papers = kinds.map(|kind| (session_paper(CUSTOMER, session, kind), OfSession::Paper(kind)));
        let used = (session_use(CUSTOMER, session, at(7)), OfSession::Use(at(7)));
        for (path, of) in papers.into_iter().chain([used]) {
            assert_eq!(read_session(&path), Some((CUSTOMER, session, of)));
            assert!(path.prefix_matches(&session_folder(CUSTOMER, session)));
            assert_eq!(read_session(&Path::from(format!("{path}/x"))), None);
            assert_eq!(read_session(&Path::from(path.as_ref().to_uppercase())), None);
        }
        let folder = session_folder(CUSTOMER, session);
        for stray in ["opened", "use", "use/7", "use/00000000000000g7"] {
            assert_eq!(read_session(&Path::from(format!("{folder}/{stray}"))), None, "{stray}");
        }
    }
}
