//! DER of encrypted keys as tools that check nothing would write it. No password opens them.

const SEQUENCE: u8 = 0x30;
const CONTEXT: u8 = 0xa0;
const PBES2: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
const PBKDF2: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
const SCRYPT: [u8; 9] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x04, 0x0b];
const AES_256_CBC: [u8; 9] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];
const SHA_256: [u8; 9] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const DATA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const KEY_BAG: [u8; 11] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x02];

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    match content.len() {
        short @ 0..0x80 => [&[tag, u8::try_from(short).unwrap()][..], &content].concat(),
        0x80..0x100 => [&[tag, 0x81, length[1]][..], &content].concat(),
        _ => [&[tag, 0x82][..], &length, &content].concat(),
    }
}

fn number(number: u64) -> Vec<u8> {
    let octets = number.to_be_bytes();
    let from = octets.iter().position(|octet| *octet != 0).unwrap_or(7);
    let sign: &[u8] = if octets[from] & 0x80 == 0 { &[] } else { &[0] };
    der(0x02, &[sign, &octets[from..]])
}

fn octets(content: &[u8]) -> Vec<u8> {
    der(0x04, &[content])
}

fn oid(name: &[u8]) -> Vec<u8> {
    der(0x06, &[name])
}

fn sealed(derivation: &[u8], numbers: &[u64]) -> Vec<u8> {
    let numbers: Vec<u8> = numbers.iter().flat_map(|n| number(*n)).collect();
    let derivation = der(SEQUENCE, &[&oid(derivation), &der(SEQUENCE, &[&octets(&[7; 8]), &numbers])]);
    let cipher = der(SEQUENCE, &[&oid(&AES_256_CBC), &octets(&[7; 16])]);
    let algorithm = der(SEQUENCE, &[&oid(&PBES2), &der(SEQUENCE, &[&derivation, &cipher])]);
    der(SEQUENCE, &[&algorithm, &octets(&[7; 64])])
}

pub(crate) fn pbkdf2(iterations: u64) -> Vec<u8> {
    sealed(&PBKDF2, &[iterations])
}

pub(crate) fn scrypt(numbers: [u64; 3]) -> Vec<u8> {
    sealed(&SCRYPT, &numbers)
}

/// With key bags, and a MAC of so many iterations.
pub(crate) fn pkcs12(keys: &[Vec<u8>], mac: u64) -> Vec<u8> {
    let bag = |key: &Vec<u8>| der(SEQUENCE, &[&oid(&KEY_BAG), &der(CONTEXT, &[key])]);
    let data = |content: &[u8]| der(SEQUENCE, &[&oid(&DATA), &der(CONTEXT, &[&octets(content)])]);
    let bags = der(SEQUENCE, &[&keys.iter().flat_map(bag).collect::<Vec<u8>>()]);
    let digest = der(SEQUENCE, &[&der(SEQUENCE, &[&oid(&SHA_256), &[5, 0]]), &octets(&[7; 32])]);
    let mac = der(SEQUENCE, &[&digest, &octets(&[7; 8]), &number(mac)]);
    der(SEQUENCE, &[&number(3), &data(&der(SEQUENCE, &[&data(&bags)])), &mac])
}
