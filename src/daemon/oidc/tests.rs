use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PKCS_RSA_SHA256, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::keys::{FRESH, KEPT, PAUSE};
use super::*;

/// 2026-01-01.
const NOW: u64 = 1_767_225_600;

/// Seconds since it was started, which both clocks follow.
#[derive(Debug, Default)]
struct TestClock(AtomicU64);

impl TestClock {
    fn pass(&self, span: Duration) {
        self.0.fetch_add(span.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros((NOW + self.0.load(Ordering::SeqCst)) * 1_000_000).unwrap()
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(1000 + self.0.load(Ordering::SeqCst))
    }
}

/// A private key, with the name that its issuer gives it.
struct SigningKey {
    algorithm: Algorithm,
    id: &'static str,
    pair: KeyPair,
}

impl SigningKey {
    fn new(algorithm: Algorithm, id: &'static str) -> Self {
        let pair = KeyPair::generate_for(match algorithm {
            Algorithm::ES256 => &PKCS_ECDSA_P256_SHA256,
            Algorithm::ES384 => &PKCS_ECDSA_P384_SHA384,
            Algorithm::EdDSA => &PKCS_ED25519,
            _ => &PKCS_RSA_SHA256,
        });
        Self { algorithm, id, pair: pair.unwrap() }
    }

    fn encoding(&self) -> EncodingKey {
        let pem = self.pair.serialize_pem();
        match self.algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        }
        .unwrap()
    }

    /// The public key as its issuer shows it.
    fn public(&self) -> Value {
        if self.algorithm == Algorithm::EdDSA {
            let x = BASE64URL_NOPAD.encode(self.pair.public_key_raw());
            return json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": self.id, "x": x });
        }
        let mut jwk = Jwk::from_encoding_key(&self.encoding(), self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    fn sign(&self, header: Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(&header), encode(claims));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.encoding(), self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    fn header(&self) -> Value {
        serde_json::to_value(Header { kid: Some(self.id.to_owned()), ..Header::new(self.algorithm) }).unwrap()
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(self.header(), claims)
    }
}

fn encode(part: &Value) -> String {
    BASE64URL_NOPAD.encode(part.to_string().as_bytes())
}

/// An issuer on a loopback port.
struct TestIssuer {
    url: String,
    answers: Arc<Mutex<BTreeMap<&'static str, String>>>,
    asked: Arc<AtomicUsize>,
    clock: Arc<TestClock>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

const METADATA: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/keys";

impl TestIssuer {
    async fn start(keys: &[&SigningKey]) -> Self {
        Self::start_with(keys, None).await
    }

    /// With a certificate, over TLS.
    async fn start_with(keys: &[&SigningKey], tls: Option<TlsAcceptor>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", socket.local_addr().unwrap());
        let answers: Arc<Mutex<BTreeMap<_, String>>> = Arc::default();
        let asked: Arc<AtomicUsize> = Arc::default();
        let (known, count) = (Arc::clone(&answers), Arc::clone(&asked));
        tokio::spawn(async move {
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                let mut stream: Box<dyn Stream> = match &tls {
                    None => Box::new(stream),
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        // Whoever does not know the CA is gone.
                        Err(_) => continue,
                    },
                };
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                count.fetch_add(1, Ordering::SeqCst);
                let path = String::from_utf8(request).unwrap().split(' ').nth(1).unwrap().to_owned();
                let found = known.lock().unwrap().get(path.as_str()).cloned();
                let (status, body) = found.map_or(("503 Busy", String::new()), |body| ("200 OK", body));
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + &body).as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        let issuer = Self { url, answers, asked, clock: Arc::default() };
        issuer.answer(METADATA, json!({ "issuer": issuer.url, "jwks_uri": format!("{}{KEYS}", issuer.url) }));
        issuer.show(keys);
        issuer
    }

    fn answer(&self, path: &'static str, body: Value) {
        self.answers.lock().unwrap().insert(path, body.to_string());
    }

    fn show(&self, keys: &[&SigningKey]) {
        self.answer(KEYS, json!({ "keys": keys.iter().map(|key| key.public()).collect::<Vec<_>>() }));
    }

    fn fail(&self) {
        self.answers.lock().unwrap().clear();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn config(&self) -> IssuerConfig {
        IssuerConfig {
            issuer: self.url.clone(),
            audience: "strongroom".into(),
            jwks_url: None,
            ca: None,
            mfa: SecondFactor { amr: ["mfa".into()].into(), acr: ["urn:two".into()].into() },
            single_use: false,
        }
    }

    fn verifier(&self) -> Verifier {
        self.verifier_of(self.config())
    }

    fn verifier_of(&self, config: IssuerConfig) -> Verifier {
        Verifier::new(vec![config], self.clock.clone()).unwrap()
    }

    fn claims(&self) -> Value {
        json!({ "iss": self.url, "sub": "abc", "aud": "strongroom", "exp": NOW + 300 })
    }

    /// The claims with one of them changed, or taken out where it is null.
    fn claims_with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value,
        }
        claims
    }
}

#[tokio::test]
async fn tokens_of_every_algorithm_are_accepted() {
    for algorithm in
        [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA]
    {
        let key = SigningKey::new(algorithm, "k1");
        let issuer = TestIssuer::start(&[&key]).await;
        let claims = issuer.verifier().verify(&key.token(&issuer.claims())).await;
        let claims = claims.unwrap_or_else(|refusal| panic!("{algorithm:?}: {refusal:?}"));
        assert_eq!((claims.issuer(), claims.subject()), (issuer.url.as_str(), "abc"));
        assert_eq!(claims.expires().micros(), (NOW + 300) * 1_000_000);
        assert!(!claims.second_factor());
        assert!(!format!("{claims:?}").contains("abc"));
    }
}

#[tokio::test]
async fn claims_are_for_us_and_in_their_time() {
    let key = SigningKey::new(Algorithm::ES256, "k1");
    let issuer = TestIssuer::start(&[&key]).await;
    let verifier = issuer.verifier();
    for (name, value, expected) in [
        ("aud", json!("other"), Err(Refusal::Audience)),
        ("aud", json!(["other", "Strongroom"]), Err(Refusal::Audience)),
        ("aud", json!([]), Err(Refusal::Audience)),
        ("aud", json!(["other", "strongroom"]), Ok(())),
        ("aud", Value::Null, Err(Refusal::Malformed)),
        ("iss", json!(format!("{}/", issuer.url)), Err(Refusal::Issuer)),
        ("iss", Value::Null, Err(Refusal::Malformed)),
        ("sub", Value::Null, Err(Refusal::Malformed)),
        ("sub", json!(""), Err(Refusal::Malformed)),
        ("sub", json!("a".repeat(256)), Err(Refusal::Malformed)),
        ("exp", Value::Null, Err(Refusal::NoExpiry)),
        ("exp", json!("soon"), Err(Refusal::Malformed)),
        ("exp", json!(-1), Err(Refusal::Malformed)),
        ("exp", json!(NOW - 60), Err(Refusal::Expired)),
        ("exp", json!(NOW - 59), Ok(())),
        ("exp", json!(1.5e9), Err(Refusal::Expired)),
        ("exp", json!(NOW as f64 + 0.5), Ok(())),
        ("exp", json!(u64::MAX), Ok(())),
        ("nbf", json!(NOW + 61), Err(Refusal::NotYetValid)),
        ("nbf", json!(NOW + 60), Ok(())),
        ("iat", json!(NOW + 61), Err(Refusal::NotYetValid)),
        ("nbf", json!("soon"), Err(Refusal::Malformed)),
    ] {
        let verified = verifier.verify(&key.token(&issuer.claims_with(name, value.clone()))).await;
        assert_eq!(verified.map(drop), expected, "{name}: {value}");
    }
}

#[tokio::test]
async fn headers_are_of_one_kind() {
    let key = SigningKey::new(Algorithm::ES256, "k1");
    let issuer = TestIssuer::start(&[&key]).await;
    let verifier = issuer.verifier();
    for (name, value, expected) in [
        ("alg", json!("none"), Err(Refusal::Algorithm)),
        ("alg", json!("None"), Err(Refusal::Algorithm)),
        ("alg", json!("HS256"), Err(Refusal::Algorithm)),
        ("alg", json!("ES512"), Err(Refusal::Algorithm)),
        ("alg", json!("RS256"), Err(Refusal::UnknownKey)),
        ("alg", json!("ES384"), Err(Refusal::UnknownKey)),
        ("crit", json!(["exp"]), Err(Refusal::Critical)),
        ("crit", json!([]), Err(Refusal::Critical)),
        ("typ", json!("dpop+jwt"), Err(Refusal::Type)),
        ("typ", json!("at+jwt"), Ok(())),
        ("typ", json!("application/at+JWT"), Ok(())),
        ("jku", json!("https://attacker.example/keys"), Ok(())),
        ("kid", json!("k2"), Err(Refusal::UnknownKey)),
        ("kid", json!(7), Err(Refusal::Malformed)),
    ] {
        let mut header = key.header();
        header[name] = value.clone();
        let verified = verifier.verify(&key.sign(header, &issuer.claims())).await;
        assert_eq!(verified.map(drop), expected, "{name}: {value}");
    }
}

#[tokio::test]
async fn what_is_no_token_is_malformed() {
    let key = SigningKey::new(Algorithm::ES256, "k1");
    let issuer = TestIssuer::start(&[&key]).await;
    let verifier = issuer.verifier();
    let good = key.token(&issuer.claims());
    let [header, claims, signature] = *good.split('.').collect::<Vec<_>>() else { panic!("three parts") };
    let twice =
        BASE64URL_NOPAD.encode(format!("{{\"iss\":\"x\",{}", &issuer.claims().to_string()[1..]).as_bytes());
    for (what, token) in [
        ("nothing", String::new()),
        ("two parts", format!("{header}.{claims}")),
        ("four parts", format!("{good}.{signature}")),
        ("padding", format!("{header}=.{claims}.{signature}")),
        ("a claim twice", format!("{header}.{twice}.{signature}")),
        ("a blank", format!(" {good}")),
    ] {
        assert_eq!(verifier.verify(&token).await, Err(Refusal::Malformed), "{what}");
    }
    let long = key.token(&issuer.claims_with("more", json!("a".repeat(MAX_TOKEN_LEN))));
    assert_eq!(verifier.verify(&long).await, Err(Refusal::TooLong));
    assert_eq!(issuer.asked(), 0, "nobody is asked for what cannot be accepted");
}

#[tokio::test]
async fn signatures_are_by_the_named_key() {
    let (key, stranger) = (SigningKey::new(Algorithm::ES256, "k1"), SigningKey::new(Algorithm::ES256, "k1"));
    let issuer = TestIssuer::start(&[&key]).await;
    let verifier = issuer.verifier();
    assert_eq!(verifier.verify(&stranger.token(&issuer.claims())).await, Err(Refusal::Signature));
    let good = key.token(&issuer.claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    assert_eq!(verifier.verify(&format!("{signed}.")).await, Err(Refusal::Signature));
    let (header, _) = signed.split_once('.').unwrap();
    let other = encode(&issuer.claims_with("sub", json!("abd")));
    assert_eq!(verifier.verify(&format!("{header}.{other}.{signature}")).await, Err(Refusal::Signature));
    // A public key is no secret to sign with.
    let public = issuer.answers.lock().unwrap()[KEYS].clone();
    let message = format!("{}.{}", encode(&json!({ "alg": "HS256", "kid": "k1" })), encode(&issuer.claims()));
    let secret = EncodingKey::from_secret(public.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &secret, Algorithm::HS256).unwrap();
    assert_eq!(verifier.verify(&format!("{message}.{signature}")).await, Err(Refusal::Algorithm));
    assert!(verifier.verify(&good).await.is_ok());
}

#[tokio::test]
async fn without_a_name_there_is_one_key_for_the_algorithm_or_none() {
    let (one, two) = (SigningKey::new(Algorithm::ES256, "k1"), SigningKey::new(Algorithm::ES256, "k2"));
    let other = SigningKey::new(Algorithm::EdDSA, "k3");
    let issuer = TestIssuer::start(&[&one, &other]).await;
    let unnamed = |key: &SigningKey| key.sign(json!({ "alg": key.header()["alg"] }), &issuer.claims());
    let verifier = issuer.verifier();
    assert!(verifier.verify(&unnamed(&one)).await.is_ok());
    assert!(verifier.verify(&unnamed(&other)).await.is_ok());
    issuer.show(&[&one, &two, &other]);
    let verifier = issuer.verifier();
    assert_eq!(verifier.verify(&unnamed(&one)).await, Err(Refusal::AmbiguousKey));
    assert!(verifier.verify(&unnamed(&other)).await.is_ok());
    // Nor do two keys have one name.
    issuer.show(&[&one, &SigningKey::new(Algorithm::ES256, "k1")]);
    assert_eq!(issuer.verifier().verify(&one.token(&issuer.claims())).await, Err(Refusal::AmbiguousKey));
}

#[tokio::test]
async fn keys_that_are_not_for_signatures_are_passed_over() {
    let key = SigningKey::new(Algorithm::ES256, "k1");
    let issuer = TestIssuer::start(&[]).await;
    for (name, value, expected) in [
        ("use", json!("enc"), Err(Refusal::UnknownKey)),
        ("key_ops", json!(["sign"]), Err(Refusal::UnknownKey)),
        ("key_ops", json!(["verify"]), Ok(())),
        ("alg", json!("ES384"), Err(Refusal::UnknownKey)),
        ("crv", json!("P-384"), Err(Refusal::UnknownKey)),
        ("crv", json!("secp256k1"), Err(Refusal::UnknownKey)),
        ("kty", json!("oct"), Err(Refusal::UnknownKey)),
        ("x", json!("AAAA"), Err(Refusal::UnknownKey)),
        ("use", json!("sig"), Ok(())),
    ] {
        let mut public = key.public();
        public[name] = value.clone();
        issuer.answer(KEYS, json!({ "keys": [public, 7, { "kty": "new" }] }));
        let verified = issuer.verifier().verify(&key.token(&issuer.claims())).await;
        assert_eq!(verified.map(drop), expected, "{name}: {value}");
    }
}

#[tokio::test]
async fn an_issuer_changes_its_keys() {
    let (old, new) = (SigningKey::new(Algorithm::ES256, "old"), SigningKey::new(Algorithm::EdDSA, "new"));
    let issuer = TestIssuer::start(&[&old]).await;
    let verifier = issuer.verifier();
    let (of_old, of_new) = (
        old.token(&issuer.claims_with("exp", json!(NOW + 86_400))),
        new.token(&issuer.claims_with("exp", json!(NOW + 86_400))),
    );
    assert!(verifier.verify(&of_old).await.is_ok());
    assert_eq!(issuer.asked(), 2, "its metadata and its keys");
    assert!(verifier.verify(&of_old).await.is_ok());
    assert_eq!(verifier.verify(&of_new).await, Err(Refusal::UnknownKey));
    assert_eq!(issuer.asked(), 2, "it was asked just now");

    issuer.show(&[&old, &new]);
    issuer.clock.pass(PAUSE);
    assert!(verifier.verify(&of_new).await.is_ok(), "an unknown key makes us ask");
    assert_eq!(issuer.asked(), 4);
    for _ in 0..10 {
        let unknown = SigningKey::new(Algorithm::ES256, "none").token(&issuer.claims());
        assert_eq!(verifier.verify(&unknown).await, Err(Refusal::UnknownKey));
    }
    assert_eq!(issuer.asked(), 4, "not more often, whatever is sent");

    issuer.show(&[&new]);
    assert!(verifier.verify(&of_old).await.is_ok(), "what is fresh is taken as it is");
    issuer.clock.pass(FRESH);
    assert_eq!(verifier.verify(&of_old).await, Err(Refusal::UnknownKey), "and then no more");
    assert!(verifier.verify(&of_new).await.is_ok());
}

#[tokio::test]
async fn keys_outlive_an_issuer_that_does_not_answer_for_a_while() {
    let key = SigningKey::new(Algorithm::ES256, "k1");
    let issuer = TestIssuer::start(&[&key]).await;
    let token = key.token(&issuer.claims_with("exp", json!(NOW + 86_400)));
    let verifier = issuer.verifier();
    assert!(verifier.verify(&token).await.is_ok());
    issuer.fail();
    issuer.clock.pass(KEPT - Duration::from_secs(1));
    assert!(verifier.verify(&token).await.is_ok());
    issuer.clock.pass(Duration::from_secs(1));
    assert_eq!(verifier.verify(&token).await, Err(Refusal::Unavailable));

    let verifier = issuer.verifier();
    let before = issuer.asked();
    for _ in 0..3 {
        assert_eq!(verifier.verify(&token).await, Err(Refusal::Unavailable));
    }
    assert_eq!(issuer.asked(), before + 1, "one that fails is not asked for every token");
}

#[tokio::test]
async fn the_answer_is_kept_though_who_made_us_ask_has_gone() {
    let key = SigningKey::new(Algorithm::ES256, "k1");
    let issuer = TestIssuer::start(&[&key]).await;
    let verifier = issuer.verifier();
    let token = key.token(&issuer.claims());
    let gone = tokio::time::timeout(Duration::ZERO, verifier.verify(&token)).await;
    assert!(gone.is_err(), "it is dropped while the issuer is being asked");
    assert!(verifier.verify(&token).await.is_ok());
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn metadata_is_of_the_issuer_and_points_to_tls() {
    let key = SigningKey::new(Algorithm::ES256, "k1");
    let issuer = TestIssuer::start(&[&key]).await;
    let token = key.token(&issuer.claims());
    let at = format!("{}{KEYS}", issuer.url);
    for metadata in [
        json!({ "issuer": "https://other.example", "jwks_uri": at }),
        json!({ "issuer": issuer.url, "jwks_uri": "http://keys.example/" }),
        json!({ "issuer": issuer.url, "jwks_uri": "file:///keys" }),
        json!({ "issuer": issuer.url }),
        json!({ "issuer": issuer.url, "jwks_uri": at, "more": "a".repeat(512 * 1024) }),
    ] {
        issuer.answer(METADATA, metadata);
        assert_eq!(issuer.verifier().verify(&token).await, Err(Refusal::Unavailable));
    }
    // It is not needed where the keys are configured.
    let config = IssuerConfig { jwks_url: Some(at), ..issuer.config() };
    assert!(issuer.verifier_of(config).verify(&token).await.is_ok());
}

#[tokio::test]
async fn an_issuer_of_a_ca_that_is_named_is_believed() {
    let (key, pair) = (SigningKey::new(Algorithm::ES256, "k1"), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    let certificate = params.self_signed(&pair).unwrap();
    let private = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
    let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let issuer = TestIssuer::start_with(&[&key], Some(TlsAcceptor::from(Arc::new(tls)))).await;
    let token = key.token(&issuer.claims());
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| Some(directory.path().join(name));
    let with = |ca| IssuerConfig { ca, ..issuer.config() };
    std::fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
    assert!(issuer.verifier_of(with(path("ca.pem"))).verify(&token).await.is_ok());
    // Neither the system's CAs nor another one vouch for it.
    let other = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
    std::fs::write(directory.path().join("other.pem"), other.pem()).unwrap();
    for ca in [None, path("other.pem")] {
        assert_eq!(issuer.verifier_of(with(ca)).verify(&token).await, Err(Refusal::Unavailable));
    }
    let unread = Verifier::new(vec![with(path("none.pem"))], issuer.clock.clone()).map(drop);
    assert_eq!(unread.unwrap_err().kind(), ErrorKind::Configuration);
}

#[tokio::test]
async fn a_second_factor_is_told_by_configured_claims() {
    let key = SigningKey::new(Algorithm::ES256, "k1");
    let issuer = TestIssuer::start(&[&key]).await;
    let none = IssuerConfig { mfa: SecondFactor::default(), ..issuer.config() };
    let (verifier, without) = (issuer.verifier(), issuer.verifier_of(none));
    for (name, value, expected) in [
        ("amr", json!(["pwd", "mfa"]), Some(Factor::Several)),
        // What is most telling of all that is there.
        ("amr", json!(["pwd", "otp", "hwk", "mfa"]), Some(Factor::HardwareKey)),
        ("amr", json!(["pwd"]), None),
        // Not one of those that are accepted.
        ("amr", json!(["pwd", "otp"]), None),
        ("amr", json!(["MFA"]), None),
        ("amr", json!([]), None),
        ("acr", json!("urn:two"), Some(Factor::Class)),
        ("acr", json!("urn:one"), None),
        ("acr", json!("mfa"), None),
    ] {
        let token = key.token(&issuer.claims_with(name, value.clone()));
        assert_eq!(verifier.verify(&token).await.unwrap().factor(), expected, "{name}: {value}");
        assert!(!without.verify(&token).await.unwrap().second_factor());
    }
    let token = key.token(&issuer.claims_with("amr", json!("mfa")));
    assert_eq!(verifier.verify(&token).await, Err(Refusal::Malformed));
}

#[tokio::test]
async fn a_token_for_one_request_is_used_once() {
    let key = SigningKey::new(Algorithm::ES256, "k1");
    let issuer = TestIssuer::start(&[&key]).await;
    let verifier = issuer.verifier_of(IssuerConfig { single_use: true, ..issuer.config() });
    let token = key.token(&issuer.claims_with("jti", json!("t-1")));
    // One that is not accepted is not used up.
    let forged = SigningKey::new(Algorithm::ES256, "k1").token(&issuer.claims_with("jti", json!("t-1")));
    assert_eq!(verifier.verify(&forged).await, Err(Refusal::Signature));
    assert!(verifier.verify(&token).await.is_ok());
    assert_eq!(verifier.verify(&token).await, Err(Refusal::Replayed));
    assert!(verifier.verify(&key.token(&issuer.claims_with("jti", json!("t-2")))).await.is_ok());
    for without in [issuer.claims(), issuer.claims_with("jti", json!(""))] {
        assert_eq!(verifier.verify(&key.token(&without)).await, Err(Refusal::NoTokenId));
    }
    let several = issuer.verifier();
    assert!(several.verify(&token).await.is_ok() && several.verify(&token).await.is_ok());
}

#[test]
fn issuers_are_reached_over_tls() {
    let of = |issuer: &str| IssuerConfig {
        issuer: issuer.into(),
        audience: "strongroom".into(),
        jwks_url: None,
        ca: None,
        mfa: SecondFactor::default(),
        single_use: false,
    };
    let made = |configs| Verifier::new(configs, Arc::new(TestClock::default())).map(drop);
    for good in
        ["https://idp.example", "https://idp.example/realm/", "http://127.0.0.1:8080", "http://[::1]/a"]
    {
        assert!(made(vec![of(good)]).is_ok(), "{good}");
    }
    for bad in [
        "http://idp.example/SECRET",
        "http://localhost/SECRET",
        "https://SECRET:SECRET@idp.example",
        "https://idp.example/?SECRET",
        "https://idp.example/#SECRET",
        "file:///SECRET",
        "SECRET",
        "",
    ] {
        let error = made(vec![of(bad)]).expect_err(bad);
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(!error.chain().contains("SECRET"), "{bad}");
    }
    let plain =
        IssuerConfig { jwks_url: Some("http://idp.example/keys".into()), ..of("https://idp.example") };
    assert!(made(vec![plain]).is_err());
    assert!(made(vec![IssuerConfig { audience: String::new(), ..of("https://idp.example") }]).is_err());
    assert!(made(vec![of("https://idp.example"), of("https://idp.example")]).is_err());
}

#[test]
fn who_asks_learns_nothing_of_why() {
    let refusals = [Refusal::Expired, Refusal::Signature, Refusal::UnknownKey, Refusal::Replayed];
    assert!(refusals.iter().all(|refusal| refusal.to_string() == "not accepted"));
}
