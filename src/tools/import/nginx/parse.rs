//! Tokens to directives: `name arguments;` or `name arguments { ... }`.

use crate::config::Span;
use crate::tools::import::nginx::token::{self, Lexer, TokenKind};

/// An argument, or the name of a directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Without quotes and escapes.
    pub text: String,
    pub(crate) span: Span,
}

/// One directive of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// What it is called; in a `map`, the key.
    pub name: Word,
    /// What follows up to `;` or `{`.
    pub arguments: Vec<Word>,
    /// The directives in its braces.
    pub block: Option<Vec<Self>>,
    pub(crate) file: usize,
    /// Unique in the whole configuration; accounts use it as key.
    pub(crate) id: usize,
}

impl Directive {
    /// The text of an argument, counted from zero; empty if there is none.
    pub(crate) fn argument(&self, at: usize) -> &str {
        self.arguments.get(at).map_or("", |word| &word.text)
    }

    /// From its name to its last argument.
    pub(crate) fn span(&self) -> Span {
        self.name.span.start..self.arguments.last().map_or(self.name.span.end, |word| word.span.end)
    }

    /// The directives in its braces; none without braces.
    pub fn children(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    pub(crate) fn line(&self) -> String {
        let words = std::iter::once(&self.name).chain(&self.arguments).map(|word| word.text.as_str());
        words.collect::<Vec<_>>().join(" ")
    }
}

/// Why a text is no configuration of nginx.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It cannot be split into words.
    #[error(transparent)]
    Token(#[from] token::Error),
    /// A sign in place of a name.
    #[error("a directive has to stand here")]
    NoName(Span),
    /// A directive without its end.
    #[error("this directive has no `;` at its end")]
    Unfinished(Span),
    /// A `}` too many.
    #[error("this brace closes nothing")]
    Closes(Span),
    /// A `{` whose `}` is missing.
    #[error("this block is never closed")]
    OpenBlock(Span),
    /// More than [`DEEPEST`] blocks inside each other.
    #[error("no real configuration nests so many blocks")]
    TooDeep(Span),
    /// More than [`MOST`] directives.
    #[error("there are more than {MOST} directives")]
    TooMany(Span),
}

impl Error {
    pub(crate) fn span(&self) -> &Span {
        match self {
            Self::Token(error) => error.span(),
            Self::NoName(span)
            | Self::Unfinished(span)
            | Self::Closes(span)
            | Self::OpenBlock(span)
            | Self::TooDeep(span)
            | Self::TooMany(span) => span,
        }
    }
}

/// Nested blocks: http > server > location > if is four, and locations nest in locations.
pub(crate) const DEEPEST: usize = 32;

/// The most directives of one configuration, with all that it includes. A directive with its place, its account and its
/// JSON takes up to 1.5 KB, so that an import stays under 200 MiB.
pub(crate) const MOST: usize = 100_000;

/// The directives of a text; all get `file`, and numbers from `ids` on.
///
/// # Errors
/// The first thing that nginx would stop at.
pub fn parse(text: &str, file: usize, ids: &mut usize) -> Result<Vec<Directive>, Error> {
    let mut parser = Parser { lexer: Lexer::new(text), file, ids };
    let mut open: Vec<(Vec<Directive>, Directive)> = Vec::new();
    let mut current = Vec::new();
    loop {
        match parser.statement()? {
            Statement::Plain(directive) => current.push(directive),
            Statement::Block(directive) if open.len() == DEEPEST => return Err(Error::TooDeep(directive.span())),
            Statement::Block(directive) => open.push((std::mem::take(&mut current), directive)),
            Statement::Close(span) => {
                let (outer, mut directive) = open.pop().ok_or(Error::Closes(span))?;
                directive.block = Some(std::mem::replace(&mut current, outer));
                current.push(directive);
            }
            Statement::Nothing => break,
        }
    }
    match open.pop() {
        Some((_, directive)) => Err(Error::OpenBlock(directive.span())),
        None => Ok(current),
    }
}

enum Statement {
    Plain(Directive),
    Block(Directive),
    Close(Span),
    Nothing,
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    file: usize,
    ids: &'a mut usize,
}

impl Parser<'_> {
    fn statement(&mut self) -> Result<Statement, Error> {
        let Some(first) = self.lexer.token()? else { return Ok(Statement::Nothing) };
        let name = match first.kind {
            TokenKind::Word(text) => Word { text, span: first.span },
            TokenKind::Close => return Ok(Statement::Close(first.span)),
            TokenKind::End | TokenKind::Open => return Err(Error::NoName(first.span)),
        };
        let mut directive = Directive { name, arguments: Vec::new(), block: None, file: self.file, id: *self.ids };
        *self.ids += 1;
        if *self.ids > MOST {
            return Err(Error::TooMany(directive.span()));
        }
        loop {
            let Some(token) = self.lexer.token()? else { return Err(Error::Unfinished(directive.span())) };
            match token.kind {
                TokenKind::Word(text) => directive.arguments.push(Word { text, span: token.span }),
                TokenKind::End => return Ok(Statement::Plain(directive)),
                TokenKind::Close => return Err(Error::Unfinished(directive.span())),
                TokenKind::Open if directive.name.text.ends_with("_by_lua_block") => {
                    self.lexer.skip_block()?;
                    directive.block = Some(Vec::new());
                    return Ok(Statement::Plain(directive));
                }
                TokenKind::Open => return Ok(Statement::Block(directive)),
            }
        }
    }
}

/// A pasted difference: lines that begin with `-` are blanked, the `+` of others too. Lengths stay, so that places
/// do. `None`: it is no difference.
pub(crate) fn apply_difference(text: &str) -> Option<String> {
    let mark = |line: &str| match line.as_bytes() {
        [sign @ (b'+' | b'-'), b' ' | b'\t', ..] => Some(*sign),
        _ => None,
    };
    text.lines().any(|line| mark(line).is_some()).then(|| {
        let blank = |line: &str| " ".repeat(line.trim_end_matches('\n').len());
        let lines = text.split_inclusive('\n').map(|line| match mark(line) {
            Some(b'-') => blank(line) + &line[line.trim_end_matches('\n').len()..],
            Some(_) => format!(" {}", &line[1..]),
            None => line.to_owned(),
        });
        lines.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Directive>, Error> {
        parse(text, 0, &mut 0)
    }

    #[test]
    fn blocks_nest_and_numbers_follow_the_text() {
        let tree = read("a 1; b { c 'x y'; d { } } e;").expect("it is a configuration");
        assert_eq!(tree.iter().map(|directive| directive.id).collect::<Vec<_>>(), [0, 1, 4]);
        assert_eq!(tree[1].children()[0].argument(0), "x y");
        assert_eq!(tree[1].children()[1].block, Some(Vec::new()));
    }

    #[test]
    fn missing_parts_are_reported() {
        assert_eq!(read("a { b"), Err(Error::Unfinished(4..5)));
        assert_eq!(read("a { b; "), Err(Error::OpenBlock(0..1)));
        assert_eq!(read("a; }"), Err(Error::Closes(3..4)));
        assert_eq!(read(";"), Err(Error::NoName(0..1)));
        assert!(matches!(read(&"a{".repeat(100)), Err(Error::TooDeep(_))));
    }

    #[test]
    fn foreign_blocks_are_skipped() {
        let tree = read("access_by_lua_block { if x then y = { 'a;' } end } b;").expect("it is a configuration");
        assert_eq!(tree.len(), 2);
    }

    #[test]
    fn marks_of_a_difference_are_blanked() {
        assert_eq!(apply_difference("a;\n- b;\n+ c;\n").as_deref(), Some("a;\n    \n  c;\n"));
        assert_eq!(apply_difference("a;\n-b;\n"), None);
    }
}
