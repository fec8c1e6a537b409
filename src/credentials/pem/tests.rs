use super::*;

type Found<'a> = Vec<(&'a str, &'a [u8], usize)>;

fn found(sections: &[Section]) -> Found<'_> {
    sections.iter().map(|section| (section.label.as_str(), section.body.expose(), section.line)).collect()
}

#[test]
fn sections_come_in_order_and_text_between_is_skipped() {
    let text = b"subject=x\r\n-----BEGIN A-----\r\nZm9v\r\nYmE=\r\n-----END A-----\r\n\n-----BEGIN B-----\nZg==\n-----END B-----";
    assert_eq!(found(&sections(text).expect("it is PEM")), [("A", &b"fooba"[..], 2), ("B", b"f", 7)]);
}

fn utf16(text: &str, mark: bool, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    mark.then_some(0xfeff).into_iter().chain(text.encode_utf16()).flat_map(bytes).collect()
}

#[test]
fn a_text_is_the_same_in_every_encoding_and_layout() {
    const PLAIN: &str = "-----BEGIN A-----\nZm9v\n-----END A-----\n-----BEGIN B-----\nYmFy\n-----END B-----\n";
    let one_line = PLAIN.replace('\n', " ");
    let layouts: [(&str, Vec<u8>); 13] = [
        ("as it is", PLAIN.into()),
        ("byte order mark", format!("\u{feff}{PLAIN}").into()),
        ("marks of appended files", PLAIN.replace("-----BEGIN", "\u{feff}-----BEGIN").into()),
        ("CR LF", PLAIN.replace('\n', "\r\n").into()),
        ("CR", PLAIN.replace('\n', "\r").into()),
        ("no newline at the end", PLAIN.trim_end().into()),
        ("glued", PLAIN.replace("A-----\n-----B", "A----------B").into()),
        ("white space around lines", PLAIN.replace('\n', " \t\n\t ").into()),
        (
            "blank and comment lines",
            PLAIN.replace("-----BEGIN", "\n# of -----BEGIN X-----\nBag Attributes: a\n-----BEGIN").into(),
        ),
        ("one line", one_line.into()),
        ("UTF-16, little end first", utf16(PLAIN, true, u16::to_le_bytes)),
        ("UTF-16, big end first", utf16(PLAIN, true, u16::to_be_bytes)),
        ("UTF-16 without a mark", utf16(PLAIN, false, u16::to_le_bytes)),
    ];
    for (layout, text) in layouts {
        assert!(is_pem(&text), "{layout}");
        let sections = sections(&text).unwrap_or_else(|error| panic!("{layout}: {error}"));
        let found: Vec<_> = sections.iter().map(|it| (it.label.as_str(), it.body.expose())).collect();
        assert_eq!(found, [("A", &b"foo"[..]), ("B", b"bar")], "{layout}");
    }
}

#[test]
fn damage_is_reported_by_line() {
    let table: &[(&[u8], Error)] = &[
        (b"\n-----BEGIN A-----\nZm9v", Error::Unended(2)),
        (b"-----BEGIN A-----\nZm9v\n-----BEGIN B-----\n", Error::Unended(1)),
        (b"Zm9v\n-----END A-----", Error::Unbegun(2)),
        (b"-----BEGIN A-----\nZm9v\n-----END B-----", Error::Mismatched(3)),
        (b"-----BEGIN A-----\nZm_v\n-----END A-----", Error::NotBase64(2)),
        (b"-----BEGIN A-----\nZm9vZ\n-----END A-----", Error::NotBase64(3)),
        (b"-----BEGIN A-----\nZm9v\nKey: value\n-----END A-----", Error::NotBase64(3)),
        (b"-----BEGIN A-----\\nZm9v\\n-----END A-----", Error::NotBase64(1)),
        (b"text\n----BEGIN A-----\nZm9v\n-----END A-----", Error::BadMarker(2)),
        (b"-----begin a-----\nZm9v\n-----end a-----", Error::BadMarker(1)),
        ("\u{2014}-BEGIN A\u{2014}-\nZm9v\n".as_bytes(), Error::BadMarker(1)),
        (b"-----BEGIN A----\nZm9v\n-----END A-----", Error::BadMarker(1)),
        (b"\xff\xfe-\0-", Error::NotUtf16),
    ];
    for (text, error) in table {
        assert!(is_pem(text), "{}", String::from_utf8_lossy(text));
        assert_eq!(sections(text).unwrap_err(), *error, "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn old_encryption_is_seen() {
    let text = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nZm9v\n-----END RSA PRIVATE KEY-----\n";
    assert!(sections(text).expect("it is PEM")[0].old_encryption);
}
