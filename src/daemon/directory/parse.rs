//! The mapping file as TOML, and what is checked of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use data_encoding::HEXLOWER;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::super::peer::{is_dns_name, is_uri};
use super::{ConfigError, Directory, Key};
use crate::access::policy::{Reach, Role, RoleMatrix, Subject};
use crate::access::{Factor, Principal};
use crate::id::CustomerId;
use crate::merkle::Hash;
use crate::time::Day;

/// How long a file is at most, in bytes.
const MAX_LEN: usize = 4 * 1024 * 1024;

/// How long the name of an issuer, and that of who it vouches for, is at most, in bytes
/// (OpenID Connect Core s2: 255 for the latter).
const MAX_TOKEN_NAME_LEN: usize = 255;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    principal: Vec<Spanned<Entry>>,
    #[serde(default)]
    revoked_certificates: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: Spanned<String>,
    roles: Vec<Spanned<String>>,
    customers: Spanned<Customers>,
    #[serde(default)]
    phi: bool,
    trained_until: Option<Spanned<String>>,
    #[serde(default)]
    certificate: Vec<Spanned<String>>,
    #[serde(default)]
    uid: Vec<Spanned<u32>>,
    #[serde(default)]
    token: Vec<Spanned<Token>>,
    factor: Option<Spanned<String>>,
    #[serde(default)]
    revoked_certificates: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    issuer: String,
    subject: String,
}

/// A word or a list.
enum Customers {
    Word(String),
    List(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for Customers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Customers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"all\" or a list of customer ids")
            }

            fn visit_str<E>(self, word: &str) -> Result<Customers, E> {
                Ok(Customers::Word(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Customers, A::Error> {
                let mut list = Vec::new();
                while let Some(each) = from.next_element()? {
                    list.push(each);
                }
                Ok(Customers::List(list))
            }
        }

        from.deserialize_any(Either)
    }
}

pub(super) fn parse(toml: &str) -> Result<Directory, ConfigError> {
    if toml.len() > MAX_LEN {
        return Err(ConfigError::new(1, "the file is longer than 4 MiB: take out who is not needed"));
    }
    let lines = Lines(toml);
    let file: File = toml::from_str(toml).map_err(|error| lines.unreadable(&error))?;
    let mut directory = Directory {
        subjects: Vec::new(),
        factors: Vec::new(),
        digest: Hash::of(toml.as_bytes()),
        credentials: BTreeMap::new(),
        revoked: BTreeSet::new(),
    };
    let mut principals = BTreeSet::new();
    for fingerprint in &file.revoked_certificates {
        directory.revoke(fingerprint, &lines)?;
    }
    for entry in file.principal {
        let at = &entry.span();
        let entry = entry.into_inner();
        for fingerprint in &entry.revoked_certificates {
            directory.revoke(fingerprint, &lines)?;
        }
        let subject = entry.subject(&lines)?;
        if !principals.insert(subject.principal.clone()) {
            return Err(lines.wrong(&entry.id.span(), "this principal is there twice: put the two together"));
        }
        let credentials = entry.credentials(&subject.principal, &lines)?;
        if credentials.is_empty() {
            return Err(
                lines.wrong(at, "a principal without `certificate`, `uid` and `token` can never be known")
            );
        }
        directory.factors.push(entry.factor(&subject.principal, &lines)?);
        let place = directory.subjects.len();
        for (key, span) in credentials {
            if directory.credentials.insert(key, place).is_some() {
                return Err(
                    lines.wrong(&span, "this credential is there twice: it can be of one principal, once")
                );
            }
        }
        directory.subjects.push(subject);
    }
    Ok(directory)
}

type Span = std::ops::Range<usize>;

impl Directory {
    fn revoke(&mut self, text: &Spanned<String>, lines: &Lines<'_>) -> Result<(), ConfigError> {
        let wrong = "a revoked certificate is given as the SHA-256 of its DER: 64 of 0-9 and a-f";
        let found = fingerprint(text.get_ref()).ok_or_else(|| lines.wrong(&text.span(), wrong))?;
        // Listed twice it is as revoked as once.
        self.revoked.insert(found);
        Ok(())
    }
}

impl Entry {
    fn subject(&self, lines: &Lines<'_>) -> Result<Subject, ConfigError> {
        let wrong = "`id` is a principal: `unix:<uid>`, `service:<id>` or `person:<id>`, an id being 1 to 64 of \
                     a-z, 0-9, '.', '_' and '-', and no name";
        let principal = self.id.get_ref().parse().map_err(|_| lines.wrong(&self.id.span(), wrong))?;
        let trained_until = match &self.trained_until {
            None => None,
            Some(text) => {
                let wrong = "`trained_until` is a day in the form \"YYYY-MM-DD\"";
                Some(text.get_ref().parse::<Day>().map_err(|_| lines.wrong(&text.span(), wrong))?)
            }
        };
        Ok(Subject {
            principal,
            roles: self.roles(lines)?,
            reach: self.reach(lines)?,
            phi: self.phi,
            trained_until,
        })
    }

    /// The second factor that goes with a person's certificates and uids. Their tokens assert
    /// theirs, and nobody else has one.
    fn factor(&self, principal: &Principal, lines: &Lines<'_>) -> Result<Option<Factor>, ConfigError> {
        let certificate = self.certificate.first().map(Spanned::span);
        let by_connection = certificate.or_else(|| self.uid.first().map(Spanned::span));
        let is_person = matches!(principal, Principal::Person(_));
        match (&self.factor, by_connection) {
            (None, Some(span)) if is_person => Err(lines.wrong(
                &span,
                "a certificate or a uid shows no second factor: name the one that goes with it (`factor = \"smart-card\"`, \
                 \"hardware-key\", \"biometric\" or \"otp\"), or give this person a `token`",
            )),
            (None, _) => Ok(None),
            (Some(text), Some(_)) if is_person => {
                let wrong = "`factor` is \"smart-card\", \"hardware-key\", \"biometric\" or \"otp\"";
                let factor = text.get_ref().parse::<Factor>().ok().filter(|factor| factor.can_be_mapped());
                factor.map(Some).ok_or_else(|| lines.wrong(&text.span(), wrong))
            }
            (Some(text), _) => Err(lines.wrong(
                &text.span(),
                "`factor` is for a person with a certificate or a uid: a token asserts its own, and programs have none",
            )),
        }
    }

    fn roles(&self, lines: &Lines<'_>) -> Result<BTreeSet<Role>, ConfigError> {
        let mut roles = BTreeSet::new();
        for text in &self.roles {
            let wrong = |what| lines.wrong(&text.span(), what);
            let role: Role = text.get_ref().parse().map_err(|_| {
                wrong(
                    "a role is writer, reader, backup-job, key-administrator, privacy-officer, auditor or operator",
                )
            })?;
            if !roles.iter().all(|other| RoleMatrix::go_together(role, *other)) {
                return Err(wrong(
                    "this role does not go together with another one of theirs: give it to another",
                ));
            }
            if !roles.insert(role) {
                return Err(wrong("this role is there twice: take one out"));
            }
        }
        match roles.is_empty() {
            true => {
                Err(lines.wrong(&self.id.span(), "without a role a principal may do nothing: give them one"))
            }
            false => Ok(roles),
        }
    }

    fn reach(&self, lines: &Lines<'_>) -> Result<Reach, ConfigError> {
        let list = match self.customers.get_ref() {
            Customers::Word(word) if word == "all" => return Ok(Reach::All),
            Customers::Word(_) => {
                return Err(
                    lines.wrong(&self.customers.span(), "`customers` is \"all\" or a list of customer ids")
                );
            }
            Customers::List(list) => list,
        };
        let mut customers = BTreeSet::new();
        for text in list {
            let wrong = |what| lines.wrong(&text.span(), what);
            let id: CustomerId = text
                .get_ref()
                .parse()
                .map_err(|_| wrong("this is not the id of a customer, as `customer list` shows it"))?;
            if !customers.insert(id) {
                return Err(wrong("this customer is there twice: take one out"));
            }
        }
        Ok(Reach::These(customers))
    }

    fn credentials(&self, principal: &Principal, lines: &Lines<'_>) -> Result<Vec<(Key, Span)>, ConfigError> {
        let mut keys = Vec::new();
        for text in &self.certificate {
            let wrong = "a certificate is given as a URI or a DNS name that is in it (without '*'), or as `sha256:` \
                         and the SHA-256 of its DER in hex";
            keys.push((san(text.get_ref()).ok_or_else(|| lines.wrong(&text.span(), wrong))?, text.span()));
        }
        for uid in &self.uid {
            keys.push((Key::Uid(*uid.get_ref()), uid.span()));
        }
        for token in &self.token {
            let Token { issuer, subject } = token.get_ref();
            let fit = |text: &str| !text.is_empty() && text.len() <= MAX_TOKEN_NAME_LEN;
            if !fit(issuer) || !fit(subject) {
                return Err(lines
                    .wrong(&token.span(), "the issuer and the subject of a token are 1 to 255 bytes each"));
            }
            keys.push((Key::Token { issuer: issuer.clone(), subject: subject.clone() }, token.span()));
        }
        // Under the name of a user of this host nobody else goes into the log.
        if let Principal::Unix(uid) = principal {
            let own = Key::Uid(*uid);
            if let Some((_, span)) = keys.iter().find(|(key, _)| *key != own) {
                return Err(
                    lines.wrong(span, "a `unix:` principal is known by its own uid alone: name a service")
                );
            }
        }
        Ok(keys)
    }
}

fn san(text: &str) -> Option<Key> {
    if let Some(hex) = text.strip_prefix("sha256:") {
        return fingerprint(hex).map(Key::Fingerprint);
    }
    match text.contains(':') {
        true => is_uri(text).then(|| Key::Uri(text.to_owned())),
        false => (is_dns_name(text) && !text.contains('*')).then(|| Key::Dns(text.to_ascii_lowercase())),
    }
}

fn fingerprint(hex: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

/// The text, to tell lines.
struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn wrong(&self, span: &Span, what: &'static str) -> ConfigError {
        let before = self.0.as_bytes().get(..span.start).unwrap_or(self.0.as_bytes());
        ConfigError::new(before.iter().filter(|byte| **byte == b'\n').count() + 1, what)
    }

    /// What the parser found. Its own sentence may repeat a key or a value, so that only its
    /// beginning, and the names of our own keys, are looked at.
    fn unreadable(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        let message = error.message();
        let what = if message.starts_with("unknown field") {
            "there is no such key here: the keys of a principal are id, roles, customers, phi, trained_until, \
             certificate, uid, token (issuer, subject), factor and revoked_certificates"
        } else if message.starts_with("missing field") {
            match message {
                "missing field `id`" => "this principal has no `id`",
                "missing field `roles`" => "this principal has no `roles`",
                "missing field `customers`" => {
                    "this principal has no `customers`: \"all\", or a list of their ids"
                }
                _ => "this token has no `issuer` or no `subject`",
            }
        } else if message.starts_with("invalid") {
            "this value is of another kind than its key takes: see the manual for an example"
        } else {
            "this is not TOML, or a key is there twice"
        };
        self.wrong(&span, what)
    }
}
