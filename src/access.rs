//! Who asks, and why: the [`Principal`], its [`Origin`] and the [`Purpose`].
//!
//! A façade handle cannot be had without an [`Access`], so that no key is used
//! without a name and a reason in the log. Nothing here is free text: a
//! principal is a number or a slug, a purpose is a code.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{EmergencyId, RequestId, SessionId};

pub(crate) mod factor;
pub mod policy;
pub(crate) mod principal;

pub use factor::Factor;
pub use policy::RuleId;
pub use principal::{ParseAccessError, Principal, PrincipalId};

/// From where the request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Origin {
    /// A process on this host, by its number.
    Process(u32),
    /// A peer on the network.
    Address(IpAddr),
}

/// Why: the codes of HL7 v3 `PurposeOfUse` (value set 2.16.840.1.113883.1.11.20448)
/// that a store of records meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Purpose {
    /// Treatment.
    #[serde(rename = "TREAT")]
    Treatment,
    /// Emergency treatment.
    #[serde(rename = "ETREAT")]
    EmergencyTreatment,
    /// Healthcare payment.
    #[serde(rename = "HPAYMT")]
    Payment,
    /// Healthcare operations.
    #[serde(rename = "HOPERAT")]
    Operations,
    /// Record management.
    #[serde(rename = "RECORDMGT")]
    RecordManagement,
    /// Healthcare system administration: backups and restores.
    #[serde(rename = "HSYSADMIN")]
    SystemAdministration,
    /// Healthcare research.
    #[serde(rename = "HRESCH")]
    Research,
    /// Public health.
    #[serde(rename = "PUBHLTH")]
    PublicHealth,
    /// Patient requested.
    #[serde(rename = "PATRQT")]
    PatientRequest,
    /// Legal.
    #[serde(rename = "HLEGAL")]
    Legal,
    /// Healthcare compliance: audits.
    #[serde(rename = "HCOMPL")]
    Compliance,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Treatment,
        Self::EmergencyTreatment,
        Self::Payment,
        Self::Operations,
        Self::RecordManagement,
        Self::SystemAdministration,
        Self::Research,
        Self::PublicHealth,
        Self::PatientRequest,
        Self::Legal,
        Self::Compliance,
    ];

    /// The HL7 code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Treatment => "TREAT",
            Self::EmergencyTreatment => "ETREAT",
            Self::Payment => "HPAYMT",
            Self::Operations => "HOPERAT",
            Self::RecordManagement => "RECORDMGT",
            Self::SystemAdministration => "HSYSADMIN",
            Self::Research => "HRESCH",
            Self::PublicHealth => "PUBHLTH",
            Self::PatientRequest => "PATRQT",
            Self::Legal => "HLEGAL",
            Self::Compliance => "HCOMPL",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl FromStr for Purpose {
    type Err = ParseAccessError;

    fn from_str(text: &str) -> Result<Self, ParseAccessError> {
        let found = Self::ALL.into_iter().find(|purpose| purpose.code() == text);
        found.ok_or(ParseAccessError(
            "purpose (an HL7 PurposeOfUse code: TREAT, ETREAT, HPAYMT, HOPERAT, RECORDMGT, HSYSADMIN, \
             HRESCH, PUBHLTH, PATRQT, HLEGAL, HCOMPL)",
        ))
    }
}

/// Who asks, from where and why: what every façade handle is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Who.
    pub principal: Principal,
    /// From where.
    pub origin: Origin,
    /// Why.
    pub purpose: Purpose,
    /// The rule of the policy that allowed it, where there was one to ask.
    pub rule: Option<RuleId>,
    /// Within which session, where the customer opens one.
    pub session: Option<SessionId>,
    /// The request of a client that it is done for: the cause of what is recorded.
    pub request: Option<RequestId>,
    /// In which emergency, where one was declared.
    pub emergency: Option<EmergencyId>,
    /// Which second factor a person had, where they were asked for one.
    pub factor: Option<Factor>,
}

impl Access {
    /// Access by `principal` within this process, for `purpose`.
    #[must_use]
    pub fn new(principal: Principal, purpose: Purpose) -> Self {
        let origin = Origin::Process(std::process::id());
        Self {
            principal,
            origin,
            purpose,
            rule: None,
            session: None,
            request: None,
            emergency: None,
            factor: None,
        }
    }

    /// The same access on behalf of a peer.
    #[must_use]
    pub fn from_origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// The same access, allowed by a rule.
    #[must_use]
    pub fn by_rule(mut self, rule: RuleId) -> Self {
        self.rule = Some(rule);
        self
    }

    /// The same access, for a client's request.
    #[must_use]
    pub fn for_request(mut self, request: RequestId) -> Self {
        self.request = Some(request);
        self
    }

    /// The same access, within a session.
    #[must_use]
    pub fn within(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    /// The same access, in an emergency that its principal declared: what reads is
    /// recorded there where the log cannot be written
    /// ([`emergency`](crate::audit::emergency)).
    #[must_use]
    pub fn in_emergency(mut self, emergency: EmergencyId) -> Self {
        self.emergency = Some(emergency);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_have_one_text_and_no_room_for_prose() {
        for good in ["unix:0", "service:nightly-backup", "person:p-17"] {
            assert_eq!(good.parse::<Principal>().unwrap().to_string(), good);
        }
        for bad in ["unix:01", "unix:-1", "Jane Doe", "person:Jane Doe", "service:", "root"] {
            let error = bad.parse::<Principal>().unwrap_err();
            assert!(!error.to_string().contains("Jane"));
        }
    }

    #[test]
    fn purposes_serialise_as_their_codes() {
        for purpose in Purpose::ALL {
            assert_eq!(serde_json::to_value(purpose).unwrap(), purpose.code());
            assert_eq!(purpose.code().parse(), Ok(purpose));
        }
        assert!("treat".parse::<Purpose>().is_err());
    }
}
