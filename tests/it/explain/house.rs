//! Certificates that the ordinary fixture does not make: those of an organisation, with hints where the issuer's
//! can be had, and leaves that are none.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, SerialNumber,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::stage::HOST;

/// A root and an intermediate of one organisation.
pub(super) struct House {
    folder: TempDir,
    root: Issuer<'static, KeyPair>,
    root_pem: String,
    intermediate: Issuer<'static, KeyPair>,
    intermediate_pem: String,
}

/// Files of a server: the chain and the key.
pub(super) type Files = (PathBuf, PathBuf);

impl House {
    pub(super) fn new(organisation: &str) -> Self {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root_params = || params(organisation, "Root", true);
        let root_pem = root_params().self_signed(&root_key).unwrap().pem();
        let root = Issuer::new(root_params(), root_key);
        let intermediate_pem = params(organisation, "Issuing", true).signed_by(&key, &root).unwrap().pem();
        let intermediate = Issuer::new(params(organisation, "Issuing", true), key);
        let house = Self { folder: TempDir::new().unwrap(), root, root_pem, intermediate, intermediate_pem };
        house.write("root.pem", &house.root_pem);
        house.write("intermediate.pem", &house.intermediate_pem);
        house.write("both.pem", &format!("{}{}", house.intermediate_pem, house.root_pem));
        house
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A good leaf of the intermediate, with these certificates sent behind it, by their file names.
    pub(super) fn server(&self, stem: &str, behind: &[&str]) -> Files {
        self.issue(stem, behind, params("Servers", HOST, false))
    }

    /// The same, and it says where its issuer's certificate can be had.
    pub(super) fn server_with_hint(&self, stem: &str) -> Files {
        let mut params = params("Servers", HOST, false);
        params.custom_extensions.push(issuer_hint("http://ca.example.com/i.cer"));
        self.issue(stem, &[], params)
    }

    /// An authority's certificate of the root's making, used as a server's.
    pub(super) fn authority_as_server(&self) -> Files {
        let (key, params) = (KeyPair::generate().unwrap(), params("Servers", HOST, true));
        let certificate = params.signed_by(&key, &self.root).unwrap();
        self.files("authority-as-server", &certificate, &[], &key)
    }

    /// Revocation lists with nothing on them: of the intermediate, and of both authorities.
    pub(super) fn revocation_lists(&self) -> (PathBuf, PathBuf) {
        let list = |issuer: &Issuer<'static, KeyPair>| {
            let now = OffsetDateTime::now_utc();
            let params = CertificateRevocationListParams {
                this_update: now - Duration::hours(1),
                next_update: now + Duration::days(7),
                crl_number: SerialNumber::from(1),
                issuing_distribution_point: None,
                revoked_certs: Vec::new(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            params.signed_by(issuer).unwrap().pem().unwrap()
        };
        let lower = list(&self.intermediate);
        self.write("lower.crl", &lower);
        self.write("both.crl", &format!("{lower}{}", list(&self.root)));
        (self.file("lower.crl"), self.file("both.crl"))
    }

    fn issue(&self, stem: &str, behind: &[&str], params: CertificateParams) -> Files {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.intermediate).unwrap();
        self.files(stem, &certificate, behind, &key)
    }

    fn files(&self, stem: &str, leaf: &Certificate, behind: &[&str], key: &KeyPair) -> Files {
        let rest: Vec<String> = behind.iter().map(|name| fs::read_to_string(self.file(name)).unwrap()).collect();
        self.write(&format!("{stem}.crt"), &format!("{}{}", leaf.pem(), rest.concat()));
        self.write(&format!("{stem}.key"), &key.serialize_pem());
        (self.file(&format!("{stem}.crt")), self.file(&format!("{stem}.key")))
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }
}

/// The first certificate of a chain's file, in a file of its own beside it.
pub(super) fn first_of(chain: &Path) -> PathBuf {
    const END: &str = "-----END CERTIFICATE-----\n";
    let text = fs::read_to_string(chain).unwrap();
    let first = text.split_inclusive(END).next().unwrap();
    let file = chain.with_extension("first.pem");
    fs::write(&file, first).unwrap();
    file
}

fn params(organisation: &str, common_name: &str, authority: bool) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, organisation);
    params.distinguished_name.push(DnType::CommonName, common_name);
    if authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    } else {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    }
    if common_name == HOST {
        params.subject_alt_names = vec![rcgen::SanType::DnsName(HOST.try_into().unwrap())];
    }
    params
}

/// Authority information access (RFC 5280 section 4.2.2.1): caIssuers at a URI.
fn issuer_hint(uri: &str) -> CustomExtension {
    let element = |tag: u8, body: &[u8]| [&[tag, body.len() as u8][..], body].concat();
    let method = [0x06, 8, 0x2b, 6, 1, 5, 5, 7, 48, 2];
    let access = element(0x30, &[&method[..], &element(0x86, uri.as_bytes())].concat());
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], element(0x30, &access))
}
