//! Makes untrusted text visible: control characters, line breaks of every kind, bidirectional controls and characters
//! without a glyph become escapes, so that no text can forge a line, reorder one, or hide in one.
//!
//! Escaping is idempotent: text may be escaped where it is read and again where it is written.

use std::fmt::Write;

/// The text with every invisible character escaped but line breaks: for what is shown as a paragraph.
pub(crate) fn escaped_lines(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter == '\n' { escaped.push(letter) } else { push(&mut escaped, letter) }
    }
    escaped
}

/// Appends one character, as `\n`, `\r`, `\t` or `\u{...}` if it is invisible; spaces and backslashes stay.
pub(crate) fn push(to: &mut String, letter: char) {
    match letter {
        '\n' => to.push_str("\\n"),
        '\r' => to.push_str("\\r"),
        '\t' => to.push_str("\\t"),
        letter if is_invisible(letter) => {
            write!(to, "\\u{{{:x}}}", u32::from(letter)).expect("a string takes any text");
        }
        letter => to.push(letter),
    }
}

/// Whether a reader of a terminal or page would not see this character as itself.
pub(crate) fn is_invisible(letter: char) -> bool {
    match letter {
        ' '..='~' => false,
        '\0'..='\u{9f}' => true,
        // Letters, marks and symbols without a glyph (Unicode: Default_Ignorable_Code_Point, and the empty Braille
        // pattern), which count as printable below.
        '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2800}' => true,
        '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}' => true,
        letter => !is_printable(letter),
    }
}

/// By the standard library: of the general categories only C (control, format, private, unassigned) and Z (separators)
/// are not. Tested behind another letter, so that a combining mark is not escaped as a string's first one is.
fn is_printable(letter: char) -> bool {
    let mut bytes = [b'a'; 5];
    let length = letter.encode_utf8(&mut bytes[1..]).len();
    let text = std::str::from_utf8(&bytes[..=length]).expect("two characters, whole");
    text.escape_debug().nth(1) == Some(letter)
}

/// JSON whose invisible characters are JSON's own escapes: a program reads the same text, a terminal shows it.
/// Invisible characters occur only inside strings, except for line breaks, which never do.
pub(crate) fn json(text: String) -> String {
    let is_hidden = |letter| letter != '\n' && is_invisible(letter);
    if !text.chars().any(is_hidden) {
        return text;
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if !is_hidden(letter) {
            shown.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            write!(shown, "\\u{unit:04x}").expect("a string takes any text");
        }
    }
    shown
}

pub(crate) fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVISIBLE: [(&str, &str); 12] = [
        ("a line\nforged", "a line\\nforged"),
        ("\r\t", "\\r\\t"),
        ("\u{1b}[31m", "\\u{1b}[31m"),
        ("\u{9b}31m", "\\u{9b}31m"),
        ("\u{7f}", "\\u{7f}"),
        ("\u{202e}gnp.exe", "\\u{202e}gnp.exe"),
        ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
        ("\u{2028}\u{2029}", "\\u{2028}\\u{2029}"),
        ("p\u{200b}a\u{200d}y\u{feff}", "p\\u{200b}a\\u{200d}y\\u{feff}"),
        ("\u{a0}\u{3000}", "\\u{a0}\\u{3000}"),
        ("\u{e0041}\u{fe0f}", "\\u{e0041}\\u{fe0f}"),
        ("\u{3164}\u{34f}", "\\u{3164}\\u{34f}"),
    ];

    fn escaped(text: &str) -> String {
        let mut escaped = String::new();
        text.chars().for_each(|letter| push(&mut escaped, letter));
        escaped
    }

    #[test]
    fn invisible_characters_are_shown_as_escapes() {
        for (text, shown) in INVISIBLE {
            assert_eq!(escaped(text), shown);
            assert_eq!(escaped(shown), shown, "what is escaped stays");
        }
    }

    #[test]
    fn readable_text_of_any_script_stays() {
        for text in ["CN=localhost, O=\"A & B\\C\"", "Müller e\u{301}", "日本語", "עברית", "हिन्दी", "…"]
        {
            assert_eq!(escaped(text), text);
        }
        assert_eq!(escaped_lines("a\nb\u{202e}"), "a\nb\\u{202e}");
    }

    #[test]
    fn json_holds_the_same_text_and_shows_it() {
        for (text, _) in INVISIBLE {
            let json = json(serde_json::to_string(text).unwrap());
            assert!(!json.chars().any(is_invisible), "{json:?}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
