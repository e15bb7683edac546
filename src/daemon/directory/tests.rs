use super::super::oidc::Claims;
use super::super::peer::ClientCertificate;
use super::*;
use crate::access::policy::{Reach, Role};

use data_encoding::HEXLOWER;
use rcgen::{CertificateParams, KeyPair, SanType};

const GOOD: &str = r#"
[[principal]]
id = "service:nightly-backup"
roles = ["backup-job"]
customers = "all"
phi = true
trained_until = "2027-05-01"
certificate = ["spiffe://clinic/backup", "Backup.clinic.example"]
uid = [1001]

[[principal]]
id = "person:p-17"
roles = ["reader", "writer"]
customers = ["000g40r40m30e209185gr38e1w"]
token = [{ issuer = "https://idp.example", subject = "abc" }]
"#;

fn certificate(names: &[&str]) -> ClientCertificate {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names
        .iter()
        .map(|name| match name.contains(':') {
            true => SanType::URI((*name).try_into().unwrap()),
            false => SanType::DnsName((*name).try_into().unwrap()),
        })
        .collect();
    let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    ClientCertificate::from_der(made.der()).unwrap()
}

fn who(directory: &Directory, credential: Credential<'_>) -> Result<String, Stranger> {
    directory.identify(&credential).map(|known| known.subject.principal.to_string())
}

fn with(lines: &str) -> String {
    format!("[[principal]]\nid = \"service:a\"\nroles = [\"reader\"]\ncustomers = \"all\"\n{lines}\n")
}

#[test]
fn each_credential_is_of_its_principal() {
    let directory = Directory::parse(GOOD).unwrap();
    let backup = Ok("service:nightly-backup".to_owned());
    for names in [
        &["spiffe://clinic/backup"][..],
        &["backup.CLINIC.example"],
        &["spiffe://clinic/backup", "backup.clinic.example", "other.example"],
    ] {
        assert_eq!(who(&directory, Credential::Certificate(&certificate(names))), backup);
    }
    assert_eq!(who(&directory, Credential::Uid(1001)), backup);
    let claims = Claims::for_test("https://idp.example", "abc", true);
    assert_eq!(who(&directory, Credential::Token(&claims)), Ok("person:p-17".to_owned()));

    let Identified { subject, factor } = directory.identify(&Credential::Uid(1001)).unwrap();
    assert_eq!(factor, None);
    assert_eq!((subject.phi, &subject.reach), (true, &Reach::All));
    assert_eq!(subject.trained_until, Some("2027-05-01".parse().unwrap()));
    assert_eq!(subject.roles, BTreeSet::from([Role::BackupJob]));
    let other = &directory.subjects()[1];
    assert!(!other.phi && other.trained_until.is_none());
    let Reach::These(customers) = &other.reach else { panic!("not all") };
    assert!(customers.contains(&"000g40r40m30e209185gr38e1w".parse().unwrap()));
}

#[test]
fn whoever_is_not_in_it_is_nobody() {
    let directory = Directory::parse(GOOD).unwrap();
    for names in [
        &[][..],
        &["spiffe://clinic/backup/x"],
        &["spiffe://clinic/Backup"],
        &["clinic.example"],
        &["*.clinic.example"],
    ] {
        assert_eq!(who(&directory, Credential::Certificate(&certificate(names))), Err(Stranger::Unknown));
    }
    assert_eq!(who(&directory, Credential::Uid(0)), Err(Stranger::Unknown));
    for (issuer, subject) in [("https://idp.example", "abd"), ("https://idp.example/", "abc")] {
        let claims = Claims::for_test(issuer, subject, true);
        assert_eq!(who(&directory, Credential::Token(&claims)), Err(Stranger::Unknown));
    }
    let nobody = Directory::parse("").unwrap();
    assert_eq!(who(&nobody, Credential::Uid(1001)), Err(Stranger::Unknown));
}

#[test]
fn a_person_needs_a_second_factor_and_a_service_does_not() {
    let directory = Directory::parse(GOOD).unwrap();
    let claims = Claims::for_test("https://idp.example", "abc", false);
    assert_eq!(who(&directory, Credential::Token(&claims)), Err(Stranger::SecondFactorMissing));
    let service = with("token = [{ issuer = \"https://idp.example\", subject = \"abc\" }]");
    let directory = Directory::parse(&service).unwrap();
    assert_eq!(who(&directory, Credential::Token(&claims)), Ok("service:a".to_owned()));
}

/// Of a token, what it asserts; of a certificate and a uid, what the file says.
#[test]
fn the_second_factor_of_a_person_is_known() {
    let person = |lines: &str| with(lines).replace("service:a", "person:p-18");
    let text = person(
        "certificate = [\"p-18.example\"]\nuid = [1018]\nfactor = \"smart-card\"\n\
         token = [{ issuer = \"https://idp.example\", subject = \"abc\" }]",
    );
    let directory = Directory::parse(&text).unwrap();
    let factor = |credential: Credential<'_>| directory.identify(&credential).map(|known| known.factor);
    let shown = certificate(&["p-18.example"]);
    assert_eq!(factor(Credential::Certificate(&shown)), Ok(Some(Factor::SmartCard)));
    assert_eq!(factor(Credential::Uid(1018)), Ok(Some(Factor::SmartCard)));
    for (second, expected) in
        [(true, Ok(Some(Factor::OneTimePassword))), (false, Err(Stranger::SecondFactorMissing))]
    {
        let claims = Claims::for_test("https://idp.example", "abc", second);
        assert_eq!(factor(Credential::Token(&claims)), expected);
    }
    for (lines, line, part) in [
        ("certificate = [\"a.example\"]", 5, "shows no second factor"),
        ("phi = true\nuid = [1018]", 6, "shows no second factor"),
        ("uid = [1018]\nfactor = \"SECRET\"", 6, "`factor` is"),
        ("uid = [1018]\nfactor = \"mfa\"", 6, "`factor` is"),
        ("token = [{ issuer = \"i\", subject = \"s\" }]\nfactor = \"otp\"", 6, "`factor` is for"),
    ] {
        let error = Directory::parse(&person(lines)).expect_err(lines);
        assert!(error.what().contains(part), "{lines}\n{error}");
        assert_eq!(error.line(), line, "{lines}\n{error}");
    }
    let service = Directory::parse(&with("uid = [7]\nfactor = \"otp\"")).unwrap_err();
    assert_eq!((service.line(), service.what().contains("programs have none")), (6, true));
}

#[test]
fn a_mapping_has_the_digest_of_its_file() {
    let digest = |text: &str| Directory::parse(text).unwrap().digest();
    assert_eq!(digest(GOOD), Hash::of(GOOD.as_bytes()));
    assert_ne!(digest(GOOD), digest(&(GOOD.to_owned() + "\n")));
}

#[test]
fn a_revoked_certificate_is_nobodys() {
    let (lost, kept) = (certificate(&["a.example"]), certificate(&["a.example"]));
    let hex = HEXLOWER.encode(lost.fingerprint());
    let of_principal = with(&format!("certificate = [\"a.example\"]\nrevoked_certificates = [\"{hex}\"]"));
    let of_file = format!("revoked_certificates = [\"{hex}\"]\n{}", with("certificate = [\"a.example\"]"));
    for text in [of_principal, of_file] {
        let directory = Directory::parse(&text).unwrap();
        assert_eq!(who(&directory, Credential::Certificate(&lost)), Err(Stranger::Revoked));
        assert_eq!(who(&directory, Credential::Certificate(&kept)), Ok("service:a".to_owned()));
    }
    // Even one that is mapped by its fingerprint.
    let text = with(&format!("certificate = [\"sha256:{hex}\"]\nrevoked_certificates = [\"{hex}\"]"));
    let directory = Directory::parse(&text).unwrap();
    assert_eq!(who(&directory, Credential::Certificate(&lost)), Err(Stranger::Revoked));
}

#[test]
fn a_certificate_may_be_known_by_its_fingerprint() {
    let pinned = certificate(&[]);
    let text = with(&format!("certificate = [\"sha256:{}\"]", HEXLOWER.encode(pinned.fingerprint())));
    let directory = Directory::parse(&text).unwrap();
    assert_eq!(who(&directory, Credential::Certificate(&pinned)), Ok("service:a".to_owned()));
    assert_eq!(who(&directory, Credential::Certificate(&certificate(&[]))), Err(Stranger::Unknown));
}

#[test]
fn a_certificate_with_the_names_of_two_is_nobodys() {
    let text = format!(
        "{}{}",
        with("certificate = [\"a.example\"]"),
        with("certificate = [\"b.example\"]").replace("service:a", "service:b")
    );
    let directory = Directory::parse(&text).unwrap();
    let both = certificate(&["a.example", "b.example"]);
    assert_eq!(who(&directory, Credential::Certificate(&both)), Err(Stranger::Ambiguous));
}

#[test]
fn what_is_wrong_is_told_by_its_line_and_not_repeated() {
    let twice = |line: &str| with(line) + &with(line).replace("service:a", "service:b");
    let token = "token = [{ issuer = \"https://idp.example\", subject = \"SECRET\" }]";
    for (text, line, part) in [
        (with("uid = [1]\nSECRET = 1"), 6, "no such key"),
        ("SECRET = 1".to_owned(), 1, "no such key"),
        (with("token = [{ issuer = \"i\", subject = \"s\", SECRET = 1 }]"), 5, "no such key"),
        (with("uid = [\"SECRET\"]"), 5, "another kind"),
        (with("uid = [-1]"), 5, "another kind"),
        (with("phi = \"SECRET\""), 5, "another kind"),
        (with("uid = [1] SECRET"), 5, "not TOML"),
        (with("uid = [1]\nuid = [2]"), 6, "not TOML"),
        (with("token = [{ issuer = \"SECRET\" }]"), 5, "no `issuer` or no `subject`"),
        (with("token = [{ issuer = \"\", subject = \"SECRET\" }]"), 5, "1 to 255"),
        (with("phi = true"), 1, "never be known"),
        (with("trained_until = \"SECRET\"\nuid = [1]"), 5, "YYYY-MM-DD"),
        (with("certificate = [\"SECRET SECRET\"]"), 5, "a URI or a DNS name"),
        (with("certificate = [\"*.example\"]"), 5, "without '*'"),
        (with("certificate = [\"sha256:SECRET\"]"), 5, "a URI or a DNS name"),
        (with("revoked_certificates = [\n\"SECRET\"]\nuid = [1]"), 6, "64 of"),
        (with("uid = [1]").replace("service:a", "SECRET"), 2, "`id` is a principal"),
        (with("uid = [1]").replace("\"reader\"", "\"reader\",\n\"SECRET\""), 4, "a role is"),
        (with("uid = [1]").replace("\"reader\"", "\"reader\", \"reader\""), 3, "twice"),
        (with("uid = [1]").replace("\"reader\"", ""), 2, "without a role"),
        (with("uid = [1]").replace("\"reader\"", "\"reader\",\n\"auditor\""), 4, "does not go together"),
        (
            with("uid = [1]").replace("\"reader\"", "\"key-administrator\", \"privacy-officer\""),
            3,
            "go together",
        ),
        (with("uid = [1]").replace("\"all\"", "\"SECRET\""), 4, "\"all\" or a list"),
        (with("uid = [1]").replace("\"all\"", "[\n\"SECRET\"]"), 5, "not the id of a customer"),
        (with("uid = [1]").replace("\"all\"", "7"), 4, "another kind"),
        (with("uid = [1]").replace("customers = \"all\"", ""), 1, "no `customers`"),
        (with("uid = [1]").replace("id = \"service:a\"", ""), 1, "no `id`"),
        (with("uid = [1]").replace("roles = [\"reader\"]", ""), 1, "no `roles`"),
        (with("uid = [1, 2]").replace("service:a", "unix:1"), 5, "its own uid alone"),
        (with(token).replace("service:a", "unix:1"), 5, "its own uid alone"),
        (with("uid = [1]") + &with("uid = [2]"), 7, "this principal is there twice"),
        (twice("uid = [1001]"), 10, "this credential is there twice"),
        (twice("certificate = [\"a.example\"]"), 10, "this credential is there twice"),
        (twice(token), 10, "this credential is there twice"),
        (with("certificate = [\"a.example\", \"A.example\"]"), 5, "this credential is there twice"),
    ] {
        let error = Directory::parse(&text).expect_err(&text);
        assert!(error.what().contains(part), "{text}\n{error}");
        assert_eq!(error.line(), line, "{text}\n{error}");
        assert!(!format!("{error} {error:?}").contains("SECRET"));
        assert!(error.to_string().starts_with(&format!("line {line}: ")));
    }
    let long = "#".repeat(4 * 1024 * 1024 + 1);
    assert_eq!(Directory::parse(&long).unwrap_err().line(), 1);
}

#[test]
fn a_user_of_this_host_is_known_by_its_own_uid() {
    let directory = Directory::parse(&with("uid = [7]").replace("service:a", "unix:7")).unwrap();
    assert_eq!(who(&directory, Credential::Uid(7)), Ok("unix:7".to_owned()));
}

#[test]
fn debug_output_names_nobody() {
    let shown = format!("{:?}", Directory::parse(GOOD).unwrap());
    assert!(!shown.contains("p-17") && !shown.contains("clinic"), "{shown}");
}
