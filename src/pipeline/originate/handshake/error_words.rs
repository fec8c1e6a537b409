//! Every error of rustls that a client can meet, in words.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{CertRevocationListError, CertificateError, EncryptedClientHelloError, Error as E};
use rustls::{InvalidMessage, OtherError, PeerIncompatible, PeerMisbehaved};

use super::error::of_tls;
use crate::credentials::observation::Facts;
use crate::wording;

fn all() -> Vec<E> {
    let other = || OtherError(Arc::new(io::Error::other("no more is known")));
    let mut all = vec![
        E::InappropriateMessage { expect_types: vec![rustls::ContentType::Handshake], got_type: 23.into() },
        E::InappropriateHandshakeMessage { expect_types: vec![rustls::HandshakeType::ServerHello], got_type: 4.into() },
        E::InvalidEncryptedClientHello(EncryptedClientHelloError::NoCompatibleConfig),
        E::NoCertificatesPresented,
        E::UnsupportedNameType,
        E::DecryptError,
        E::EncryptError,
        E::General("the text of a library".into()),
        E::FailedToGetCurrentTime,
        E::FailedToGetRandomBytes,
        E::HandshakeNotComplete,
        E::PeerSentOversizedRecord,
        E::NoApplicationProtocol,
        E::BadMaxFragmentSize,
        E::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch),
        E::InconsistentKeys(rustls::InconsistentKeys::Unknown),
        E::Other(other()),
    ];
    all.extend((0..=u8::MAX).map(|number| E::AlertReceived(number.into())));
    all.extend(invalid_messages().map(E::InvalidMessage));
    all.extend(misbehaviours().map(E::PeerMisbehaved));
    all.extend(incompatibilities().map(E::PeerIncompatible));
    all.extend(certificate_errors(other()).into_iter().map(E::InvalidCertificate));
    all.extend(list_errors(other()).into_iter().map(E::InvalidCertRevocationList));
    all
}

macro_rules! each {
    ($of:ident: $($variant:ident)*) => { [$($of::$variant),*].into_iter() };
}

fn invalid_messages() -> impl Iterator<Item = InvalidMessage> {
    let plain = each!(InvalidMessage: CertificatePayloadTooLarge HandshakePayloadTooLarge InvalidCcs
        InvalidContentType InvalidCertificateStatusType InvalidCertRequest InvalidDhParams InvalidEmptyPayload
        InvalidKeyUpdate InvalidServerName MessageTooLarge MessageTooShort MissingKeyExchange NoSignatureSchemes
        UnknownProtocolVersion UnsupportedCompression UnsupportedCurveType EmptyTicketValue IllegalEmptyValue
        PreSharedKeyIsNotFinalExtension UnknownHelloRetryRequestExtension UnknownCertificateExtension);
    plain.chain([
        InvalidMessage::MissingData("EncryptedExtensions"),
        InvalidMessage::TrailingData("ServerHello"),
        InvalidMessage::UnexpectedMessage("NewSessionTicket"),
        InvalidMessage::IllegalEmptyList("KeyShares"),
        InvalidMessage::DuplicateExtension(43),
    ])
}

fn misbehaviours() -> impl Iterator<Item = PeerMisbehaved> {
    each!(PeerMisbehaved: AttemptedDowngradeToTls12WhenTls13IsSupported BadCertChainExtensions
        CipherSuiteDifferedOnRetry DisallowedEncryptedExtension DuplicateClientHelloExtensions
        DuplicateEncryptedExtensions DuplicateHelloRetryRequestExtensions DuplicateNewSessionTicketExtensions
        DuplicateServerHelloExtensions DuplicateServerNameTypes EarlyDataAttemptedInSecondClientHello
        EarlyDataExtensionWithoutResumption EarlyDataOfferedWithVariedCipherSuite EchAcceptanceVariedAfterRetry
        HandshakeHashVariedAfterRetry IllegalHelloRetryRequestWithEmptyCookie IllegalHelloRetryRequestWithNoChanges
        IllegalHelloRetryRequestWithOfferedGroup IllegalHelloRetryRequestWithUnofferedCipherSuite
        IllegalHelloRetryRequestWithUnofferedNamedGroup IllegalHelloRetryRequestWithUnsupportedVersion
        IllegalHelloRetryRequestWithWrongSessionId IllegalHelloRetryRequestWithInvalidEch
        IllegalMiddleboxChangeCipherSpec IllegalTlsInnerPlaintext IncorrectBinder InvalidCertCompression
        InvalidMaxEarlyDataSize InvalidKeyShare KeyEpochWithPendingFragment KeyUpdateReceivedInQuicConnection
        MessageInterleavedWithHandshakeMessage MissingBinderInPskExtension MissingKeyShare
        MissingPskExtensionInSecondClientHello MissingPskModesExtension MissingQuicTransportParameters
        OfferedDuplicateCertificateCompressions OfferedDuplicateKeyShares OfferedEarlyDataWithOldProtocolVersion
        OfferedEmptyApplicationProtocol OfferedIncorrectCompressions PskExtensionMustBeLast
        PskExtensionWithMismatchedIdsAndBinders RefusedToFollowHelloRetryRequest
        RejectedEarlyDataInterleavedWithHandshakeMessage ResumptionAttemptedWithVariedEms
        ResumptionOfferedWithVariedCipherSuite ResumptionOfferedWithVariedEms
        ResumptionOfferedWithIncompatibleCipherSuite SelectedDifferentCipherSuiteAfterRetry SelectedInvalidPsk
        SelectedTls12UsingTls13VersionExtension SelectedUnofferedApplicationProtocol SelectedUnofferedCertCompression
        SelectedUnofferedCipherSuite SelectedUnofferedCompression SelectedUnofferedKxGroup SelectedUnofferedPsk
        SelectedUnusableCipherSuiteForVersion ServerEchoedCompatibilitySessionId
        ServerHelloMustOfferUncompressedEcPoints ServerNameDifferedOnRetry ServerNameMustContainOneHostName
        SignedKxWithWrongAlgorithm SignedHandshakeWithUnadvertisedSigScheme TooManyEmptyFragments
        TooManyKeyUpdateRequests TooManyRenegotiationRequests TooManyWarningAlertsReceived TooMuchEarlyDataReceived
        UnexpectedCleartextExtension UnsolicitedCertExtension UnsolicitedEncryptedExtension UnsolicitedSctList
        UnsolicitedServerHelloExtension WrongGroupForKeyShare UnsolicitedEchExtension)
}

fn incompatibilities() -> impl Iterator<Item = PeerIncompatible> {
    let plain = each!(PeerIncompatible: EcPointsExtensionRequired ExtendedMasterSecretExtensionRequired
        IncorrectCertificateTypeExtension KeyShareExtensionRequired NamedGroupsExtensionRequired
        NoCertificateRequestSignatureSchemesInCommon NoCipherSuitesInCommon NoEcPointFormatsInCommon
        NoKxGroupsInCommon NoSignatureSchemesInCommon NullCompressionRequired ServerDoesNotSupportTls12Or13
        ServerSentHelloRetryRequestWithUnknownExtension ServerTlsVersionIsDisabledByOurConfig
        SignatureAlgorithmsExtensionRequired SupportedVersionsExtensionRequired Tls12NotOffered
        Tls12NotOfferedOrEnabled Tls13RequiredForQuic UncompressedEcPointsRequired
        UnsolicitedCertificateTypeExtension);
    plain.chain([PeerIncompatible::ServerRejectedEncryptedClientHello(None)])
}

fn certificate_errors(other: OtherError) -> Vec<CertificateError> {
    use CertificateError as C;
    let time = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(1));
    let mut all: Vec<C> = each!(C: BadEncoding Expired NotValidYet Revoked UnhandledCriticalExtension UnknownIssuer
        UnknownRevocationStatus ExpiredRevocationList BadSignature NotValidForName InvalidPurpose InvalidOcspResponse
        ApplicationVerificationFailure)
    .collect();
    all.extend([
        C::ExpiredContext { time, not_after: time },
        C::NotValidYetContext { time, not_before: time },
        C::ExpiredRevocationListContext { time, next_update: time },
        C::UnsupportedSignatureAlgorithmContext { signature_algorithm_id: vec![6], supported_algorithms: Vec::new() },
        C::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: vec![6],
            public_key_algorithm_id: vec![6],
        },
        C::NotValidForNameContext {
            expected: "server.example.com".try_into().expect("a name"),
            presented: vec!["other.example.com".into()],
        },
        C::InvalidPurposeContext {
            required: rustls::ExtendedKeyPurpose::ServerAuth,
            presented: vec![rustls::ExtendedKeyPurpose::ClientAuth, rustls::ExtendedKeyPurpose::Other(vec![1, 3])],
        },
        C::Other(other),
    ]);
    all
}

fn list_errors(other: OtherError) -> Vec<CertRevocationListError> {
    use CertRevocationListError as L;
    let mut all: Vec<L> = each!(L: BadSignature InvalidCrlNumber InvalidRevokedCertSerialNumber IssuerInvalidForCrl
        ParseError UnsupportedCrlVersion UnsupportedCriticalExtension UnsupportedDeltaCrl UnsupportedIndirectCrl
        UnsupportedRevocationReason)
    .collect();
    all.extend([
        L::UnsupportedSignatureAlgorithmContext { signature_algorithm_id: vec![6], supported_algorithms: Vec::new() },
        L::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: vec![6],
            public_key_algorithm_id: vec![6],
        },
        L::Other(other),
    ]);
    all
}

#[test]
fn no_error_of_rustls_reaches_a_person_by_the_name_of_its_variant() {
    for error in all() {
        for text in [of_tls(&error, &Facts::default()).to_string(), wording::sentence(&error)] {
            let mut words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
            let raw = words.find(|word| wording::is_identifier(word) && *word != "ServerHello");
            assert_eq!(raw, None, "{error:?}: {text}");
        }
    }
}
