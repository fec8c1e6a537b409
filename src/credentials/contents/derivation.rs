//! The cost of deriving a key from a password, read from the parameters in the file and bounded before any of it is paid.
//!
//! A derivation cannot be interrupted. 2^31 iterations take minutes of a processor, and a large scrypt needs more memory
//! than a container has.

use crate::credentials::certificate::element;
use crate::memory;

/// Iterations of all derivations of one file together. RFC 8018 section 4.2 names 10,000,000 for especially critical
/// keys; OWASP recommends 600,000 (HMAC-SHA-256), and OpenSSL's default is 2,048. Measured with 10,000,000 and AES-256, in
/// CPU time of a release build on an AMD EPYC: 1.9 s with HMAC-SHA-256, 3.1 s with SHA-1, 6.0 s with SHA-512.
const MAX_ITERATIONS: u64 = 10_000_000;
/// Iterations of one derivation in PKCS#12: the library opens no file with more.
const MAX_PKCS12_ITERATIONS: u64 = 1_000_000;
/// Bytes that all scrypt of a file together may write, eight times the largest memory. Measured as above: 0.7 s for 128 MiB,
/// 5.4 s for all.
const MAX_SCRYPT_WORK: u64 = 1 << 30;

/// Why a key is not derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The derivation would take too long, or too much memory.
    #[error("asks for {asked} {unit} to derive a key from the password, and at most {most} are allowed: {}", format.repair())]
    Excess {
        /// Requested by the file.
        asked: u64,
        /// The bound.
        most: u64,
        /// The unit of both numbers.
        unit: &'static str,
        /// Of the file.
        format: Format,
    },
    /// scrypt is not defined for it.
    #[error("asks for scrypt with the cost parameter {cost}, which is no power of two above 1: {}", format.repair())]
    Cost {
        /// Requested by the file.
        cost: u64,
        /// Of the file.
        format: Format,
    },
}

/// The two kinds of files with encrypted keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A key alone.
    Pkcs8,
    /// Keys and certificates.
    Pkcs12,
}

impl Format {
    fn max_iterations_of_one(self) -> u64 {
        match self {
            Self::Pkcs8 => MAX_ITERATIONS,
            Self::Pkcs12 => MAX_PKCS12_ITERATIONS,
        }
    }

    fn repair(self) -> &'static str {
        match self {
            Self::Pkcs8 => {
                "encrypt the key anew, for example with `openssl pkcs8 -topk8 -v2 aes-256-cbc -iter 600000 -in OLD -out NEW`"
            }
            Self::Pkcs12 => {
                "write the file anew, for example with `openssl pkcs12 -export -iter 600000 -inkey KEY -in CERTIFICATE -out NEW`"
            }
        }
    }
}

/// Refuses a file that asks for too much. The encrypted parts of PKCS#12 are not visible here; the library bounds each
/// of their derivations itself.
pub(crate) fn check(der: &[u8], format: Format) -> Result<(), Error> {
    let mut iterations = 0_u64;
    let mut work = 0_u64;
    for derivation in derivations(der, format) {
        match derivation {
            Derivation::Iterated(count) => {
                within(count, format.max_iterations_of_one(), "iterations", format)?;
                iterations = iterations.saturating_add(count);
            }
            Derivation::Scrypt(scrypt) => {
                scrypt.check(format)?;
                work = work.saturating_add(scrypt.work());
            }
        }
    }
    within(iterations, MAX_ITERATIONS, "iterations in all", format)?;
    within(work, MAX_SCRYPT_WORK, "bytes of work of scrypt", format)
}

fn within(asked: u64, most: u64, unit: &'static str, format: Format) -> Result<(), Error> {
    if asked <= most { Ok(()) } else { Err(Error::Excess { asked, most, unit, format }) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Derivation {
    /// PBKDF2, that of PKCS#12, or its MAC.
    Iterated(u64),
    Scrypt(Scrypt),
}

/// The parameters of RFC 7914 section 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scrypt {
    cost: u64,
    block_size: u64,
    parallelization: u64,
}

impl Scrypt {
    /// A block is 128 bytes for each unit of its size (RFC 7914 section 4).
    fn block(self) -> u64 {
        self.block_size.saturating_mul(128)
    }

    /// The larger of its two arrays; the other one doubles it at most.
    fn memory(self) -> u64 {
        self.block().saturating_mul(self.cost.max(self.parallelization))
    }

    fn work(self) -> u64 {
        self.block().saturating_mul(self.cost).saturating_mul(self.parallelization)
    }

    /// The library panics at a cost of 0.
    fn check(self, format: Format) -> Result<(), Error> {
        if self.cost < 2 || !self.cost.is_power_of_two() {
            return Err(Error::Cost { cost: self.cost, format });
        }
        within(self.memory(), memory::for_key_derivation(), "bytes of memory for scrypt", format)
    }
}

/// PBKDF2 of PKCS#5 (RFC 8018), which PBES2 refers to.
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
/// All password-based ciphers of PKCS#12 (RFC 7292 appendix C) begin so.
const PKCS12_PBE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01];
/// RFC 7914 section 7.
const SCRYPT: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x04, 0x0b];

const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const CONSTRUCTED: u8 = 0x20;

/// The parameters of a key bag in PKCS#12 are 16 levels deep.
const DEPTH: usize = 24;

fn derivations(der: &[u8], format: Format) -> Vec<Derivation> {
    let mut found = Vec::new();
    if format == Format::Pkcs12 {
        found.extend(mac(der));
    }
    collect(der, DEPTH, &mut found);
    found
}

/// Looks for the algorithms by name at any depth, so that no form of container is missed.
fn collect(der: &[u8], depth: usize, found: &mut Vec<Derivation>) {
    for (tag, content) in elements(der) {
        if tag == SEQUENCE {
            found.extend(derivation(content));
        }
        if depth > 0 && (tag & CONSTRUCTED != 0 || (tag == OCTET_STRING && is_sequence(content))) {
            collect(content, depth - 1, found);
        }
    }
}

/// An AlgorithmIdentifier of a derivation: its name, then its parameters.
fn derivation(identifier: &[u8]) -> Option<Derivation> {
    let mut parts = elements(identifier);
    let name = parts.next().filter(|(tag, _)| *tag == OID)?.1;
    let parameters = parts.next().filter(|(tag, _)| *tag == SEQUENCE)?.1;
    let number = |n| elements(parameters).nth(n).map(|(_, octets)| integer(octets));
    if name == PBKDF2 || name.starts_with(PKCS12_PBE) {
        return number(1).map(Derivation::Iterated);
    }
    let scrypt = || Some(Scrypt { cost: number(1)?, block_size: number(2)?, parallelization: number(3)? });
    if name == SCRYPT { scrypt().map(Derivation::Scrypt) } else { None }
}

/// The MacData of a PFX (RFC 7292 section 4), its third part.
fn mac(der: &[u8]) -> Option<Derivation> {
    let (_, pfx) = elements(der).next()?;
    let (_, mac) = elements(pfx).nth(2)?;
    let (_, iterations) = elements(mac).nth(2)?;
    Some(Derivation::Iterated(integer(iterations)))
}

fn is_sequence(content: &[u8]) -> bool {
    content.first() == Some(&SEQUENCE) && element(content).is_some_and(|(_, _, behind)| behind.is_empty())
}

/// The elements one after the other: tag and content. Ends at what is none.
fn elements(der: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = der;
    std::iter::from_fn(move || {
        let (whole, content, behind) = element(rest)?;
        rest = behind;
        Some((whole[0], content))
    })
}

/// Numbers that do not fit, and negative ones, become the largest.
fn integer(octets: &[u8]) -> u64 {
    let more = |number: u64, octet: &u8| number.checked_mul(256)?.checked_add(u64::from(*octet));
    octets.iter().try_fold(0, more).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], &content].concat()
    }

    fn number(number: u64) -> Vec<u8> {
        der(0x02, &[&[0], &number.to_be_bytes()])
    }

    fn algorithm(name: &[u8], numbers: &[u64]) -> Vec<u8> {
        let mut parameters = der(OCTET_STRING, &[b"saltsalt"]);
        numbers.iter().for_each(|n| parameters.extend(number(*n)));
        der(SEQUENCE, &[&der(OID, &[name]), &der(SEQUENCE, &[&parameters])])
    }

    fn wrapped(identifier: &[u8]) -> Vec<u8> {
        let bag = der(SEQUENCE, &[&der(0xa0, &[&der(SEQUENCE, &[identifier])])]);
        der(SEQUENCE, &[&number(3), &der(SEQUENCE, &[&der(0xa0, &[&der(OCTET_STRING, &[&bag])])])])
    }

    #[test]
    fn derivations_are_found_at_any_depth() {
        let scrypt = Scrypt { cost: 16_384, block_size: 8, parallelization: 1 };
        for (identifier, wanted) in [
            (algorithm(PBKDF2, &[2048, 32]), Derivation::Iterated(2048)),
            (algorithm(&[PKCS12_PBE, &[3]].concat(), &[1 << 40]), Derivation::Iterated(1 << 40)),
            (algorithm(SCRYPT, &[16_384, 8, 1]), Derivation::Scrypt(scrypt)),
        ] {
            assert_eq!(derivations(&identifier, Format::Pkcs8), [wanted]);
            assert_eq!(derivations(&wrapped(&identifier), Format::Pkcs12), [wanted]);
        }
    }

    #[test]
    fn many_derivations_are_bounded_together() {
        let bags = |count: usize| der(SEQUENCE, &vec![&algorithm(PBKDF2, &[1_000_000])[..]; count]);
        assert!(check(&bags(10), Format::Pkcs12).is_ok());
        let error = check(&bags(11), Format::Pkcs12).unwrap_err().to_string();
        assert!(error.contains("11000000 iterations in all") && error.contains("at most 10000000"), "{error}");
    }

    #[test]
    fn scrypt_is_bounded_in_memory_and_work() {
        for (numbers, part) in [
            ([1 << 14, 8, 1], None),
            ([1 << 40, 8, 1], Some("bytes of memory")),
            ([2, u64::MAX, 1], Some("bytes of memory")),
            ([2, 8, 1 << 40], Some("bytes of memory")),
            ([1 << 14, 8, 1 << 10], Some("bytes of work")),
            ([0, 8, 1], Some("no power of two")),
            ([1000, 8, 1], Some("no power of two")),
        ] {
            let error = check(&algorithm(SCRYPT, &numbers), Format::Pkcs8).map_err(|error| error.to_string());
            match part {
                None => assert_eq!(error, Ok(())),
                Some(part) => assert!(error.as_ref().is_err_and(|it| it.contains(part)), "{part}: {error:?}"),
            }
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_the_largest() {
        for (octets, wanted) in
            [(&[0x80, 0, 0, 0][..], 1 << 31), (&[1; 9], u64::MAX), (&[0xff; 12], u64::MAX), (&[], 0)]
        {
            assert_eq!(integer(octets), wanted, "{octets:?}");
        }
    }
}
