//! Text of an nginx configuration to tokens, by the rules of nginx's own reader (`ngx_conf_read_token`).
//!
//! A word ends at white space, `;` or `{`; a `}` inside a word belongs to it. Quotes mean something only at the
//! beginning of a word, `#` only there too. A backslash takes the next character along, whatever it is.

use crate::config::Span;

/// A word, or one of the three signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Its place in the text, quotes included.
    pub span: Span,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A word without its quotes and escapes.
    Word(String),
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

/// What cannot be read as tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A quote without its other end.
    #[error("this quote is never closed")]
    OpenQuote(Span),
    /// A character directly behind a closing quote.
    #[error("a space, `;` or `{{` has to follow the closing quote")]
    AfterQuote(Span),
    /// A block of a foreign language without its end.
    #[error("this block is never closed")]
    OpenBlock(Span),
}

impl Error {
    pub(crate) fn span(&self) -> &Span {
        match self {
            Self::OpenQuote(span) | Self::AfterQuote(span) | Self::OpenBlock(span) => span,
        }
    }
}

/// Gives the tokens of a text, one after the other.
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    /// From the beginning of a text.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next token; `None` at the end of the text.
    ///
    /// # Errors
    /// What cannot be read; the lexer is of no use after that.
    pub fn token(&mut self) -> Result<Option<Token>, Error> {
        self.skip_space_and_comments();
        let start = self.at;
        let Some(first) = self.peek() else { return Ok(None) };
        let sign = match first {
            ';' => Some(TokenKind::End),
            '{' => Some(TokenKind::Open),
            '}' => Some(TokenKind::Close),
            _ => None,
        };
        if let Some(kind) = sign {
            self.at += 1;
            return Ok(Some(Token { kind, span: start..self.at }));
        }
        let text = match first {
            '"' | '\'' => self.quoted(first)?,
            _ => self.bare(),
        };
        Ok(Some(Token { kind: TokenKind::Word(text), span: start..self.at }))
    }

    /// Skips the rest of a block of another language (Lua), up to and including its `}`: braces in it are counted,
    /// those in its strings too, as the reader of the Lua module cannot be had without a Lua parser.
    ///
    /// # Errors
    /// The block is not closed.
    pub(crate) fn skip_block(&mut self) -> Result<(), Error> {
        let start = self.at;
        let mut depth = 1;
        while let Some(letter) = self.next() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
        Err(Error::OpenBlock(start..self.at))
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.at += letter.len_utf8();
        Some(letter)
    }

    fn skip_space_and_comments(&mut self) {
        while let Some(letter) = self.peek() {
            match letter {
                '#' => self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at),
                // A byte order mark is skipped where it has a meaning: at the beginning.
                '\u{feff}' if self.at == 0 => self.at += letter.len_utf8(),
                letter if is_space(letter) => self.at += 1,
                _ => return,
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, Error> {
        let start = self.at;
        self.at += 1;
        let inner = self.at;
        loop {
            match self.next() {
                None => return Err(Error::OpenQuote(start..self.at)),
                Some('\\') => _ = self.next(),
                Some(letter) if letter == quote => break,
                Some(_) => {}
            }
        }
        let text = unescape(&self.text[inner..self.at - 1]);
        match self.peek() {
            Some(letter) if !is_space(letter) && !matches!(letter, ';' | '{' | ')') => {
                Err(Error::AfterQuote(self.at..self.at + letter.len_utf8()))
            }
            _ => Ok(text),
        }
    }

    fn bare(&mut self) -> String {
        let start = self.at;
        let mut variable = false;
        while let Some(letter) = self.peek() {
            if is_space(letter) || letter == ';' || (letter == '{' && !variable) {
                break;
            }
            // The brace of `${name}` opens no block.
            variable = letter == '$';
            self.at += letter.len_utf8();
            if letter == '\\' {
                let _ = self.next();
            }
        }
        unescape(&self.text[start..self.at])
    }
}

fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\r' | '\n')
}

/// nginx removes the backslash before quotes and itself, knows three control characters, and keeps all others.
fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut letters = raw.chars().peekable();
    while let Some(letter) = letters.next() {
        let replaced = match (letter, letters.peek()) {
            ('\\', Some(quoted @ ('"' | '\'' | '\\'))) => Some(*quoted),
            ('\\', Some('t')) => Some('\t'),
            ('\\', Some('r')) => Some('\r'),
            ('\\', Some('n')) => Some('\n'),
            _ => None,
        };
        if replaced.is_some() {
            letters.next();
        }
        text.push(replaced.unwrap_or(letter));
    }
    text
}

/// A word as it can be written, so that reading gives it back.
pub fn write_word(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            _ => quoted.push(letter),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut lexer = Lexer::new(text);
        let mut found = Vec::new();
        while let Some(token) = lexer.token().expect("the text can be read") {
            found.push(match token.kind {
                TokenKind::Word(text) => text,
                TokenKind::End => ";".into(),
                TokenKind::Open => "{".into(),
                TokenKind::Close => "}".into(),
            });
        }
        found
    }

    #[test]
    fn words_end_as_in_nginx() {
        assert_eq!(words("a  b;# c\nd{e}"), ["a", "b", ";", "d", "{", "e}"]);
        assert_eq!(words("set ${x}y $z;"), ["set", "${x}y", "$z", ";"]);
        assert_eq!(words("a#b 'c;d' \"e{\" ;"), ["a#b", "c;d", "e{", ";"]);
    }

    #[test]
    fn escapes_are_those_of_nginx() {
        assert_eq!(words(r#"a\;b "c\"d" 'e\\f' \.x\n;"#), [r"a\;b", "c\"d", r"e\f", "\\.x\n", ";"]);
    }

    #[test]
    fn quotes_are_watched() {
        assert_eq!(Lexer::new("\"a").token(), Err(Error::OpenQuote(0..2)));
        assert_eq!(Lexer::new("'a'b").token(), Err(Error::AfterQuote(3..4)));
        assert_eq!(Lexer::new("{ x }").skip_block(), Err(Error::OpenBlock(0..5)));
    }
}
